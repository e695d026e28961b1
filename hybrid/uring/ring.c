/* SPDX-License-Identifier: Apache-2.0 */
/* Setting an io_uring up; see ring.h. */
#include "uring/ring.h"

#include "core/error.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int uring_explain(int status) {
  switch (-status) {
  case EPERM:
    return error_detail_set(
        status, "io_uring is switched off for this process: set the sysctl kernel.io_uring_disabled "
                "to 0, or allow it in the container's seccomp profile");
  case ENOSYS:
    return error_detail_set(
        status, "this kernel has no io_uring, or a seccomp profile hides it: allow io_uring_setup, "
                "io_uring_enter and io_uring_register");
  case ENOMEM:
    return error_detail_set(status,
                            "io_uring cannot lock its memory: raise RLIMIT_MEMLOCK, or give the process "
                            "CAP_IPC_LOCK");
  default:
    return error_detail_set(status, "io_uring cannot be set up: %s", strerror(-status));
  }
}

int uring_ring_open(struct io_uring *ring, unsigned entries, unsigned completions, bool *deferred) {
  static const unsigned wishes[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* Linux 6.1 */
      IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                               /* Linux 5.19 */
  };
  int status = -EINVAL;
  for (unsigned i = 0; i < 2 && status == -EINVAL; i++) {
    struct io_uring_params params = {
        .flags = wishes[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
        .cq_entries = completions,
    };
    status = io_uring_queue_init_params(entries, ring, &params);
    *deferred = i == 0;
  }
  if (status == -EINVAL) /* not even the second wish */
    return error_detail_set(-EOPNOTSUPP,
                            "this kernel's io_uring is too old: Linux 5.19 is needed, 6.1 to be at its best");
  return status < 0 ? uring_explain(status) : 0;
}

int uring_ring_start(struct io_uring *ring) {
  return io_uring_enable_rings(ring);
}

/* ---- sleeping ---------------------------------------------------------------------- */

int uring_bell_open(struct uring_bell *bell, struct io_uring *ring) {
  bell->armed = false;
  bell->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (bell->fd < 0)
    return error_detail_set(-errno, "no descriptor is left: raise RLIMIT_NOFILE");
  int status = io_uring_register_eventfd(ring, bell->fd);
  if (status < 0)
    return uring_explain(status);
  io_uring_cq_eventfd_toggle(ring, false);
  return 0;
}

void uring_bell_close(struct uring_bell *bell) {
  if (bell->fd >= 0)
    close(bell->fd);
  bell->fd = -1;
}

void uring_bell_arm(struct uring_bell *bell, struct io_uring *ring) {
  io_uring_cq_eventfd_toggle(ring, true);
  bell->armed = true;
  /* Pairs with the kernel's: it makes work visible, then looks whether it has to signal. */
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void uring_bell_disarm(struct uring_bell *bell, struct io_uring *ring) {
  uint64_t count;
  bell->armed = false;
  io_uring_cq_eventfd_toggle(ring, false);
  while (read(bell->fd, &count, sizeof count) < 0 && errno == EINTR)
    continue;
}
