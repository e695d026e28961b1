/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared table of host.h: its memory, its writer, and the copy a reader takes.
 *
 * Both sides move the rows word by word with relaxed atomics: the reader may read
 * while the writer writes, and finds out afterwards by `seq` (a seqlock; Boehm,
 * MSPC 2012).
 */
#include "core/host.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static_assert(sizeof(hy_host_link) == 16 && sizeof(hy_host_addr) == 28 && sizeof(hy_host_route) == 76 &&
                  sizeof(hy_host_neigh) == 32,
              "rows are whole words without padding: two processes share them");
static_assert(offsetof(struct host_table, rows) == 16, "the header of the shared table");

struct hy_host {
  struct host_table *table;
  int fd;
  bool writer;
};

const struct host_table *host_table(const hy_host *host) {
  return host->table;
}

static void words_store(void *to, const void *from, size_t bytes) {
  uint32_t *out = to;
  const uint32_t *in = from;
  for (size_t i = 0; i < bytes / sizeof *out; i++)
    __atomic_store_n(&out[i], in[i], __ATOMIC_RELAXED);
}

static void words_load(void *to, const void *from, size_t bytes) {
  uint32_t *out = to;
  const uint32_t *in = from;
  for (size_t i = 0; i < bytes / sizeof *out; i++)
    out[i] = __atomic_load_n(&in[i], __ATOMIC_RELAXED);
}

int hy_host_create(hy_host **out) {
  int rc;
  hy_host *host = calloc(1, sizeof *host);
  if (host == NULL)
    return -ENOMEM;
  host->writer = true;
  host->fd = memfd_create("hybrid-host", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (host->fd < 0) {
    rc = -errno;
    goto fail_memory;
  }
  if (ftruncate(host->fd, sizeof *host->table) < 0) {
    rc = -errno;
    goto fail_fd;
  }
  host->table = mmap(NULL, sizeof *host->table, PROT_READ | PROT_WRITE, MAP_SHARED, host->fd, 0);
  if (host->table == MAP_FAILED) {
    rc = -errno;
    goto fail_fd;
  }
  host->table->magic = HOST_MAGIC;
  host->table->layout = HOST_LAYOUT;
  /* FUTURE_WRITE: whoever is handed the descriptor can't write; our mapping, made before, still can. */
  if (fcntl(host->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0) {
    rc = -errno;
    goto fail_map;
  }
  *out = host;
  return 0;

fail_map:
  munmap(host->table, sizeof *host->table);
fail_fd:
  close(host->fd);
fail_memory:
  free(host);
  return rc;
}

int hy_host_open(int fd, hy_host **out) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  /* Without the seal the writer could cut it short under us, and reading would be a SIGBUS. */
  int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || !(seals & F_SEAL_SHRINK) || st.st_size < (off_t)sizeof(struct host_table))
    return -EINVAL;
  hy_host *host = calloc(1, sizeof *host);
  if (host == NULL)
    return -ENOMEM;
  int rc;
  host->table = mmap(NULL, sizeof *host->table, PROT_READ, MAP_SHARED, fd, 0);
  if (host->table == MAP_FAILED) {
    rc = -errno;
    goto fail_memory;
  }
  if (host->table->magic != HOST_MAGIC || host->table->layout != HOST_LAYOUT) {
    rc = -EINVAL;
    goto fail_map;
  }
  host->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (host->fd < 0) {
    rc = -errno;
    goto fail_map;
  }
  *out = host;
  return 0;

fail_map:
  munmap(host->table, sizeof *host->table);
fail_memory:
  free(host);
  return rc;
}

int hy_host_fd(const hy_host *host) {
  return host->fd;
}

void hy_host_close(hy_host *host) {
  if (host == NULL)
    return;
  munmap(host->table, sizeof *host->table);
  close(host->fd);
  free(host);
}

int hy_host_update(hy_host *host, const hy_host_link *links, unsigned nlinks, const hy_host_addr *addrs,
                   unsigned naddrs, const hy_host_route *routes, unsigned nroutes,
                   const hy_host_neigh *neighs, unsigned nneighs) {
  if (!host->writer)
    return -EPERM;
  if (nlinks > HY_HOST_LINKS || naddrs > HY_HOST_ADDRS || nroutes > HY_HOST_ROUTES ||
      nneighs > HY_HOST_NEIGHS)
    return -E2BIG;
  struct host_table *table = host->table;
  struct host_rows *rows = &table->rows;
  uint32_t seq = atomic_load_explicit(&table->seq, memory_order_relaxed);
  assert(seq % 2 == 0);
  atomic_store_explicit(&table->seq, seq + 1, memory_order_relaxed);
  /* No row may be seen changed by somebody who still sees the even number. */
  atomic_thread_fence(memory_order_release);
  const uint32_t counts[4] = {nlinks, naddrs, nroutes, nneighs};
  words_store(&rows->nlinks, counts, sizeof counts);
  words_store(rows->links, links, nlinks * sizeof *links);
  words_store(rows->addrs, addrs, naddrs * sizeof *addrs);
  words_store(rows->routes, routes, nroutes * sizeof *routes);
  words_store(rows->neighs, neighs, nneighs * sizeof *neighs);
  atomic_store_explicit(&table->seq, seq + 2, memory_order_release);
  return 0;
}

/* A consistent copy, or false: the writer was in the way. */
static bool rows_copy(struct host_rows *to, const struct host_table *table, uint32_t *seq) {
  const struct host_rows *from = &table->rows;
  *seq = atomic_load_explicit(&table->seq, memory_order_acquire);
  if (*seq % 2 != 0)
    return false;
  words_load(&to->nlinks, &from->nlinks, 4 * sizeof to->nlinks);
  if (to->nlinks > HY_HOST_LINKS)
    to->nlinks = 0;
  if (to->naddrs > HY_HOST_ADDRS)
    to->naddrs = 0;
  if (to->nroutes > HY_HOST_ROUTES)
    to->nroutes = 0;
  if (to->nneighs > HY_HOST_NEIGHS)
    to->nneighs = 0;
  words_load(to->links, from->links, to->nlinks * sizeof *to->links);
  words_load(to->addrs, from->addrs, to->naddrs * sizeof *to->addrs);
  words_load(to->routes, from->routes, to->nroutes * sizeof *to->routes);
  words_load(to->neighs, from->neighs, to->nneighs * sizeof *to->neighs);
  /* The rows are read before seq is looked at again. */
  atomic_thread_fence(memory_order_acquire);
  return atomic_load_explicit(&table->seq, memory_order_relaxed) == *seq;
}

bool host_view_take(struct host_view *view, const hy_host *host) {
  uint32_t seq;
  if (!rows_copy(view->scratch, host->table, &seq))
    return false;
  view->seq = seq;
  host_view_adopt(view);
  return true;
}
