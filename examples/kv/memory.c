/* SPDX-License-Identifier: Apache-2.0 */
/* The region allocator; memory.h says what it is for. */
#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT32_MAX
#define NO_BLOCK UINT16_MAX
#define SLAB_BYTES (MEMORY_SLAB_PAGES * MEMORY_PAGE)
enum { BIN_TRIES = 8 }; /* runs looked at in a bin where not every run is long enough */

enum page_kind {
  PAGE_INSIDE = 0, /* nothing of its own to say */
  PAGE_FREE,       /* first of a free run */
  PAGE_FREE_END,   /* last of a free run of two or more */
  PAGE_RUN,        /* first of a large block */
  PAGE_SLAB,       /* first of a slab */
  PAGE_SLAB_REST,  /* another of a slab: count pages behind the first */
};

struct page {
  uint32_t next, prev; /* in free_runs[] or partial[] */
  uint32_t count;      /* of a run, also at its end: pages; PAGE_SLAB: blocks in use */
  uint16_t free_block; /* PAGE_SLAB: head of the freed blocks, linked through their first two bytes */
  uint16_t fresh;      /* PAGE_SLAB: blocks from here on were never used */
  uint8_t kind;
  uint8_t class; /* PAGE_SLAB */
  uint8_t use;   /* PAGE_RUN: enum memory_use */
  uint8_t reserved;
};
static_assert(sizeof(struct page) == 20, "half a percent of the region");

static void list_add(struct memory *m, uint32_t *head, uint32_t index) {
  struct page *page = &m->pages[index];
  page->prev = NONE;
  page->next = *head;
  if (*head != NONE)
    m->pages[*head].prev = index;
  *head = index;
}

static void list_remove(struct memory *m, uint32_t *head, uint32_t index) {
  struct page *page = &m->pages[index];
  if (page->prev == NONE)
    *head = page->next;
  else
    m->pages[page->prev].next = page->next;
  if (page->next != NONE)
    m->pages[page->next].prev = page->prev;
}

/* ---- pages: runs of them ------------------------------------------------- */

/* Four bins to each doubling. Every run of a higher bin is longer than any of a lower one. */
static unsigned bin_of(uint32_t count) {
  if (count < 4)
    return count;
  unsigned order = (unsigned)(31 - __builtin_clz(count));
  return order * 4 - 4 + ((count >> (order - 2)) & 3);
}

static void run_add(struct memory *m, uint32_t index, uint32_t count) {
  struct page *first = &m->pages[index], *last = first + count - 1;
  last->kind = PAGE_FREE_END;
  last->count = count;
  first->kind = PAGE_FREE;
  first->count = count;
  list_add(m, &m->free_runs[bin_of(count)], index);
}

static uint32_t run_remove(struct memory *m, uint32_t index) {
  struct page *first = &m->pages[index];
  uint32_t count = first->count;
  list_remove(m, &m->free_runs[bin_of(count)], index);
  first[count - 1].kind = PAGE_INSIDE;
  first->kind = PAGE_INSIDE;
  return count;
}

/* Joins the free runs on both sides, if there are any. */
static void range_free(struct memory *m, uint32_t index, uint32_t count) {
  m->free_pages += count;
  if (index + count < m->npages && m->pages[index + count].kind == PAGE_FREE)
    count += run_remove(m, index + count);
  if (index > 0) {
    const struct page *before = &m->pages[index - 1];
    if (before->kind == PAGE_FREE_END || (before->kind == PAGE_FREE && before->count == 1)) {
      index -= before->count;
      count += run_remove(m, index);
    }
  }
  run_add(m, index, count);
}

static uint32_t run_find(const struct memory *m, uint32_t count) {
  for (unsigned bin = bin_of(count); bin < MEMORY_BINS; bin++) {
    uint32_t index = m->free_runs[bin];
    for (unsigned tries = 0; index != NONE && tries < BIN_TRIES; tries++, index = m->pages[index].next)
      if (m->pages[index].count >= count)
        return index;
  }
  return NONE;
}

static uint32_t range_alloc(struct memory *m, uint32_t count, enum memory_use use) {
  uint32_t kept = m->reserve_pages > m->transit_pages ? m->reserve_pages - m->transit_pages : 0;
  if (m->free_pages < (use == MEMORY_STORE ? kept : 0) + count)
    return NONE;
  uint32_t index = run_find(m, count);
  if (index == NONE)
    return NONE;
  uint32_t have = run_remove(m, index);
  if (have > count)
    run_add(m, index + count, have - count);
  m->free_pages -= count;
  return index;
}

/* ---- small blocks: slabs ------------------------------------------------ */

static uint8_t *slab_block(const struct memory *m, uint32_t slab, unsigned number) {
  return m->base + (size_t)slab * MEMORY_PAGE + (size_t)number * m->class_bytes[m->pages[slab].class];
}

static bool slab_full(const struct memory *m, const struct page *slab) {
  return slab->free_block == NO_BLOCK && slab->fresh == SLAB_BYTES / m->class_bytes[slab->class];
}

static uint32_t slab_new(struct memory *m, uint8_t class, enum memory_use use) {
  uint32_t index = range_alloc(m, MEMORY_SLAB_PAGES, use);
  if (index == NONE)
    return NONE;
  struct page *slab = &m->pages[index];
  *slab = (struct page){.kind = PAGE_SLAB, .class = class, .free_block = NO_BLOCK};
  for (unsigned i = 1; i < MEMORY_SLAB_PAGES; i++)
    slab[i] = (struct page){.kind = PAGE_SLAB_REST, .count = i};
  list_add(m, &m->partial[class], index);
  return index;
}

static void *slab_alloc(struct memory *m, uint8_t class, enum memory_use use) {
  uint32_t index = m->partial[class];
  if (index == NONE && (index = slab_new(m, class, use)) == NONE)
    return NULL;
  struct page *slab = &m->pages[index];
  uint8_t *block;
  if (slab->free_block != NO_BLOCK) {
    block = slab_block(m, index, slab->free_block);
    memcpy(&slab->free_block, block, sizeof slab->free_block);
  } else {
    block = slab_block(m, index, slab->fresh++);
  }
  slab->count++;
  if (slab_full(m, slab))
    list_remove(m, &m->partial[class], index);
  return block;
}

static void slab_free(struct memory *m, uint32_t index, uint8_t *block) {
  struct page *slab = &m->pages[index];
  size_t offset = (size_t)(block - (m->base + (size_t)index * MEMORY_PAGE));
  uint16_t number = (uint16_t)(offset / m->class_bytes[slab->class]);
  assert(offset % m->class_bytes[slab->class] == 0 && slab->count > 0);
  uint32_t *partial = &m->partial[slab->class];
  if (slab_full(m, slab))
    list_add(m, partial, index);
  memcpy(block, &slab->free_block, sizeof slab->free_block);
  slab->free_block = number;
  /* The last slab of a class stays: one key set and deleted in turn must not build a slab each time. */
  if (--slab->count == 0 && (*partial != index || slab->next != NONE)) {
    list_remove(m, partial, index);
    for (unsigned i = 0; i < MEMORY_SLAB_PAGES; i++)
      slab[i].kind = PAGE_INSIDE;
    range_free(m, index, MEMORY_SLAB_PAGES);
  }
}

/* ---- both --------------------------------------------------------------- */

/* 16, 32 .. 128, then four sizes to each doubling: at most a fifth of a block is waste. */
static void classes_init(struct memory *m) {
  unsigned class = 0, bytes = 0;
  for (unsigned want = 16; want <= MEMORY_SMALL_MAX; want += 16) {
    if (want > bytes) {
      unsigned step = bytes < 128 ? 16 : (1u << (31 - __builtin_clz(bytes))) / 4;
      bytes += step;
      assert(class < MEMORY_CLASSES);
      m->class_bytes[class ++] = (uint16_t)bytes;
    }
    m->class_of[want / 16] = (uint8_t)(class - 1);
  }
  assert(class == MEMORY_CLASSES && bytes == MEMORY_SMALL_MAX);
}

static uint32_t pages_for(size_t bytes) {
  return (uint32_t)((bytes + MEMORY_PAGE - 1) / MEMORY_PAGE);
}

static void *map(size_t bytes) {
  return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

int memory_init(struct memory *m, size_t store_bytes, size_t transit_bytes) {
  *m = (struct memory){.reserve_pages = pages_for(transit_bytes)};
  if (store_bytes > ((size_t)1 << 42) || transit_bytes > ((size_t)1 << 42))
    return -ENOMEM;
  m->npages = pages_for(store_bytes) + m->reserve_pages;
  m->mapped_bytes = (size_t)m->npages * MEMORY_PAGE;
  m->base = map(m->mapped_bytes);
  m->pages = map((size_t)m->npages * sizeof *m->pages);
  if (m->base == MAP_FAILED || m->pages == MAP_FAILED) {
    memory_fini(m);
    return -ENOMEM;
  }
  for (unsigned i = 0; i < MEMORY_BINS; i++)
    m->free_runs[i] = NONE;
  for (unsigned i = 0; i < MEMORY_CLASSES; i++)
    m->partial[i] = NONE;
  classes_init(m);
  range_free(m, 0, m->npages);
  return 0;
}

void memory_fini(struct memory *m) {
  if (m->base != NULL && m->base != MAP_FAILED)
    munmap(m->base, m->mapped_bytes);
  if (m->pages != NULL && m->pages != MAP_FAILED)
    munmap(m->pages, (size_t)m->npages * sizeof *m->pages);
  *m = (struct memory){0};
}

void *memory_alloc(struct memory *m, size_t size_bytes, enum memory_use use) {
  if (size_bytes <= MEMORY_SMALL_MAX)
    return slab_alloc(m, m->class_of[size_bytes == 0 ? 1 : (size_bytes + 15) / 16], use);
  if (size_bytes > MEMORY_BLOCK_MAX)
    return NULL;
  uint32_t count = pages_for(size_bytes);
  uint32_t index = range_alloc(m, count, use);
  if (index == NONE)
    return NULL;
  m->pages[index].kind = PAGE_RUN;
  m->pages[index].use = (uint8_t)use;
  m->pages[index].count = count;
  m->transit_pages += use == MEMORY_TRANSIT ? count : 0;
  return m->base + (size_t)index * MEMORY_PAGE;
}

/* The page that says what `block` is: its own for a run, the slab's first for a small block. */
static uint32_t page_of(const struct memory *m, const void *block) {
  size_t offset = (size_t)((const uint8_t *)block - m->base);
  assert(offset < m->mapped_bytes);
  uint32_t index = (uint32_t)(offset / MEMORY_PAGE);
  const struct page *page = &m->pages[index];
  return page->kind == PAGE_SLAB_REST ? index - page->count : index;
}

void memory_free(struct memory *m, void *block) {
  uint32_t index = page_of(m, block);
  struct page *page = &m->pages[index];
  if (page->kind == PAGE_SLAB) {
    slab_free(m, index, block);
    return;
  }
  assert(page->kind == PAGE_RUN);
  page->kind = PAGE_INSIDE;
  m->transit_pages -= page->use == MEMORY_TRANSIT ? page->count : 0;
  range_free(m, index, page->count);
}

size_t memory_block_bytes(const struct memory *m, const void *block) {
  const struct page *page = &m->pages[page_of(m, block)];
  return page->kind == PAGE_SLAB ? m->class_bytes[page->class] : (size_t)page->count * MEMORY_PAGE;
}

size_t memory_used_bytes(const struct memory *m) {
  return (size_t)(m->npages - m->free_pages) * MEMORY_PAGE;
}
