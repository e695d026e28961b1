/* SPDX-License-Identifier: Apache-2.0 */
/* The region allocator; memory.h says what it is for. */
#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT32_MAX
#define SLAB_BYTES (MEMORY_SLAB_PAGES * MEMORY_PAGE)
enum { SLAB_ORDER = 2 };
static_assert(1 << SLAB_ORDER == MEMORY_SLAB_PAGES, "a slab is one buddy run");

enum page_kind {
  PAGE_INSIDE = 0, /* not the first of anything */
  PAGE_FREE,       /* first of a free run */
  PAGE_RUN,        /* first of a large block */
  PAGE_SLAB,       /* first of a slab */
};

struct page {
  uint32_t next, prev; /* in free_runs[] or partial[] */
  uint32_t count;      /* PAGE_RUN: pages; PAGE_SLAB: blocks in use */
  uint16_t free_block; /* PAGE_SLAB: head of the freed blocks, linked through their first two bytes */
  uint16_t fresh;      /* PAGE_SLAB: blocks from here on were never used */
  uint8_t kind;
  uint8_t order; /* PAGE_FREE */
  uint8_t class; /* PAGE_SLAB */
  uint8_t reserved;
};
static_assert(sizeof(struct page) == 20, "half a percent of the region");
#define NO_BLOCK UINT16_MAX

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

/* ---- pages: the buddy system -------------------------------------------- */

static void run_free(struct memory *m, uint32_t index, unsigned order) {
  m->free_pages += 1u << order;
  for (; order + 1 < MEMORY_ORDERS; order++) {
    uint32_t buddy = index ^ (1u << order);
    if (buddy >= m->npages || m->pages[buddy].kind != PAGE_FREE || m->pages[buddy].order != order)
      break;
    list_remove(m, &m->free_runs[order], buddy);
    m->pages[buddy].kind = PAGE_INSIDE;
    m->pages[index].kind = PAGE_INSIDE;
    index &= ~(1u << order);
  }
  m->pages[index].kind = PAGE_FREE;
  m->pages[index].order = (uint8_t)order;
  list_add(m, &m->free_runs[order], index);
}

/* Any range of pages, as the fewest aligned runs. */
static void range_free(struct memory *m, uint32_t index, uint32_t count) {
  while (count > 0) {
    unsigned order = (unsigned)(31 - __builtin_clz(count));
    if (index != 0 && (unsigned)__builtin_ctz(index) < order)
      order = (unsigned)__builtin_ctz(index);
    if (order >= MEMORY_ORDERS)
      order = MEMORY_ORDERS - 1;
    run_free(m, index, order);
    index += 1u << order;
    count -= 1u << order;
  }
}

static uint32_t range_alloc(struct memory *m, uint32_t count, enum memory_use use) {
  uint32_t kept = use == MEMORY_STORE ? m->reserve_pages : 0;
  if (m->free_pages < kept + count)
    return NONE;
  unsigned wanted = count == 1 ? 0 : (unsigned)(32 - __builtin_clz(count - 1));
  unsigned order = wanted;
  while (order < MEMORY_ORDERS && m->free_runs[order] == NONE)
    order++;
  if (order >= MEMORY_ORDERS)
    return NONE;
  uint32_t index = m->free_runs[order];
  list_remove(m, &m->free_runs[order], index);
  m->pages[index].kind = PAGE_INSIDE;
  m->free_pages -= 1u << order;
  range_free(m, index + count, (1u << order) - count);
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
    slab->kind = PAGE_INSIDE;
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
  for (unsigned i = 0; i < MEMORY_ORDERS; i++)
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
  m->pages[index].count = count;
  return m->base + (size_t)index * MEMORY_PAGE;
}

/* The page that says what `block` is: its own for a run, the slab's first for a small block. */
static uint32_t page_of(const struct memory *m, const void *block) {
  size_t offset = (size_t)((const uint8_t *)block - m->base);
  assert(offset < m->mapped_bytes);
  uint32_t index = (uint32_t)(offset / MEMORY_PAGE);
  uint32_t slab = index & ~(uint32_t)(MEMORY_SLAB_PAGES - 1);
  return m->pages[slab].kind == PAGE_SLAB ? slab : index;
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
  range_free(m, index, page->count);
}

size_t memory_block_bytes(const struct memory *m, const void *block) {
  const struct page *page = &m->pages[page_of(m, block)];
  return page->kind == PAGE_SLAB ? m->class_bytes[page->class] : (size_t)page->count * MEMORY_PAGE;
}

size_t memory_used_bytes(const struct memory *m) {
  return (size_t)(m->npages - m->free_pages) * MEMORY_PAGE;
}
