/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow table: which connection a packet belongs to.
 *
 * Open addressing with linear probing over 8-byte entries (hash, connection), at
 * most half full, so that a lookup touches one cache line of it and then the
 * connection. Deletion shifts back, so there are no tombstones. The hash is keyed
 * with a secret, so that a peer can't choose addresses and ports that collide.
 */
#ifndef HYBRID_TCP_FLOW_H
#define HYBRID_TCP_FLOW_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/rng.h"

/* Seen from this host. Addresses are IPv4-mapped where they are IPv4; ports in host byte order. */
struct flow_key {
  uint8_t remote[16];
  uint8_t local[16];
  uint16_t remote_port;
  uint16_t local_port;
};
static_assert(sizeof(struct flow_key) == 36, "no padding: compared and hashed as bytes");

#define FLOW_NONE UINT32_MAX

struct flow_entry {
  uint32_t hash;
  uint32_t conn; /* FLOW_NONE: empty */
};

struct flow_table {
  struct flow_entry *entries;
  uint32_t mask;
  uint32_t count;
  uint32_t limit; /* entries it takes: half its size */
  uint64_t secret[6];
};

/* Room for `flows`; -ENOMEM. */
int flow_table_init(struct flow_table *t, uint32_t flows, const uint64_t secret[6]);
void flow_table_fini(struct flow_table *t);

static inline uint32_t flow_key_hash(const struct flow_table *t, const struct flow_key *key) {
  uint64_t words[5] = {0};
  memcpy(words, key, sizeof *key);
  return (uint32_t)flow_hash(t->secret, words);
}

static inline bool flow_key_equal(const struct flow_key *a, const struct flow_key *b) {
  uint64_t x[4], y[4];
  uint32_t p, q;
  memcpy(x, a, 32);
  memcpy(y, b, 32);
  memcpy(&p, &a->remote_port, 4);
  memcpy(&q, &b->remote_port, 4);
  return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (p ^ q)) == 0;
}

static inline void flow_prefetch(const struct flow_table *t, uint32_t hash) {
  __builtin_prefetch(&t->entries[hash & t->mask]);
}

/* The caller has made sure that the flow is not in yet. False: the table is full. */
bool flow_insert(struct flow_table *t, uint32_t hash, uint32_t conn);
void flow_remove(struct flow_table *t, uint32_t hash, uint32_t conn);

#endif
