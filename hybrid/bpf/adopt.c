/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A steering program that somebody else attached: DPDK's net_af_xdp driver, from the object that is made of
 * steer_dpdk.bpf.c. Its maps are found by the program's, and nothing is pinned: they live as long as the
 * port.
 */
#include "bpf/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

enum { MAPS_MAX = 64 };

/* Where a map of that name goes; -1: it isn't one of the layout's. */
static int place_of(const char *name) {
  if (strcmp(name, STEER_DPDK_SOCKETS) == 0)
    return STEER_MAP_XSKS;
  for (int i = 0; i < STEER_MAP_COUNT; i++)
    if (strcmp(name, steer_map_names[i]) == 0)
      return i;
  return -1;
}

static int take_map(hy_steer *steer, uint32_t id) {
  int fd = bpf_map_get_fd_by_id(id);
  if (fd < 0)
    return fd;
  struct bpf_map_info info = {0};
  uint32_t length = sizeof(info);
  int err = bpf_obj_get_info_by_fd(fd, &info, &length);
  int place = err ? -1 : place_of(info.name);
  if (place >= 0 && steer->map_fds[place] < 0)
    steer->map_fds[place] = fd;
  else
    close(fd);
  return err;
}

static int take_maps(hy_steer *steer) {
  uint32_t ids[MAPS_MAX];
  struct bpf_prog_info info = {.nr_map_ids = MAPS_MAX, .map_ids = (uintptr_t)ids};
  uint32_t length = sizeof(info);
  int err = bpf_obj_get_info_by_fd(steer->program_fd, &info, &length);
  for (uint32_t i = 0; !err && i < info.nr_map_ids && i < MAPS_MAX; i++)
    err = take_map(steer, ids[i]);
  /* The program need not use what only the loader reads. */
  if (!err && (steer->map_fds[STEER_MAP_GENERATIONS] < 0 || steer->map_fds[STEER_MAP_COUNTERS] < 0 ||
               steer->map_fds[STEER_MAP_XSKS] < 0))
    err = -ENOEXEC;
  return err;
}

int hy_steer_adopt(uint32_t ifindex, hy_steer **out, hy_steer_error *error) {
  hy_steer_xdp xdp;
  int err = hy_steer_inspect(ifindex, &xdp, error);
  if (err)
    return err;
  if (xdp.program_id == 0)
    return steer_fail(error, -ENOENT, "interface %u has no XDP program: open the DPDK port first", ifindex);
  hy_steer *steer = malloc(sizeof(*steer));
  if (!steer)
    return steer_fail(error, -ENOMEM, "out of memory");
  steer_init(steer);
  steer->program_fd = bpf_prog_get_fd_by_id(xdp.program_id);
  err = steer->program_fd < 0 ? steer->program_fd : take_maps(steer);
  if (err)
    err = steer_fail(error, err,
                     "the XDP program of interface %u is not hybrid's for DPDK ports: give the port "
                     "xdp_prog=, with the path of steer-dpdk.bpf.o",
                     ifindex);
  return steer_finish(steer, err, out, error);
}
