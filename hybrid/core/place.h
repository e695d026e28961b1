/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement: which transport carries a queue. Decided once, when the queue is bound or connected, from
 * what the application insists on (hy_set_backend), then the table compiled from the policy
 * (hy_place), then what the shard has.
 */
#ifndef HYBRID_CORE_PLACE_H
#define HYBRID_CORE_PLACE_H

#include "core/transport.h"

#define PLACE_BACKENDS (HY_BACKEND_KERNEL + 1)

struct placement {
  hy_placement rows[HY_PLACEMENTS];
  uint32_t count;
};

struct hy_shard;

/* Before a bind to local, or a datagram or connection to peer. Leaves a queue that is placed alone. */
void place_bind(struct hy_shard *shard, struct queue *q, const hy_addr *local);
void place_connect(struct hy_shard *shard, struct queue *q, const hy_addr *peer);
/*
 * A listener is about to listen: adds the fallback's where the table asks for one. A negative errno
 * (-EADDRINUSE: somebody has the port in the kernel) means that neither shall listen.
 */
int place_listen(struct hy_shard *shard, struct queue *q, int backlog);

#endif
