/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The four rings that an AF_XDP socket shares with the kernel
 * (Documentation/networking/af_xdp.rst). Each has one producer and one consumer
 * and indices that run freely modulo 2^32:
 *
 *              we produce                        we consume
 *     fill        empty frames       -> kernel -> rx          frames that arrived
 *     tx          frames to send     -> kernel -> completion  frames that were sent
 *
 *                 consumer            producer
 *                    v                   v
 *          | free    | filled and waiting | free ...
 *                    ^ cached_cons        ^ cached_prod: our private copies
 *
 * Reading the other side's index costs a cache line that the other side writes,
 * so it is read only when the private copy says there is not enough, and our own
 * is written once per burst. Descriptors come between a reservation and a submit
 * (or a peek and a release): nothing else touches the shared memory.
 *
 * The kernel is trusted with the rings it owns, but an index that contradicts the
 * ring's size would have us read anywhere, so it is asserted.
 */
#ifndef HYBRID_AFXDP_RING_H
#define HYBRID_AFXDP_RING_H

#include <assert.h>
#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stdint.h>

struct ring {
  uint32_t *producer; /* shared with the kernel */
  uint32_t *consumer; /* shared with the kernel */
  uint32_t *flags;    /* shared; written by the kernel */
  void *slots;        /* struct xdp_desc (rx, tx) or uint64_t (fill, completion) */
  uint32_t mask;
  uint32_t size; /* power of two */
  uint32_t cached_prod;
  uint32_t cached_cons;
};

/* A ring in memory that is laid out already. Both sides start where the shared indices are. */
static inline void ring_init(struct ring *ring, uint32_t *producer, uint32_t *consumer, uint32_t *flags,
                             void *slots, uint32_t size) {
  assert(size > 0 && (size & (size - 1)) == 0);
  *ring = (struct ring){
      .producer = producer,
      .consumer = consumer,
      .flags = flags,
      .slots = slots,
      .mask = size - 1,
      .size = size,
      .cached_prod = __atomic_load_n(producer, __ATOMIC_RELAXED),
      .cached_cons = __atomic_load_n(consumer, __ATOMIC_RELAXED),
  };
}

static inline struct xdp_desc *ring_desc(const struct ring *ring, uint32_t index) {
  return (struct xdp_desc *)ring->slots + (index & ring->mask);
}

static inline uint64_t *ring_addr(const struct ring *ring, uint32_t index) {
  return (uint64_t *)ring->slots + (index & ring->mask);
}

/* ---- where we produce: fill and tx -------------------------------------- */

/* Slots that may be written, `want` at most; they start at ring->cached_prod. */
static inline uint32_t ring_reserve(struct ring *ring, uint32_t want) {
  uint32_t used = ring->cached_prod - ring->cached_cons;
  if (ring->size - used < want) {
    /*
     * Acquire: the kernel releases its index after it has read the slots, so what
     * we write into them from here on can't overtake that reading.
     */
    ring->cached_cons = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
    used = ring->cached_prod - ring->cached_cons;
    assert(used <= ring->size);
  }
  uint32_t room = ring->size - used;
  return want < room ? want : room;
}

/* Hands n written slots to the kernel. */
static inline void ring_submit(struct ring *ring, uint32_t n) {
  ring->cached_prod += n;
  /* Release: whoever sees the new index sees the slots (and the frames) as written. */
  __atomic_store_n(ring->producer, ring->cached_prod, __ATOMIC_RELEASE);
}

/* Whether the kernel has yet to take something that we submitted. */
static inline bool ring_unconsumed(struct ring *ring) {
  if (ring->cached_cons == ring->cached_prod)
    return false;
  /* Acquire for the sake of ring_reserve(), which builds on this copy. */
  ring->cached_cons = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
  assert(ring->cached_prod - ring->cached_cons <= ring->size);
  return ring->cached_cons != ring->cached_prod;
}

/*
 * Whether the kernel waits for a system call before it looks at this ring.
 *
 * Relaxed, and the load may pass the store of ring_submit(): a wakeup that is
 * missed for it is made up for by the next poll, which asks again for as long as
 * ring_unconsumed(). So the doorbell needs no full fence.
 */
static inline bool ring_needs_wakeup(const struct ring *ring) {
  return (__atomic_load_n(ring->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP) != 0;
}

/* ---- where we consume: rx and completion --------------------------------- */

/* Slots that may be read, `want` at most; they start at ring->cached_cons. */
static inline uint32_t ring_peek(struct ring *ring, uint32_t want) {
  uint32_t filled = ring->cached_prod - ring->cached_cons;
  if (filled < want) {
    /* Acquire: pairs with the kernel's release, so the slots and frames are there to be read. */
    ring->cached_prod = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
    filled = ring->cached_prod - ring->cached_cons;
    assert(filled <= ring->size);
  }
  return want < filled ? want : filled;
}

/* Gives n slots back. */
static inline void ring_release(struct ring *ring, uint32_t n) {
  ring->cached_cons += n;
  /* Release: our reading of the slots is over before the kernel may write them again. */
  __atomic_store_n(ring->consumer, ring->cached_cons, __ATOMIC_RELEASE);
}

#endif
