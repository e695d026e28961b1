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
 * A packet that is longer than a frame is a chain of them: each but the last has
 * FRAME_MORE and names the next one in `more`. A queue, a burst and a call name a
 * packet by its first frame, whose `next` is free for the queue's own use.
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
 * Ethernet 14 + two VLAN tags 8 + IPv6 40 + TCP with all options 60 = 122, and what
 * a device may want to say of the frame in front of that (FRAME_TX_ROOM), to the next
 * multiple of 64 so that payload starts on a cache line.
 */
#define FRAME_HEADROOM 192
#define FRAME_TX_ROOM 64

/* Most frames of one packet, on any device. */
#define PACKET_FRAMES_MAX 16

enum frame_flags {
  FRAME_IN_DEVICE = 1, /* a device is reading it (transmit not complete): do not write */
  FRAME_CSUM_GOOD = 2, /* the device has verified the transport checksum */
  /*
   * To send: the checksum field holds the sum of the pseudo-header only (not complemented). The device
   * completes it: it sums from `csum_start` on and stores what comes out `csum_offset` bytes further.
   */
  FRAME_CSUM_PARTIAL = 4,
  FRAME_MORE = 8, /* the packet goes on in frame `more` */
};
/* What is said of a frame only while it is on its way out. */
#define FRAME_SEND_FLAGS (FRAME_IN_DEVICE | FRAME_CSUM_PARTIAL | FRAME_MORE)

struct frame {
  uint32_t next;        /* link of whatever queue or free list the frame is in */
  uint32_t refs;        /* 0: free */
  uint16_t off;         /* first valid byte, from the start of the frame */
  uint16_t len;         /* valid bytes */
  uint8_t flags;        /* enum frame_flags */
  uint8_t device;       /* index of the device that received it */
  uint16_t segs;        /* TCP segments coalesced into it */
  uint32_t seq;         /* TCP: sequence number of the first byte, while in a receive queue */
  uint16_t head;        /* bytes below this offset are nobody's: headers may be written there */
  uint16_t l3;          /* received: offset of the IP header */
  uint32_t more;        /* FRAME_MORE: the packet's next frame */
  uint16_t csum_start;  /* FRAME_CSUM_PARTIAL: of the transport header, from the start of the frame */
  uint16_t csum_offset; /* and of its checksum field, from there */
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

/*
 * Longest packet on a device that takes chains: half of the frames that a chain may have, filled, because
 * a sender's pieces need not fill theirs; and what 16 bits can say.
 */
static inline uint32_t arena_packet_room(const struct arena *arena) {
  uint32_t bytes = PACKET_FRAMES_MAX / 2 * arena_frame_room(arena);
  return bytes < UINT16_MAX ? bytes : UINT16_MAX;
}

/*
 * Frames that stay free for answers and acknowledgements, however much arrives: below it devices take no
 * more empty frames, and the stack keeps no more data than fills a gap.
 */
static inline uint32_t arena_reserve(const struct arena *arena) {
  return arena->frames / 8;
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

/* Bytes of a whole packet. */
static inline uint32_t packet_bytes(const struct arena *arena, uint32_t head) {
  const struct frame *f = frame_meta(arena, head);
  uint32_t bytes = f->len;
  while (f->flags & FRAME_MORE) {
    f = frame_meta(arena, f->more);
    bytes += f->len;
  }
  return bytes;
}

static inline uint32_t packet_frames(const struct arena *arena, uint32_t head) {
  const struct frame *f = frame_meta(arena, head);
  uint32_t frames = 1;
  for (; f->flags & FRAME_MORE; frames++)
    f = frame_meta(arena, f->more);
  return frames;
}

/* One reference on each frame of a packet that was received, or that will not be sent any more. */
void packet_drop(struct arena *arena, uint32_t head);
/* The packet that ended with `tail` goes on in `next`. */
static inline void packet_link(struct arena *arena, uint32_t tail, uint32_t next) {
  struct frame *f = frame_meta(arena, tail);
  f->more = next;
  f->flags |= FRAME_MORE;
}
/* Shortens a packet to its first `bytes`, of which there are as many at least; frames behind them are
 * dropped. */
void packet_cut(struct arena *arena, uint32_t head, uint32_t bytes);
/*
 * Copies bytes into fresh frames at their headroom, at most piece_bytes into each; FRAME_NONE where there are
 * too few.
 */
uint32_t packet_make(struct arena *arena, const uint8_t *bytes, uint32_t len, uint32_t piece_bytes);
/* Copies a packet out; the caller has seen to room. */
void packet_copy(const struct arena *arena, uint32_t head, uint8_t *to);

#endif
