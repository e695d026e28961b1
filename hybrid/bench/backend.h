/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard on a backend that is named on the command line, for the programs that
 * `hybrid bench` measures: without an agent, a policy or a handover, so that
 * nothing but the backend differs.
 */
#ifndef HYBRID_BENCH_BACKEND_H
#define HYBRID_BENCH_BACKEND_H

#include "hybrid.h"

/*
 * NAME[=DEVICE][@ADDRESS/PREFIX]: the device as the backend calls it, and the address that our stack has
 * there.
 *
 *     dpdk=PORT@10.0.0.1/24           as DPDK names it: net_memif0,role=server,socket=/run/x
 *     packet=INTERFACE@10.0.0.9/24    a station of its own on the interface's wire
 *     tap=INTERFACE@10.0.0.2/24       at the other end of this TAP interface
 *     uring, uring=sqpoll             the kernel's sockets
 *
 * NULL: as hy_shard_open_served. Sets in config what the backend asks for, opens the shard and attaches.
 * A negative errno where that fails.
 */
int backend_open(const char *spec, hy_config *config, hy_shard **out);
/* The sentence for it. For an error of anything else it is hy_strerror's. */
const char *backend_error(int error);

#endif
