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
#include <stddef.h>
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

/* From the first four bytes of a transport header that was received. */
static inline void flow_key_ports(struct flow_key *key, const uint8_t *header) {
  uint32_t ports;
  memcpy(&ports, header, 4);
  ports = (ports & 0x00ff00ffu) << 8 | (ports >> 8 & 0x00ff00ffu); /* swaps the bytes of both halves */
  memcpy(&key->remote_port, &ports, 4);                            /* in one word, as it will be read again */
}
static_assert(offsetof(struct flow_key, local_port) == offsetof(struct flow_key, remote_port) + 2,
              "adjacent");

static inline uint64_t flow_word(const uint8_t *p) {
  uint64_t w;
  memcpy(&w, p, 8);
  return w;
}

static inline uint32_t flow_key_ends(const struct flow_key *key) {
  uint32_t ports;
  memcpy(&ports, &key->remote_port, 4);
  return ports;
}

/*
 * Word by word, and not copied out as a whole: the key has just been written in these very words, and a
 * wider load would have to wait until they have all reached the cache.
 */
static inline uint32_t flow_key_hash(const struct flow_table *t, const struct flow_key *key) {
  uint64_t words[5] = {flow_word(key->remote), flow_word(key->remote + 8), flow_word(key->local),
                       flow_word(key->local + 8), flow_key_ends(key)};
  return (uint32_t)flow_hash(t->secret, words);
}

static inline bool flow_key_equal(const struct flow_key *a, const struct flow_key *b) {
  uint64_t remote =
      (flow_word(a->remote) ^ flow_word(b->remote)) | (flow_word(a->remote + 8) ^ flow_word(b->remote + 8));
  uint64_t local =
      (flow_word(a->local) ^ flow_word(b->local)) | (flow_word(a->local + 8) ^ flow_word(b->local + 8));
  return (remote | local | (flow_key_ends(a) ^ flow_key_ends(b))) == 0;
}

static inline void flow_prefetch(const struct flow_table *t, uint32_t hash) {
  __builtin_prefetch(&t->entries[hash & t->mask]);
}

/* The caller has made sure that the flow is not in yet. False: the table is full. */
bool flow_insert(struct flow_table *t, uint32_t hash, uint32_t conn);
void flow_remove(struct flow_table *t, uint32_t hash, uint32_t conn);

#endif
