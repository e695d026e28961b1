/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the stack knows of the host: addresses, links, routes, neighbours.
 *
 *   whoever follows the kernel            shared memory             a shard
 *   hy_host_update()  --------------->  hy_host (seqlock)  ---->  host_view (its own)
 *
 * The table in shared memory belongs to the writer, who may be another process, may
 * be writing just now, and is not trusted: a shard copies it, checks each row, and
 * looks things up only in what passed. Rows that make no sense are left out.
 *
 * Addresses are sixteen bytes throughout, IPv4 as IPv4-mapped IPv6.
 */
#ifndef HYBRID_CORE_HOST_H
#define HYBRID_CORE_HOST_H

#include "core/hybrid.h"

#include <stdatomic.h>

enum {
  HOST_MAGIC = 0x48594854,
  HOST_LAYOUT = 1, /* counts up with every change of struct host_table */
  HOST_ADDR_SLOTS = 2 * HY_HOST_ADDRS,
  HOST_NEIGH_SLOTS = 2 * HY_HOST_NEIGHS,
};

struct host_rows {
  uint32_t nlinks, naddrs, nroutes, nneighs;
  hy_host_link links[HY_HOST_LINKS];
  hy_host_addr addrs[HY_HOST_ADDRS];
  hy_host_route routes[HY_HOST_ROUTES];
  hy_host_neigh neighs[HY_HOST_NEIGHS];
};

/* The shared memory. seq is odd while the writer is at work and counts two per update. */
struct host_table {
  uint32_t magic;
  uint32_t layout;
  _Atomic uint32_t seq;
  uint32_t reserved;
  struct host_rows rows;
};

/* Maps a table that hy_host_create() made, read-only; keeps a descriptor of its own. -EINVAL: it isn't one.
 */
int hy_host_open(int fd, hy_host **out);

/* 128 bits of an address in host byte order, so that a prefix is a mask and a compare. */
struct host_bits {
  uint64_t hi, lo;
};

struct host_prefix {
  struct host_bits bits, mask;
  uint32_t row;    /* of rows.routes */
  uint32_t metric; /* lower first among equal lengths */
  uint16_t len;    /* of 128 */
  uint8_t family;
};

/* Where a packet goes next. */
struct host_hop {
  uint32_t ifindex;
  uint8_t nexthop[16]; /* the gateway, or the destination itself */
  uint8_t source[16];  /* all zeroes: this host has no address that fits */
  uint32_t mtu_bytes;
};

/* A shard's own copy. All of it is read with the functions below. */
struct host_view {
  uint32_t version; /* counts up with every refresh that changed anything; cached hops are compared with it */
  uint32_t seq;     /* of the shared table when it was copied */
  struct host_rows rows;
  struct host_prefix prefixes[HY_HOST_ROUTES]; /* longest first, then lowest metric */
  uint16_t addr_slots[HOST_ADDR_SLOTS];        /* row + 1, by hash of the address; 0: empty */
  uint16_t neigh_slots[HOST_NEIGH_SLOTS];      /* row + 1, by hash of link and address; 0: empty */
  struct host_rows *scratch;                   /* where a copy is made before anybody believes it */
};

/* An empty view, version 0. -ENOMEM. */
int host_view_init(struct host_view *view);
void host_view_fini(struct host_view *view);
/* The next refresh takes what it finds: when the shard turns to another table. */
void host_view_forget(struct host_view *view);

/* In parts: for host_view_refresh. host_view_adopt checks what is in scratch and makes it the view. */
bool host_view_take(struct host_view *view, const hy_host *host);
void host_view_adopt(struct host_view *view);
const struct host_table *host_table(const hy_host *host);

/*
 * Follows the table: true if there was a new state and the view has it now. One load
 * where nothing has changed. While the writer is in the middle, the old view stays.
 */
static inline bool host_view_refresh(struct host_view *view, const hy_host *host) {
  const struct host_table *table = host_table(host);
  if (__builtin_expect(atomic_load_explicit(&table->seq, memory_order_acquire) == view->seq, 1))
    return false;
  return host_view_take(view, host);
}

/* NULL: no such link. */
const hy_host_link *host_link(const struct host_view *view, uint32_t ifindex);
/* Is it exactly one of the host's addresses, on whatever link? */
bool host_is_local(const struct host_view *view, const uint8_t ip[16]);
/* Longest prefix, then lowest metric. False: no route, or its link isn't in the table. */
bool host_route(const struct host_view *view, const uint8_t dst[16], struct host_hop *out);
/* Link-layer address, six bytes; NULL: not known. */
const uint8_t *host_neigh(const struct host_view *view, uint32_t ifindex, const uint8_t ip[16]);

#endif
