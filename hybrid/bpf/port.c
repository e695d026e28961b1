/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DPDK port of an interface, reached by a veth, and what the program is told while rules with a
 * fallback have connections in the kernel.
 *
 *   interface --hybrid_steer--> near end | far end: DPDK
 *   interface <--hybrid_return-- near end | far end
 */
#include "bpf/internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

static int refuse_old(const hy_steer *steer, hy_steer_error *error) {
  if (steer->map_fds[STEER_MAP_STATE] >= 0 && steer->return_fd >= 0)
    return 0;
  return steer_fail(error, -EOPNOTSUPP, "the program of %s is an older build's, without DPDK ports",
                    steer->meta.ifname);
}

static int port_write(const hy_steer *steer, uint32_t key, uint32_t ifindex) {
  return bpf_map_update_elem(steer->map_fds[STEER_MAP_PORTS], &key, &ifindex, BPF_ANY);
}

/*
 * In generic mode: what a packet socket or an AF_XDP socket sends into the far end arrives as a socket
 * buffer, and going on from there the interface's own transmit function is used, whatever its driver has.
 */
static int return_attach(hy_steer *steer, uint32_t ifindex, hy_steer_error *error) {
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_SKB_MODE);
  int fd = bpf_link_create(steer->return_fd, (int)ifindex, BPF_XDP, &options);
  if (fd < 0)
    return steer_fail(error, fd, "cannot attach the way back from interface %u: %s", ifindex, strerror(-fd));
  int err = 0;
  if (steer->directory[0]) {
    steer_unpin(steer->directory, "return-link"); /* of a veth that is gone */
    err = steer_pin(fd, steer->directory, "return-link", error);
  }
  close(fd);
  return err;
}

int hy_steer_port_set(hy_steer *steer, uint32_t ifindex, hy_steer_error *error) {
  int err = refuse_old(steer, error);
  if (err)
    return err;
  int lock = steer_lock(steer->directory, error);
  if (lock < 0)
    return lock;
  err = return_attach(steer, ifindex, error);
  if (!err) {
    err = port_write(steer, STEER_PORT_SELF, steer->meta.ifindex);
    if (!err)
      err = port_write(steer, STEER_PORT_DPDK, ifindex);
    if (err)
      steer_fail(error, err, "cannot redirect from %s to interface %u: %s", steer->meta.ifname, ifindex,
                 strerror(-err));
  }
  close(lock);
  return err;
}

int hy_steer_port_get(const hy_steer *steer, uint32_t *ifindex, hy_steer_error *error) {
  *ifindex = 0;
  if (steer->map_fds[STEER_MAP_PORTS] < 0)
    return 0;
  uint32_t key = STEER_PORT_DPDK;
  int err = bpf_map_lookup_elem(steer->map_fds[STEER_MAP_PORTS], &key, ifindex);
  if (err && err != -ENOENT)
    return steer_fail(error, err, "cannot read the ports of %s: %s", steer->meta.ifname, strerror(-err));
  return 0;
}

int hy_steer_lease(hy_steer *steer, int xsk_fd, hy_steer_error *error) {
  int err = refuse_old(steer, error);
  if (err)
    return err;
  uint32_t zero = 0;
  err = bpf_map_update_elem(steer->map_fds[STEER_MAP_LEASES], &zero, &xsk_fd, BPF_ANY);
  return err ? steer_fail(error, err, "cannot put the DPDK port of %s into service: %s", steer->meta.ifname,
                          strerror(-err))
             : 0;
}

int hy_steer_kernel_flows(hy_steer *steer, bool look, hy_steer_error *error) {
  int err = refuse_old(steer, error);
  if (err)
    return err;
  uint32_t zero = 0;
  struct steer_state state = {.kernel_flows = look};
  err = bpf_map_update_elem(steer->map_fds[STEER_MAP_STATE], &zero, &state, BPF_ANY);
  return err ? steer_fail(error, err, "cannot write the state of %s: %s", steer->meta.ifname, strerror(-err))
             : 0;
}
