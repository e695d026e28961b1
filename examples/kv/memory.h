/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of the server's memory for keys, values and half-received commands: one
 * region, taken at start, so that serving a request never calls malloc and the
 * server can never grow past what it was given.
 *
 *     region   | page | page | page | page | page | ...        4 KiB each
 *                \__ slab of 16 KiB: equal small blocks __/ \__ run: one large block
 *
 * Free pages are kept as the longest runs there are, in bins by length (a run of
 * 33 pages costs 33, not 64); blocks of up to 2 KiB are cut from slabs. An empty
 * slab becomes pages again: a store that held small values for a year can hold
 * large ones tomorrow.
 *
 * The last `reserve` pages are for commands on their way in and replies on their
 * way out. What is stored can't take them: a full server still understands DEL.
 */
#ifndef KV_MEMORY_H
#define KV_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MEMORY_PAGE = 4096,
  MEMORY_SLAB_PAGES = 4,
  MEMORY_SMALL_MAX = 2048, /* largest block cut from a slab */
  MEMORY_CLASSES = 24,
  MEMORY_BINS = 120,          /* of free runs */
  MEMORY_BLOCK_MAX = 2 << 20, /* a key and a value of 512 KiB, with room */
};

struct page;

struct memory {
  uint8_t *base;
  struct page *pages;
  uint32_t npages;
  uint32_t free_pages;
  uint32_t reserve_pages;           /* what is stored leaves free */
  uint32_t transit_pages;           /* of the reserve, in use by large blocks */
  uint32_t free_runs[MEMORY_BINS];  /* heads: free runs of about that many pages */
  uint32_t partial[MEMORY_CLASSES]; /* heads: slabs with a free block */
  uint8_t class_of[MEMORY_SMALL_MAX / 16 + 1];
  uint16_t class_bytes[MEMORY_CLASSES];
  size_t mapped_bytes;
};

/* Whose memory it is decides whether the reserve may be touched. */
enum memory_use { MEMORY_STORE, MEMORY_TRANSIT };

/* -ENOMEM. Pages are touched when first used, not here. */
int memory_init(struct memory *m, size_t store_bytes, size_t transit_bytes);
void memory_fini(struct memory *m);

/* NULL when there is no room, or size_bytes > MEMORY_BLOCK_MAX. 16-byte aligned, not cleared. */
void *memory_alloc(struct memory *m, size_t size_bytes, enum memory_use use);
void memory_free(struct memory *m, void *block);
/* What the block can hold: at least what was asked for. */
size_t memory_block_bytes(const struct memory *m, const void *block);
/* Pages in use, in bytes. */
size_t memory_used_bytes(const struct memory *m);

/*
 * A pin keeps a block alive while a reply is still being sent from it: whoever
 * stored it may drop it meanwhile. First member of such blocks.
 */
struct pin {
  uint32_t refs;
  uint32_t tag; /* the owner's */
};

static inline void pin_drop(struct memory *m, struct pin *pin) {
  if (--pin->refs == 0)
    memory_free(m, pin);
}

#endif
