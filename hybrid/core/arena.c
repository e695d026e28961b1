/* SPDX-License-Identifier: Apache-2.0 */
/* Where an arena's memory comes from: hugepages if they are asked for and can be had. */
#include "core/arena.h"
#include "core/hybrid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGEPAGE_BYTES ((size_t)2 << 20)

static size_t round_up(size_t n, size_t to) {
  return (n + to - 1) & ~(to - 1);
}

static uint8_t *map_reserved_hugepages(size_t size_bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << MAP_HUGE_SHIFT) | MAP_POPULATE;
  void *at = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  return at == MAP_FAILED ? NULL : at;
}

/*
 * Ordinary memory that starts on a hugepage boundary, so that the kernel may back
 * it with transparent ones, and that is all there before the first packet.
 */
static uint8_t *map_ordinary_pages(size_t size_bytes, bool transparent) {
  size_t mapped = size_bytes + HUGEPAGE_BYTES;
  void *at = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return NULL;
  uint8_t *start = at;
  uint8_t *base = (uint8_t *)round_up((size_t)start, HUGEPAGE_BYTES);
  uint8_t *end = base + size_bytes;
  if (base > start)
    munmap(start, (size_t)(base - start));
  if (start + mapped > end)
    munmap(end, (size_t)(start + mapped - end));
  /* Advice only: a kernel without transparent hugepages refuses it, and nothing is lost. */
  madvise(base, size_bytes, transparent ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  if (madvise(base, size_bytes, MADV_POPULATE_WRITE) == 0)
    return base;
  if (errno == EINVAL) { /* before Linux 5.14 */
    memset(base, 0, size_bytes);
    return base;
  }
  munmap(base, size_bytes);
  return NULL;
}

int arena_init(struct arena *arena, uint32_t frames, uint32_t frame_size, uint32_t prefix, int hugepages) {
  *arena = (struct arena){.free_head = FRAME_NONE};
  if (frames == 0 || frames >= FRAME_NONE || (frame_size & (frame_size - 1)) != 0 ||
      frame_size < 2 * (prefix + FRAME_HEADROOM) || prefix % 64 != 0 || frame_size > UINT16_MAX / 2 + 1)
    return -EINVAL;

  arena->size_bytes = round_up((size_t)frames * frame_size, HUGEPAGE_BYTES);
  if (hugepages != HY_HUGEPAGES_NO) {
    arena->base = map_reserved_hugepages(arena->size_bytes);
    arena->hugepages = arena->base != NULL;
  }
  if (arena->base == NULL && hugepages == HY_HUGEPAGES_MUST)
    return -EOPNOTSUPP;
  if (arena->base == NULL)
    arena->base = map_ordinary_pages(arena->size_bytes, hugepages != HY_HUGEPAGES_NO);
  if (arena->base == NULL)
    return -ENOMEM;

  size_t meta_bytes = round_up((size_t)frames * sizeof *arena->meta, 64);
  arena->meta = aligned_alloc(64, meta_bytes);
  if (arena->meta == NULL) {
    munmap(arena->base, arena->size_bytes);
    arena->base = NULL;
    return -ENOMEM;
  }
  memset(arena->meta, 0, meta_bytes);
  for (uint32_t i = 0; i < frames; i++)
    arena->meta[i].next = i + 1 < frames ? i + 1 : FRAME_NONE;
  arena->frame_size = frame_size;
  arena->frame_shift = (uint32_t)__builtin_ctz(frame_size);
  arena->frames = frames;
  arena->prefix = prefix;
  arena->headroom = prefix + FRAME_HEADROOM;
  arena->free_head = 0;
  arena->free_count = frames;
  return 0;
}

void arena_fini(struct arena *arena) {
  if (arena->base != NULL && !arena->lent)
    munmap(arena->base, arena->size_bytes);
  free(arena->meta);
  *arena = (struct arena){.free_head = FRAME_NONE};
}

/* ---- packets of several frames --------------------------------------------- */

void packet_drop(struct arena *arena, uint32_t head) {
  for (bool more = true; more;) {
    struct frame *f = frame_meta(arena, head);
    uint32_t next = f->more;
    more = f->flags & FRAME_MORE;
    f->flags &= (uint8_t)~FRAME_SEND_FLAGS;
    frame_unref(arena, head);
    head = next;
  }
}

void packet_cut(struct arena *arena, uint32_t head, uint32_t bytes) {
  struct frame *f = frame_meta(arena, head);
  while (bytes > f->len) {
    bytes -= f->len;
    assert(f->flags & FRAME_MORE);
    f = frame_meta(arena, f->more);
  }
  f->len = (uint16_t)bytes;
  if (f->flags & FRAME_MORE) {
    f->flags &= (uint8_t)~FRAME_MORE;
    packet_drop(arena, f->more);
  }
}

uint32_t packet_make(struct arena *arena, const uint8_t *bytes, uint32_t len, uint32_t piece_bytes) {
  assert(piece_bytes > 0 && piece_bytes <= arena_frame_room(arena));
  uint32_t head = FRAME_NONE, tail = FRAME_NONE;
  do {
    uint32_t index = frame_alloc(arena), some = len < piece_bytes ? len : piece_bytes;
    if (index == FRAME_NONE) {
      if (head != FRAME_NONE)
        packet_drop(arena, head);
      return FRAME_NONE;
    }
    if (some > 0)
      memcpy(frame_data(arena, index), bytes, some);
    frame_meta(arena, index)->len = (uint16_t)some;
    if (head == FRAME_NONE) {
      head = index;
    } else {
      packet_link(arena, tail, index);
    }
    tail = index;
    bytes += some;
    len -= some;
  } while (len > 0);
  return head;
}

void packet_copy(const struct arena *arena, uint32_t head, uint8_t *to) {
  for (const struct frame *f = frame_meta(arena, head);; f = frame_meta(arena, head)) {
    memcpy(to, frame_data(arena, head), f->len);
    to += f->len;
    if (!(f->flags & FRAME_MORE))
      return;
    head = f->more;
  }
}
