/* SPDX-License-Identifier: Apache-2.0 */
/* The mempool over an arena, and its operations. pool.h has the picture. */
#include "dpdk/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>

enum { POOLS_MAX = 64, OBJECT_HEADER = 64, HUGEPAGE = 2 << 20 };

static_assert(OBJECT_HEADER + sizeof(struct rte_mbuf) == HY_DPDK_PREFIX,
              "the prefix holds an mbuf and its header");
static_assert(RTE_PKTMBUF_HEADROOM <= FRAME_HEADROOM,
              "what fits behind our headroom fits where a driver fills");

static struct pool *pools[POOLS_MAX];

/* ---- what the mempool does when a driver takes and gives ------------------------------------ */

static bool owner_calls(const struct pool *pool) {
  return atomic_load_explicit(&pool->owner, memory_order_relaxed) == eal_self();
}

static void frame_back(struct pool *pool, uint32_t index) {
  pool->ledger[index] = 0;
  frame_meta(pool->arena, index)->flags &= (uint8_t)~FRAME_IN_DEVICE;
  frame_unref(pool->arena, index);
}

void pool_take_back_slowly(struct pool *pool) {
  void *mbufs[DEVICE_BURST];
  unsigned n;
  while ((n = rte_ring_dequeue_burst(pool->returned, mbufs, DEVICE_BURST, NULL)) > 0)
    for (unsigned i = 0; i < n; i++)
      frame_back(pool, pool_index(pool, mbufs[i]));
}

static int ops_alloc(struct rte_mempool *mempool) {
  mempool->pool_data = mempool->pool_config;
  return 0;
}

static void ops_free(struct rte_mempool *mempool) {
  (void)mempool; /* everything is pool_put()'s */
}

static int ops_enqueue(struct rte_mempool *mempool, void *const *mbufs, unsigned n) {
  struct pool *pool = mempool->pool_data;
  if (pool->closed_down)
    return 0;
  if (!owner_calls(pool)) /* it has room for every frame */
    return rte_ring_enqueue_bulk(pool->returned, mbufs, n, NULL) == n ? 0 : -ENOBUFS;
  for (unsigned i = 0; i < n; i++)
    frame_back(pool, pool_index(pool, mbufs[i]));
  return 0;
}

/*
 * A driver takes frames to replace those that it hands on, so the arena does not empty through it; a burst
 * is kept for the stack all the same, which has to answer what arrives. All n or none.
 */
static int ops_dequeue(struct rte_mempool *mempool, void **mbufs, unsigned n) {
  struct pool *pool = mempool->pool_data;
  if (pool->closed_down) {
    memset(mbufs, 0, n * sizeof *mbufs);
    return 0;
  }
  if (!owner_calls(pool))
    return rte_ring_dequeue_bulk(pool->stash, mbufs, n, NULL) == n ? 0 : -ENOENT;
  if (pool->arena->free_count < n + POOL_KEEP) {
    pool_take_back(pool);
    if (pool->arena->free_count < n + POOL_KEEP)
      return -ENOENT;
  }
  for (unsigned i = 0; i < n; i++) {
    uint32_t index = frame_alloc(pool->arena);
    assert(index != FRAME_NONE && pool->ledger[index] == 0);
    pool->ledger[index] = (uint8_t)(pool->slot + 1);
    mbufs[i] = pool_mbuf(pool, index);
  }
  return 0;
}

static unsigned ops_count(const struct rte_mempool *mempool) {
  const struct pool *pool = mempool->pool_data;
  return pool->closed_down ? mempool->size : pool->arena->free_count;
}

static const struct rte_mempool_ops arena_ops = {
    .name = "hybrid_arena",
    .alloc = ops_alloc,
    .free = ops_free,
    .enqueue = ops_enqueue,
    .dequeue = ops_dequeue,
    .get_count = ops_count,
};
RTE_MEMPOOL_REGISTER_OPS(arena_ops)

/* ---- making one ------------------------------------------------------------------------------- */

struct rte_ring *ring_make(uint32_t frames) {
  uint32_t size = 1;
  while (size <= frames)
    size <<= 1;
  ssize_t bytes = rte_ring_get_memsize(size);
  struct rte_ring *ring = bytes < 0 ? NULL : aligned_alloc(64, (size_t)bytes);
  if (ring != NULL && rte_ring_init(ring, "hybrid", size, 0) < 0) {
    free(ring);
    return NULL;
  }
  return ring;
}

/* Physical addresses, where that is what the machine's devices understand, differ from page to page. */
static void mbuf_init(struct rte_mempool *mempool, void *arg, void *object, unsigned i) {
  rte_pktmbuf_init(mempool, arg, object, i);
  struct rte_mbuf *m = object;
  if (rte_eal_iova_mode() == RTE_IOVA_PA)
    rte_mbuf_iova_set(m, rte_mem_virt2iova(m->buf_addr));
}

static int register_memory(struct pool *pool) {
  size_t bytes = (size_t)(pool->end - pool->base);
  rte_iova_t *iovas = NULL;
  unsigned pages = (unsigned)(bytes / pool->page_bytes);
  if (rte_eal_iova_mode() == RTE_IOVA_PA || rte_eal_iova_mode() == RTE_IOVA_VA) {
    iovas = malloc(pages * sizeof *iovas);
    if (iovas == NULL)
      return -ENOMEM;
    for (unsigned i = 0; i < pages; i++)
      iovas[i] = rte_mem_virt2iova(pool->base + i * pool->page_bytes);
  }
  int rc = rte_extmem_register(pool->base, bytes, iovas, pages, pool->page_bytes);
  free(iovas);
  return rc < 0 ? -rte_errno : 0;
}

static int pool_make_job(void *arg) {
  struct pool *pool = arg;
  const struct arena *arena = pool->arena;
  int rc = register_memory(pool);
  if (rc < 0)
    return rc;
  static unsigned made;
  char name[RTE_MEMPOOL_NAMESIZE];
  snprintf(name, sizeof name, "hybrid_%u", made++);
  struct rte_mempool *mempool = rte_mempool_create_empty(
      name, arena->frames, arena->frame_size - OBJECT_HEADER, 0, sizeof(struct rte_pktmbuf_pool_private),
      SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_SPREAD);
  if (mempool == NULL) {
    rc = -rte_errno;
    goto fail_memory;
  }
  pool->mempool = mempool;
  pool->closed_down = true; /* populating puts every object in; they are the arena's already */
  struct rte_pktmbuf_pool_private private = {
      .mbuf_data_room_size = (uint16_t)(arena->frame_size - HY_DPDK_PREFIX),
  };
  rc = rte_mempool_set_ops_byname(mempool, arena_ops.name, pool);
  if (rc < 0)
    goto fail_mempool;
  rte_pktmbuf_pool_init(mempool, &private);
  rte_iova_t iova =
      rte_eal_iova_mode() == RTE_IOVA_VA ? (rte_iova_t)pool->base : rte_mem_virt2iova(pool->base);
  rc = rte_mempool_populate_iova(mempool, (char *)pool->base, iova,
                                 (size_t)arena->frames << arena->frame_shift, NULL, NULL);
  if (rc != (int)arena->frames) {
    rc = rc < 0 ? rc : -ENOMEM;
    goto fail_mempool;
  }
  rte_mempool_obj_iter(mempool, mbuf_init, NULL);
  pool->closed_down = false;
  return 0;

fail_mempool:
  rte_mempool_free(mempool);
fail_memory:
  rte_extmem_unregister(pool->base, (size_t)(pool->end - pool->base));
  return rc;
}

static void pool_free(struct pool *pool) {
  free(pool->returned);
  free(pool->stash);
  free(pool->ledger);
  free(pool);
}

static struct pool **pool_place(const uint8_t *base) {
  for (unsigned i = 0; i < POOLS_MAX; i++)
    if (base == NULL ? pools[i] == NULL : pools[i] != NULL && pools[i]->base == base)
      return &pools[i];
  return NULL;
}

int pool_get(struct arena *arena, struct pool **out, char *detail) {
  struct pool **place = pool_place(arena->base);
  if (place != NULL) {
    *out = *place;
    (*out)->users++;
    return 0;
  }
  place = pool_place(NULL);
  if (place == NULL)
    return dpdk_fail(detail, -ENOSPC, "more than %d shards use DPDK: give each process fewer", POOLS_MAX);
  struct pool *pool = calloc(1, sizeof *pool);
  if (pool == NULL)
    return dpdk_fail(detail, -ENOMEM, "out of memory");
  pool->arena = arena;
  pool->base = arena->base;
  pool->end = arena->base + arena->size_bytes;
  pool->page_bytes = arena->hugepages ? HUGEPAGE : (size_t)sysconf(_SC_PAGESIZE);
  pool->slot = POOL_SLOT_NONE;
  pool->ledger = calloc(arena->frames, 1);
  pool->returned = ring_make(arena->frames);
  pool->stash = ring_make(arena->frames);
  int rc = pool->ledger == NULL || pool->returned == NULL || pool->stash == NULL ? -ENOMEM : 0;
  pool_enter(pool, POOL_SLOT_NONE);
  if (rc == 0)
    rc = eal_run(pool_make_job, pool);
  if (rc < 0) {
    pool_free(pool);
    char said[DPDK_DETAIL_BYTES];
    return eal_broken() ? eal_explain_broken(detail)
                        : dpdk_fail(detail, rc,
                                    "DPDK cannot take in the shard's %u frames (%s; %s): give EAL more "
                                    "memory (-m in the eal arguments), or the shard fewer frames",
                                    arena->frames, strerror(-rc), eal_said(said));
  }
  pool->users = 1;
  *out = *place = pool;
  return 0;
}

static int pool_end_job(void *arg) {
  struct pool *pool = arg;
  pool->closed_down = true;
  rte_mempool_free(pool->mempool);
  rte_extmem_unregister(pool->base, (size_t)(pool->end - pool->base));
  return 0;
}

void pool_put(struct pool *pool) {
  if (--pool->users > 0)
    return;
  pool_take_back_slowly(pool);
  pool_unstock(pool);
  bool out = eal_broken();
  for (uint32_t i = 0; i < pool->arena->frames && !out; i++)
    out = pool->ledger[i] != 0;
  if (out || eal_run(pool_end_job, pool) < 0) {
    pool->arena->lent = 1;
    atomic_store(&pool->owner, NULL);
    pool->users = 1; /* for good: the pool stays where whoever holds an mbuf of it can give that back */
    return;
  }
  *pool_place(pool->base) = NULL;
  pool_free(pool);
}

/* ---- frames for and from other threads ---------------------------------------------------------- */

int pool_stock(struct pool *pool, uint8_t slot, uint32_t count) {
  if (pool->arena->free_count < count + POOL_KEEP)
    return -ENOBUFS;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t index = frame_alloc(pool->arena);
    pool->ledger[index] = (uint8_t)(slot + 1);
    rte_ring_enqueue(pool->stash, pool_mbuf(pool, index));
  }
  return 0;
}

void pool_unstock(struct pool *pool) {
  void *mbuf;
  while (rte_ring_dequeue(pool->stash, &mbuf) == 0)
    frame_back(pool, pool_index(pool, mbuf));
}

void pool_forget(struct pool *pool, uint8_t slot) {
  for (uint32_t i = 0; i < pool->arena->frames; i++)
    if (pool->ledger[i] == slot + 1) {
      struct rte_mbuf *m = pool_mbuf(pool, i);
      m->next = NULL;
      m->nb_segs = 1;
      frame_back(pool, i);
    }
}

uint32_t pool_held(const struct pool *pool, uint8_t slot) {
  uint32_t held = 0;
  for (uint32_t i = 0; i < pool->arena->frames; i++)
    held += pool->ledger[i] == slot + 1;
  return held;
}
