/* SPDX-License-Identifier: Apache-2.0 */
/* Setting an io_uring up; see ring.h. */
#include "uring/ring.h"

#include "core/error.h"

#include <errno.h>
#include <string.h>

static void explain(int status) {
  switch (-status) {
  case EPERM:
    error_detail_set(
        "io_uring is switched off for this process: set the sysctl kernel.io_uring_disabled to 0, "
        "or allow it in the container's seccomp profile");
    break;
  case ENOSYS:
    error_detail_set("this kernel has no io_uring, or a seccomp profile hides it: allow io_uring_setup, "
                     "io_uring_enter and io_uring_register");
    break;
  default:
    error_detail_set("io_uring cannot be set up: %s", strerror(-status));
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
  if (status == -EINVAL) { /* not even the second wish */
    error_detail_set("this kernel's io_uring is too old: Linux 5.19 or later is needed, 6.1 for full speed");
    return -EOPNOTSUPP;
  }
  if (status < 0)
    explain(status);
  return status;
}

int uring_ring_start(struct io_uring *ring) {
  return io_uring_enable_rings(ring);
}
