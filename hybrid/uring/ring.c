/* SPDX-License-Identifier: Apache-2.0 */
/* Setting an io_uring up; see ring.h. */
#include "uring/ring.h"

#include "core/error.h"

#include <errno.h>
#include <string.h>

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
