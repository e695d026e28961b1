/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping the kernel from answering for flows that a packet socket serves with the
 * interface's own addresses (HY_PACKET_SHARED of hybrid.h): quiet.bpf.c, loaded and attached.
 */
#ifndef HYBRID_URING_QUIET_H
#define HYBRID_URING_QUIET_H

#include "core/hybrid.h"

struct quiet;

enum { QUIET_TCX = 1, QUIET_CLSACT = 2 };

/*
 * Loads it for these flows and addresses, filters the packet socket fd by it, and attaches the drop to the
 * interface's ingress. The return value is how: QUIET_TCX or QUIET_CLSACT. -EPERM and what the kernel
 * says else; sets hy_error_detail().
 */
int quiet_open(const hy_packet_config *config, int fd, struct quiet **out);
void quiet_set_flows(struct quiet *quiet, const hy_packet_flow *flows, unsigned n);
/* The shard is alive: now and then, for the companion of struct frames. */
void quiet_tick(void *quiet);
/* The kernel answers again. */
void quiet_close(void *quiet);

#endif
