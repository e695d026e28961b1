/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP sockets in and out of service.
 *
 * The kernel accepts any AF_XDP socket in any slot and drops, at redirect time,
 * what an unbound one or one of another queue is given: so both are refused here.
 */
#include "bpf/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_xdp.h>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif

/*
 * There is no call that asks. A ring of no entries is refused by every socket, but
 * a bound one refuses before it looks at the number.
 */
static int check_bound(int xsk_fd) {
  int entries = 0;
  if (setsockopt(xsk_fd, SOL_XDP, XDP_RX_RING, &entries, sizeof(entries)) == 0)
    return -ENOTCONN;
  if (errno == EBUSY)
    return 0;
  return errno == EINVAL ? -ENOTCONN : -errno;
}

static int queues_read(const hy_steer *steer, struct steer_queues *queues) {
  memset(queues, 0xff, sizeof(*queues));
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = queues, .data_size_in = sizeof(*queues),
              .data_out = queues, .data_size_out = sizeof(*queues));
  int err = bpf_prog_test_run_opts(steer->queues_fd, &options);
  if (err)
    return err;
  return options.retval == XDP_PASS ? 0 : -EIO;
}

int hy_steer_enter(hy_steer *steer, uint32_t queue, int xsk_fd, hy_steer_error *error) {
  if (queue >= STEER_QUEUES)
    return steer_fail(error, -ERANGE, "queue %u is beyond the %d that are steered", queue, STEER_QUEUES);
  int err = check_bound(xsk_fd);
  if (err == -ENOTCONN)
    return steer_fail(error, err, "the AF_XDP socket for queue %u is not bound yet", queue);
  if (err)
    return steer_fail(error, err, "descriptor %d is not an AF_XDP socket: %s", xsk_fd, strerror(-err));
  err = bpf_map_update_elem(steer->map_fds[STEER_MAP_XSKS], &queue, &xsk_fd, BPF_ANY);
  if (err)
    return steer_fail(error, err, "cannot put the AF_XDP socket of queue %u into service: %s", queue,
                      strerror(-err));
  struct steer_queues queues;
  err = queues_read(steer, &queues);
  if (!err && queues.bound_to[queue] != queue)
    err = -EINVAL;
  if (!err)
    return 0;
  bpf_map_delete_elem(steer->map_fds[STEER_MAP_XSKS], &queue);
  if (err == -EINVAL)
    return steer_fail(error, err, "the AF_XDP socket offered for queue %u is bound to queue %u", queue,
                      queues.bound_to[queue]);
  return steer_fail(error, err, "cannot read back the sockets in service: %s", strerror(-err));
}

int hy_steer_leave(hy_steer *steer, uint32_t queue, hy_steer_error *error) {
  if (queue >= STEER_QUEUES)
    return steer_fail(error, -ERANGE, "queue %u is beyond the %d that are steered", queue, STEER_QUEUES);
  int err = bpf_map_delete_elem(steer->map_fds[STEER_MAP_XSKS], &queue);
  if (err && err != -ENOENT)
    return steer_fail(error, err, "cannot take the socket of queue %u out of service: %s", queue,
                      strerror(-err));
  return 0;
}

int hy_steer_leased(const hy_steer *steer, hy_steer_error *error) {
  struct steer_queues queues;
  int err = queues_read(steer, &queues);
  if (err)
    return steer_fail(error, err, "cannot tell whether the DPDK port is in service: %s", strerror(-err));
  return queues.leased != (uint32_t)STEER_QUEUE_EMPTY;
}

int hy_steer_sockets(const hy_steer *steer, uint64_t *queues, hy_steer_error *error) {
  static_assert(STEER_QUEUES == 64, "one bit each");
  struct steer_queues bound;
  int err = queues_read(steer, &bound);
  if (err)
    return steer_fail(error, err, "cannot list the sockets in service: %s", strerror(-err));
  *queues = 0;
  for (unsigned i = 0; i < STEER_QUEUES; i++)
    if (bound.bound_to[i] != (uint32_t)STEER_QUEUE_EMPTY)
      *queues |= UINT64_C(1) << i;
  return 0;
}
