/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena: all packet memory of one shard.
 *
 * One region, cut into equal frames. The region is what devices register (the
 * UMEM of every AF_XDP socket of the shard), so a frame is named by its index
 * everywhere and crosses from one device to another without its bytes moving.
 * What is known *about* a frame sits in a side array, so that walking queues of
 * frames never touches payload:
 *
 *     meta[i]  | next refs off len ... |   32 bytes, hot
 *     base + i * frame_size            |   prefix | headroom | bytes [off, off+len) | tailroom
 *
 * The prefix (none by default) is a driver's own: DPDK keeps its descriptor of a
 * packet, the mbuf, in front of the bytes.
 *
 * Ownership is a reference count: who takes an index out of a queue or a call
 * owns one reference and either passes it on or drops it with frame_unref().
 */
#ifndef HYBRID_CORE_ARENA_H
#define HYBRID_CORE_ARENA_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_NONE UINT32_MAX

/*
 * Bytes kept free, behind the prefix, in front of the payload of a frame that the stack sends:
 * Ethernet 14 + two VLAN tags 8 + IPv6 40 + TCP with all options 60 = 122, to the
 * next multiple of 64 so that payload starts on a cache line.
 */
#define FRAME_HEADROOM 128

enum frame_flags {
  FRAME_IN_DEVICE = 1, /* a device is reading it (transmit not complete): do not write */
  FRAME_CSUM_GOOD = 2, /* the device has verified the transport checksum */
};

struct frame {
  uint32_t next;  /* link of whatever queue or free list the frame is in */
  uint32_t refs;  /* 0: free */
  uint16_t off;   /* first valid byte, from the start of the frame */
  uint16_t len;   /* valid bytes */
  uint8_t flags;  /* enum frame_flags */
  uint8_t device; /* index of the device that received it */
  uint16_t segs;  /* TCP segments coalesced into it */
  uint32_t seq;   /* TCP: sequence number of the first byte, while in a receive queue */
  uint16_t head;  /* bytes below this offset are nobody's: headers may be written there */
  uint16_t l3;    /* received: offset of the IP header */
  uint32_t reserved[2];
};
static_assert(sizeof(struct frame) == 32, "two frame descriptors per cache line");

struct arena {
  uint8_t *base; /* page aligned; hugepage aligned where obtained */
  struct frame *meta;
  uint32_t frame_size;  /* power of two */
  uint32_t frame_shift; /* log2(frame_size) */
  uint32_t frames;
  uint32_t free_head; /* LIFO, so that the frame last used is the next one used */
  uint32_t hugepages; /* obtained: 1. Here so that compilers don't write the two beside it as one vector */
  uint32_t free_count;
  uint32_t headroom; /* offset of the payload in a fresh frame: prefix + FRAME_HEADROOM */
  uint32_t prefix;   /* bytes at the start of each frame that only a driver touches */
  uint32_t lent;     /* 1: somebody outside may still write into it: it stays mapped when the arena ends */
  size_t size_bytes;
};

/* Longest valid bytes of a frame that arrives at its headroom. */
static inline uint32_t arena_frame_room(const struct arena *arena) {
  return arena->frame_size - arena->headroom;
}

/* hugepages: enum hy_hugepages. -ENOMEM; -EOPNOTSUPP where MUST can't be had. */
int arena_init(struct arena *arena, uint32_t frames, uint32_t frame_size, uint32_t prefix, int hugepages);
void arena_fini(struct arena *arena);

static inline struct frame *frame_meta(const struct arena *arena, uint32_t index) {
  assert(index < arena->frames);
  return &arena->meta[index];
}

/* Start of the frame (not of its valid bytes). */
static inline uint8_t *frame_base(const struct arena *arena, uint32_t index) {
  return arena->base + ((size_t)index << arena->frame_shift);
}

static inline uint8_t *frame_data(const struct arena *arena, uint32_t index) {
  return frame_base(arena, index) + frame_meta(arena, index)->off;
}

/* Which frame an address of the arena lies in. */
static inline uint32_t frame_of(const struct arena *arena, const void *addr) {
  return (uint32_t)((size_t)((const uint8_t *)addr - arena->base) >> arena->frame_shift);
}

/* One reference; off = the headroom, len = 0. FRAME_NONE when the arena is used up. */
static inline uint32_t frame_alloc(struct arena *arena) {
  uint32_t index = arena->free_head;
  if (__builtin_expect(index == FRAME_NONE, 0))
    return FRAME_NONE;
  struct frame *f = &arena->meta[index];
  assert(f->refs == 0);
  arena->free_head = f->next;
  arena->free_count--;
  f->next = FRAME_NONE;
  f->refs = 1;
  f->off = (uint16_t)arena->headroom;
  f->len = 0;
  f->flags = 0;
  f->segs = 1;
  f->head = (uint16_t)arena->headroom;
  return index;
}

static inline void frame_ref(struct arena *arena, uint32_t index) {
  struct frame *f = frame_meta(arena, index);
  assert(f->refs > 0);
  f->refs++;
}

static inline void frame_unref(struct arena *arena, uint32_t index) {
  struct frame *f = frame_meta(arena, index);
  assert(f->refs > 0);
  if (--f->refs > 0)
    return;
  f->next = arena->free_head;
  arena->free_head = index;
  arena->free_count++;
}

#endif
