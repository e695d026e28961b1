/* SPDX-License-Identifier: Apache-2.0 */
/* What quiet.bpf.c and who loads it both know. */
#ifndef HYBRID_URING_QUIET_LAYOUT_H
#define HYBRID_URING_QUIET_LAYOUT_H

#include <linux/types.h>

enum { QUIET_FLOWS = 16, QUIET_ADDRS = 4 };

struct quiet_flow {
  __u16 port_lo, port_hi; /* destination, host byte order, inclusive */
  __u8 protocol;
  __u8 reserved[3];
};

struct quiet_set {
  __u32 nflows;
  __u32 naddrs; /* 0: every destination */
  struct quiet_flow flows[QUIET_FLOWS];
  __u32 addrs[QUIET_ADDRS][4]; /* network byte order; IPv4 as IPv4-mapped IPv6 */
};

#endif
