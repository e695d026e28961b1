/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys and their values: a hash table of chains whose entries live in the
 * server's memory region (memory.h).
 *
 * The table's size is fixed by the memory there is (about one bucket for every
 * two smallest entries), so it never stops to grow. Keys are hashed with
 * SipHash-1-3 under a secret key: nobody outside can choose keys that collide.
 *
 * Expiry: an expired key is gone for every reader at once (found, then removed);
 * store_sweep() removes those that nobody asks for, a bounded number of buckets
 * per call.
 */
#ifndef KV_STORE_H
#define KV_STORE_H

#include "memory.h"

#define STORE_NO_EXPIRY INT64_MAX

struct entry {
  struct pin pin; /* refs: one for the table, one for each reply that sends from it */
  uint32_t key_len;
  uint32_t value_len;
  struct entry *next;
  int64_t expires_ms; /* STORE_NO_EXPIRY: never */
  uint8_t bytes[];    /* key, then value */
};

struct store {
  struct memory *memory;
  struct entry **buckets;
  uint64_t mask;
  uint64_t key[2]; /* of the hash */
  uint64_t entries;
  uint64_t expiring; /* entries with an expiry */
  uint64_t sweep_at; /* next bucket to sweep */
  uint64_t expired;  /* counted since start */
  uint32_t tag;      /* of the key that store_place() last looked for */
};

/* key: 16 secret bytes. -ENOMEM. */
int store_init(struct store *s, struct memory *memory, size_t store_bytes, const uint8_t key[16]);
void store_fini(struct store *s);

static inline const uint8_t *entry_value(const struct entry *e) {
  return e->bytes + e->key_len;
}

/*
 * Where the key is, or would be put: *place is its entry or NULL. Removes it
 * first if it has expired. A place is good until the store changes.
 */
struct entry **store_place(struct store *s, const void *key, size_t key_len, int64_t now_ms);

/* An entry that is in nobody's table yet; NULL: out of memory. */
struct entry *store_entry(struct store *s, const void *key, size_t key_len, const void *value,
                          size_t value_len, int64_t expires_ms);
/* Puts it at its key's place, instead of what was there. */
void store_link(struct store *s, struct entry **place, struct entry *e);

/*
 * Puts a value at the place that store_place() has just found for the key, in
 * the block of the old value where it fits. -ENOMEM, and then nothing has changed.
 */
int store_put(struct store *s, struct entry **place, const void *key, size_t key_len, const void *value,
              size_t value_len, int64_t expires_ms);
void store_remove(struct store *s, struct entry **place);
void store_flush(struct store *s);
/* Looks at up to max_buckets buckets; returns how many keys it removed. */
unsigned store_sweep(struct store *s, int64_t now_ms, unsigned max_buckets);

/* SipHash-1-3 of the bytes (Aumasson and Bernstein, 2012; one round a word, three at the end). */
uint64_t store_hash(const uint64_t key[2], const void *data, size_t len);

#endif
