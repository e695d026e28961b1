/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An arena as a mempool of mbufs.
 *
 *     frame i:  | object header 64 | rte_mbuf 128 | headroom 128 | bytes ...             |
 *               |<----- arena->prefix = 192 ----->|
 *
 * The mbuf of a frame lies in the frame itself, so a driver's mbuf is a frame and a frame is a driver's mbuf,
 * and nothing is copied in either direction. The mempool has no list of its own: an mbuf that a driver takes
 * is frame_alloc(), one that it gives back is frame_unref(). mbuf->refcnt is always 1; how many need the
 * bytes is the frame's own count.
 *
 * Who holds a frame. The ledger keeps, for each frame, which port (slot + 1) has it: to receive into, or to
 * send. It is written when the driver takes an mbuf or is given one, and cleared when the mbuf comes back.
 *
 * Threads. An arena has no lock, so only the shard's thread (the *owner*: whoever bursts) may touch it. What
 * another thread gives back (the far end of a ring, a driver's own thread, the shard that closes a port of
 * several queues) waits in `returned` until the owner looks; what another thread takes (the shard that starts
 * a port of several queues fills everybody's rings) comes from `stash`, which the owner has stocked.
 */
#ifndef HYBRID_DPDK_POOL_H
#define HYBRID_DPDK_POOL_H

#include "dpdk/eal.h"

#include <stdatomic.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>

enum { POOL_SLOT_NONE = 0xff, POOL_KEEP = DEVICE_BURST };

struct pool {
  struct arena *arena;
  uint8_t *base; /* of the arena, also when that has gone */
  uint8_t *end;
  size_t page_bytes;
  struct rte_mempool *mempool;
  uint8_t *ledger;             /* per frame: slot + 1 of the port that has it; 0: none */
  _Atomic(const void *) owner; /* eal_self() of the shard's thread */
  uint8_t slot;                /* whose driver is being called */
  bool closed_down;            /* the mempool is being dismantled: its objects are nobody's */
  struct rte_ring *returned, *stash;
  uint32_t users; /* devices */
};

/* The pool over this arena, made where there is none, with one more user. On the owner's thread, not in a
 * job. */
int pool_get(struct arena *arena, struct pool **out, char *detail);
/*
 * One user less. The last one dismantles the pool, unless frames are still with somebody whom nothing obliges
 * to give them back: then the arena's memory stays mapped for good.
 */
void pool_put(struct pool *pool);

/* Moves `count` frames to where other threads can take them, for this port. -ENOBUFS: not that many are free.
 */
int pool_stock(struct pool *pool, uint8_t slot, uint32_t count);
/* What is left of them comes back. */
void pool_unstock(struct pool *pool);
/* A ring of so many mbufs at least, to be freed with free(). NULL: out of memory. */
struct rte_ring *ring_make(uint32_t frames);
/* Frames that other threads gave back. */
void pool_take_back_slowly(struct pool *pool);
/* After a port was closed: frames that its driver has forgotten. */
void pool_forget(struct pool *pool, uint8_t slot);
/* How many frames the port has. */
uint32_t pool_held(const struct pool *pool, uint8_t slot);

static inline void pool_enter(struct pool *pool, uint8_t slot) {
  atomic_store_explicit(&pool->owner, eal_self(), memory_order_relaxed);
  pool->slot = slot;
}

static inline void pool_take_back(struct pool *pool) {
  if (__builtin_expect(!rte_ring_empty(pool->returned), 0))
    pool_take_back_slowly(pool);
}

static inline struct rte_mbuf *pool_mbuf(const struct pool *pool, uint32_t index) {
  return (struct rte_mbuf *)(frame_base(pool->arena, index) + HY_DPDK_PREFIX - sizeof(struct rte_mbuf));
}

static inline uint32_t pool_index(const struct pool *pool, const void *mbuf) {
  return frame_of(pool->arena, mbuf);
}

#endif
