/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says of an interface over its generic netlink family "netdev"
 * (Documentation/netlink/specs/netdev.yaml, Linux 6.3 and later). Asking needs no
 * privilege, and an older kernel has no answer.
 */
#ifndef HYBRID_AFXDP_NETDEV_H
#define HYBRID_AFXDP_NETDEV_H

#include <stdint.h>

struct netdev_features {
  uint64_t xdp;         /* NETDEV_XDP_ACT_* */
  uint64_t rx_metadata; /* 1: timestamp, 2: hash, 4: VLAN tag */
  uint64_t xsk;         /* 1: transmit timestamp, 2: transmit checksum, 4: launch time */
  uint32_t zerocopy_frames_max;
};

enum { NETDEV_XDP_ZEROCOPY = 8 };    /* NETDEV_XDP_ACT_XSK_ZEROCOPY */
enum { NETDEV_XSK_TX_CHECKSUM = 2 }; /* in zero-copy mode; in copy mode the kernel sees to it */

/* -EOPNOTSUPP: the kernel has no such family. -ENODEV. Then *out is all zero. */
int netdev_ask(uint32_t ifindex, struct netdev_features *out);

#endif
