/* SPDX-License-Identifier: Apache-2.0 */
/* The placement table, and what is done by it. */
#include "core/place.h"

#include <errno.h>
#include <string.h>

#include "core/shard.h"

enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };

static bool row_valid(const hy_placement *row) {
  return (row->protocol == 0 || row->protocol == PROTOCOL_TCP || row->protocol == PROTOCOL_UDP) &&
         (row->to == HY_BACKEND_BYPASS || row->to == HY_BACKEND_KERNEL) &&
         (row->fallback == 0 || row->fallback == HY_BACKEND_KERNEL) && row->port_lo <= row->port_hi;
}

int hy_place(hy_shard *shard, const hy_placement *rows, unsigned n) {
  if (n > HY_PLACEMENTS)
    return -E2BIG;
  for (unsigned i = 0; i < n; i++)
    if (!row_valid(&rows[i]))
      return -EINVAL;
  if (n > 0)
    memcpy(shard->placement.rows, rows, n * sizeof *rows);
  shard->placement.count = n;
  return 0;
}

static uint8_t protocol_of(const struct queue *q) {
  return q->kind == QUEUE_DGRAM ? PROTOCOL_UDP : PROTOCOL_TCP;
}

static const hy_placement *row_find(const struct hy_shard *shard, uint8_t protocol, uint16_t port) {
  for (uint32_t i = 0; i < shard->placement.count; i++) {
    const hy_placement *row = &shard->placement.rows[i];
    if ((row->protocol == 0 || row->protocol == protocol) && port >= row->port_lo && port <= row->port_hi)
      return row;
  }
  return NULL;
}

static void place(struct hy_shard *shard, struct queue *q, int backend) {
  /* Without kernel sockets there is the stack, which says what is missing by the errors it gives. */
  struct transport *to = shard->transports[backend];
  q->transport = to ? to : &shard->stack.transport;
  q->placed = 1;
}

void place_bind(struct hy_shard *shard, struct queue *q, const hy_addr *local) {
  if (q->placed)
    return;
  int backend = q->backend;
  if (backend == HY_BACKEND_AUTO) {
    const hy_placement *row = row_find(shard, protocol_of(q), local->port);
    backend = row                                    ? row->to
              : shard->live_devices > 0              ? HY_BACKEND_BYPASS
              : shard->transports[HY_BACKEND_KERNEL] ? HY_BACKEND_KERNEL
                                                     : HY_BACKEND_BYPASS;
    /* A datagram socket can't be in two places: it goes where it works at this moment. */
    if (row && row->fallback && q->kind == QUEUE_DGRAM && shard->live_devices == 0)
      backend = row->fallback;
  }
  place(shard, q, backend);
}

void place_connect(struct hy_shard *shard, struct queue *q, const hy_addr *peer) {
  if (q->placed)
    return;
  int backend = q->backend;
  if (backend == HY_BACKEND_AUTO) {
    /* Replies come to an ephemeral port: if no row steers those, they would go to the kernel. */
    const hy_placement *row = row_find(shard, protocol_of(q), shard->config.port_lo);
    bool steered = row ? row->to == HY_BACKEND_BYPASS : shard->placement.count == 0;
    backend = steered && stack_reaches(&shard->stack, peer->ip) ? HY_BACKEND_BYPASS : HY_BACKEND_KERNEL;
  }
  place(shard, q, backend);
}

int place_listen(struct hy_shard *shard, struct queue *q, int backlog) {
  if (q->transport != &shard->stack.transport || q->backend != HY_BACKEND_AUTO || q->kind != QUEUE_STREAM ||
      !q->bound)
    return 0;
  const hy_placement *row = row_find(shard, PROTOCOL_TCP, q->local.port);
  if (!row || !row->fallback)
    return 0;
  struct transport *kernel = shard->transports[row->fallback];
  if (!kernel || !kernel->ops->listen_also) {
    shard->stats->fallback_unavailable++;
    return 0;
  }
  int rc = kernel->ops->listen_also(kernel, q, backlog);
  if (rc == 0)
    shard->stats->fallback_listens++;
  return rc;
}

int shard_add_transport(hy_shard *shard, int backend, struct transport *t) {
  assert(backend > HY_BACKEND_AUTO && backend < PLACE_BACKENDS);
  if (shard->transports[backend])
    return -EBUSY;
  shard->transports[backend] = t;
  if (t->ops->progress)
    shard->driven[shard->ndriven++] = t;
  return 0;
}

int hy_set_backend(hy_shard *shard, hy_qd qd, int backend) {
  struct queue *q = queue_find(&shard->queues, qd);
  if (!q)
    return -EBADF;
  if (backend < HY_BACKEND_AUTO || backend >= PLACE_BACKENDS)
    return -EINVAL;
  if (q->placed)
    return -EISCONN;
  if (backend != HY_BACKEND_AUTO && !shard->transports[backend])
    return -ENODEV;
  q->backend = (uint8_t)(backend & 3);
  return 0;
}

int hy_backend_of(hy_shard *shard, hy_qd qd) {
  const struct queue *q = queue_find(&shard->queues, qd);
  if (!q)
    return -EBADF;
  for (int i = 0; q->placed && i < PLACE_BACKENDS; i++)
    if (shard->transports[i] == q->transport)
      return i;
  return HY_BACKEND_AUTO;
}
