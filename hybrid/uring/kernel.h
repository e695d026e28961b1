/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What io_uring has and the header of liburing 2.3 (Debian 12) does not name yet. The
 * numbers are the kernel's own (include/uapi/linux/io_uring.h); whether the kernel that runs
 * knows them is found out by asking it (stream_probe.c).
 */
#ifndef HYBRID_URING_KERNEL_H
#define HYBRID_URING_KERNEL_H

#include <liburing.h>
#include <stdint.h>

/* Linux 6.2: the notification of a zero-copy send says whether the kernel copied after all. */
#define URING_SEND_ZC_REPORT_USAGE (1u << 3)
#define URING_NOTIF_ZC_COPIED (1u << 31)
/* Linux 6.10: one receive fills several buffers, and says only which is the first. */
#define URING_RECVSEND_BUNDLE (1u << 4)
/* Linux 6.9: waiting for completions polls the network devices that the sockets' packets came by. */
#define URING_REGISTER_NAPI 27

struct uring_napi {
  uint32_t busy_poll_us;
  uint8_t prefer_busy_poll;
  uint8_t reserved[3];
  uint64_t reserved2;
};
_Static_assert(sizeof(struct uring_napi) == 16, "as the kernel has it");

#endif
