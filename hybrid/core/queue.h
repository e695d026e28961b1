/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queue descriptors: the table behind hy_qd.
 *
 * A qd is an index in the low bits and a generation above, so that one used
 * after hy_close() is recognised. A queue belongs to a transport, whose object
 * (connection, listener, datagram socket) it names; tokens that wait on it are
 * chained here.
 */
#ifndef HYBRID_CORE_QUEUE_H
#define HYBRID_CORE_QUEUE_H

#include "core/token.h"

#define QUEUE_NONE UINT32_MAX
#define QUEUE_INDEX_BITS 18
#define QUEUE_MAX (1u << QUEUE_INDEX_BITS)

enum queue_kind {
  QUEUE_FREE = 0,
  QUEUE_STREAM, /* a stream socket that neither listens nor connects yet */
  QUEUE_LISTENER,
  QUEUE_CONN,
  QUEUE_DGRAM,
};

struct transport;

struct queue {
  void *user;
  struct transport *transport;
  struct token_list pops; /* or accepts, of a listener */
  struct token_list drains;
  uint32_t object; /* the transport's index, or QUEUE_NONE; while it is free, the next free one */
  hy_addr local;   /* bound address; port 0: not bound */
  hy_qd qd;        /* its name; while it is free, the complement of its next one: never asked for */
  uint8_t kind;    /* enum queue_kind */
  uint8_t bound : 1;
  uint8_t placed : 1; /* transport is decided; before that it is the common stack, which can do nothing yet */
  uint8_t backend : 2; /* hy_set_backend: enum hy_backend */
  uint16_t also;       /* a listener's second one, of the fallback; 0: none */
};
static_assert(sizeof(struct queue) == 64, "one cache line per queue");

struct queues {
  struct queue *slots;
  uint32_t count;
  uint32_t free_head, free_tail; /* FIFO: a closed qd's number rests as long as possible */
};

int queues_init(struct queues *q, uint32_t count);
void queues_fini(struct queues *q);

static inline hy_qd queue_qd(const struct queues *q, uint32_t index) {
  return q->slots[index].qd;
}

/* The queue of a qd, or NULL if it is closed or never was. */
static inline struct queue *queue_find(const struct queues *q, hy_qd qd) {
  uint32_t index = (uint32_t)qd & (QUEUE_MAX - 1);
  return index < q->count && q->slots[index].qd == qd ? &q->slots[index] : NULL;
}

static inline uint32_t queue_index(const struct queues *q, const struct queue *slot) {
  return (uint32_t)(slot - q->slots);
}

/* QUEUE_NONE when all are open. */
uint32_t queue_take(struct queues *q, enum queue_kind kind, struct transport *transport);
void queue_release(struct queues *q, uint32_t index);

#endif
