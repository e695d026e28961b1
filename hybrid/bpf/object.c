/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the object file to loaded programs and maps, held by a handle.
 */
#include "bpf/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

const char *const steer_map_names[STEER_MAP_COUNT] = {
#define STEER_MAP_NAME(symbol, name) name,
    STEER_MAPS(STEER_MAP_NAME)
#undef STEER_MAP_NAME
};

void steer_fd_close(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

void steer_init(hy_steer *steer) {
  memset(steer, 0, sizeof(*steer));
  steer->link_fd = steer->program_fd = steer->queues_fd = steer->return_fd = -1;
  for (int i = 0; i < STEER_MAP_COUNT; i++)
    steer->map_fds[i] = -1;
}

void steer_fini(hy_steer *steer) {
  steer_fd_close(&steer->link_fd);
  steer_fd_close(&steer->program_fd);
  steer_fd_close(&steer->queues_fd);
  steer_fd_close(&steer->return_fd);
  for (int i = 0; i < STEER_MAP_COUNT; i++)
    steer_fd_close(&steer->map_fds[i]);
}

/* A descriptor that outlives the object. */
static int keep(int fd) {
  int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return kept < 0 ? -errno : kept;
}

static int take_program(struct bpf_object *object, const char *name, int *fd) {
  struct bpf_program *program = bpf_object__find_program_by_name(object, name);
  if (!program)
    return -ENOENT;
  int kept = keep(bpf_program__fd(program));
  if (kept < 0)
    return kept;
  steer_fd_close(fd);
  *fd = kept;
  return 0;
}

/* Before the load: the maps there are go into the object. After: the others come out of it. */
static int share_maps(hy_steer *steer, struct bpf_object *object, bool loaded) {
  for (int i = 0; i < STEER_MAP_COUNT; i++) {
    struct bpf_map *map = bpf_object__find_map_by_name(object, steer_map_names[i]);
    if (!map)
      return -ENOENT;
    int *fd = &steer->map_fds[i];
    if (!loaded && *fd >= 0) {
      int err = bpf_map__reuse_fd(map, *fd);
      if (err)
        return err;
    }
    if (loaded && *fd < 0) {
      *fd = keep(bpf_map__fd(map));
      if (*fd < 0)
        return *fd;
    }
  }
  return 0;
}

/*
 * What the program is compiled to know of itself (steer.bpf.c: has_fragments), and the kernel is told. The
 * programs are joined by a devmap, which takes only such as agree in this.
 */
static int choose_fragments(struct bpf_object *object, bool fragments) {
  struct bpf_map *constants = bpf_object__find_map_by_name(object, ".rodata");
  uint32_t value = fragments;
  if (!constants)
    return -ENOENT;
  int err = bpf_map__set_initial_value(constants, &value, sizeof(value));
  struct bpf_program *program;
  bpf_object__for_each_program(program, object) {
    if (!err)
      err = bpf_program__set_flags(program, fragments ? BPF_F_XDP_HAS_FRAGS : 0);
  }
  return err;
}

int steer_load_object(hy_steer *steer, const char *path, bool fragments, hy_steer_error *error) {
  struct steer_capture said;
  steer_capture_begin(&said);
  struct bpf_object *object = NULL;
  int err;
  /* bpf_object__open names a missing file only in what it prints. */
  if (access(path, R_OK) != 0) {
    err = -errno;
    goto out;
  }
  object = bpf_object__open_file(path, NULL);
  if (!object) {
    err = -errno;
    goto out;
  }
  err = choose_fragments(object, fragments);
  if (!err)
    err = share_maps(steer, object, false);
  if (!err)
    err = bpf_object__load(object);
  if (!err)
    err = share_maps(steer, object, true);
  if (!err)
    err = take_program(object, "hybrid_steer", &steer->program_fd);
  if (!err)
    err = take_program(object, "hybrid_queues", &steer->queues_fd);
  if (!err)
    err = take_program(object, "hybrid_return", &steer->return_fd);
out:
  bpf_object__close(object);
  steer_capture_end(&said);
  /* libbpf has numbers of its own, from LIBBPF_ERRNO__START up, for objects it can't make sense of. */
  if (err <= -__LIBBPF_ERRNO__START)
    err = -ENOEXEC;
  if (err)
    return steer_fail(error, err, "cannot load the steering program %s: %s%s%s", path, strerror(-err),
                      said.text[0] ? ": " : "", said.text);
  steer->fragments = fragments;
  return 0;
}

int steer_load_best(hy_steer *steer, const char *path, hy_steer_error *error) {
  int err = steer_load_object(steer, path, true, error);
  return err == -EINVAL ? steer_load_object(steer, path, false, error) : err;
}

int steer_finish(hy_steer *steer, int err, hy_steer **out, hy_steer_error *error) {
  if (!err)
    err = steer_rules_init(steer, error);
  if (err)
    hy_steer_close(steer);
  else
    *out = steer;
  return err;
}

int hy_steer_load(const char *object, hy_steer **out, hy_steer_error *error) {
  hy_steer *steer = malloc(sizeof(*steer));
  if (!steer)
    return steer_fail(error, -ENOMEM, "out of memory");
  steer_init(steer);
  return steer_finish(steer, steer_load_best(steer, object, error), out, error);
}

void hy_steer_close(hy_steer *steer) {
  if (!steer)
    return;
  steer_fini(steer);
  free(steer);
}

int hy_steer_test_run(const hy_steer *steer, const void *frame, uint32_t len_bytes, uint32_t ifindex,
                      uint32_t queue, uint32_t repeat, uint32_t *action, uint32_t *duration_ns,
                      hy_steer_error *error) {
  struct xdp_md context = {.data_end = len_bytes, .ingress_ifindex = ifindex, .rx_queue_index = queue};
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = len_bytes, .repeat = (int)repeat);
  if (ifindex) {
    options.ctx_in = &context;
    options.ctx_size_in = sizeof(context);
  }
  int err = bpf_prog_test_run_opts(steer->program_fd, &options);
  if (err)
    return steer_fail(error, err, "cannot run the steering program over a frame of %u bytes: %s", len_bytes,
                      strerror(-err));
  *action = options.retval;
  *duration_ns = options.duration;
  return 0;
}
