/* SPDX-License-Identifier: Apache-2.0 */
/* The hash table; store.h says what it promises. */
#include "store.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* ---- hash --------------------------------------------------------------- */

static inline uint64_t rotate(uint64_t x, unsigned by) {
  return x << by | x >> (64 - by);
}

static inline void sip_round(uint64_t v[4]) {
  v[0] += v[1];
  v[2] += v[3];
  v[1] = rotate(v[1], 13) ^ v[0];
  v[3] = rotate(v[3], 16) ^ v[2];
  v[0] = rotate(v[0], 32);
  v[2] += v[1];
  v[0] += v[3];
  v[1] = rotate(v[1], 17) ^ v[2];
  v[3] = rotate(v[3], 21) ^ v[0];
  v[2] = rotate(v[2], 32);
}

uint64_t store_hash(const uint64_t key[2], const void *data, size_t len) {
  /* "somepseudorandomlygeneratedbytes", the constants of the paper. */
  uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                   key[1] ^ 0x7465646279746573};
  const uint8_t *at = data;
  for (size_t words = len / 8; words > 0; words--, at += 8) {
    uint64_t word;
    memcpy(&word, at, 8);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
  }
  uint64_t last = (uint64_t)(len & 0xff) << 56;
  for (size_t i = 0; i < (len & 7); i++)
    last |= (uint64_t)at[i] << (8 * i);
  v[3] ^= last;
  sip_round(v);
  v[0] ^= last;
  v[2] ^= 0xff;
  sip_round(v);
  sip_round(v);
  sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- table -------------------------------------------------------------- */

static size_t table_bytes(const struct store *s) {
  return (size_t)(s->mask + 1) * sizeof *s->buckets;
}

int store_init(struct store *s, struct memory *memory, size_t store_bytes, const uint8_t key[16]) {
  uint64_t buckets = 1024;
  while (buckets < store_bytes / 128)
    buckets *= 2;
  *s = (struct store){.memory = memory, .mask = buckets - 1};
  memcpy(s->key, key, sizeof s->key);
  s->buckets = mmap(NULL, table_bytes(s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (s->buckets == MAP_FAILED) {
    s->buckets = NULL;
    return -ENOMEM;
  }
  return 0;
}

void store_fini(struct store *s) {
  if (s->buckets != NULL)
    munmap(s->buckets, table_bytes(s));
  *s = (struct store){0};
}

struct entry **store_place(struct store *s, const void *key, size_t key_len, int64_t now_ms) {
  uint64_t hash = store_hash(s->key, key, key_len);
  uint32_t tag = (uint32_t)(hash >> 32); /* spares most reads of other keys in the chain */
  struct entry **place = &s->buckets[hash & s->mask];
  s->tag = tag;
  for (struct entry *e; (e = *place) != NULL; place = &e->next) {
    if (e->pin.tag != tag || e->key_len != key_len || memcmp(e->bytes, key, key_len) != 0)
      continue;
    if (e->expires_ms > now_ms)
      return place;
    store_remove(s, place);
    s->expired++;
    break;
  }
  while (*place != NULL)
    place = &(*place)->next;
  return place;
}

static void expiry_count(struct store *s, int64_t was_ms, int64_t is_ms) {
  s->expiring -= was_ms != STORE_NO_EXPIRY;
  s->expiring += is_ms != STORE_NO_EXPIRY;
}

static struct entry *entry_new(struct store *s, uint32_t tag, const void *key, size_t key_len,
                               const void *value, size_t value_len, int64_t expires_ms) {
  struct entry *e = memory_alloc(s->memory, sizeof *e + key_len + value_len, MEMORY_STORE);
  if (e == NULL)
    return NULL;
  *e = (struct entry){
      .pin = {.refs = 1, .tag = tag},
      .key_len = (uint32_t)key_len,
      .value_len = (uint32_t)value_len,
      .expires_ms = expires_ms,
  };
  memcpy(e->bytes, key, key_len);
  memcpy(e->bytes + key_len, value, value_len);
  return e;
}

struct entry *store_entry(struct store *s, const void *key, size_t key_len, const void *value,
                          size_t value_len, int64_t expires_ms) {
  uint32_t tag = (uint32_t)(store_hash(s->key, key, key_len) >> 32);
  return entry_new(s, tag, key, key_len, value, value_len, expires_ms);
}

void store_link(struct store *s, struct entry **place, struct entry *e) {
  struct entry *old = *place;
  e->next = old != NULL ? old->next : NULL;
  *place = e;
  expiry_count(s, old != NULL ? old->expires_ms : STORE_NO_EXPIRY, e->expires_ms);
  if (old != NULL)
    pin_drop(s->memory, &old->pin);
  else
    s->entries++;
}

int store_put(struct store *s, struct entry **place, const void *key, size_t key_len, const void *value,
              size_t value_len, int64_t expires_ms) {
  struct entry *old = *place;
  if (old != NULL && old->pin.refs == 1) { /* a reply that still sends the old value keeps it */
    size_t bytes = sizeof *old + key_len + value_len, have = memory_block_bytes(s->memory, old);
    if (bytes <= have && (have <= 128 || bytes > have / 2)) { /* else half the block would be waste */
      memcpy(old->bytes + key_len, value, value_len);
      old->value_len = (uint32_t)value_len;
      expiry_count(s, old->expires_ms, expires_ms);
      old->expires_ms = expires_ms;
      return 0;
    }
  }
  struct entry *e = entry_new(s, s->tag, key, key_len, value, value_len, expires_ms);
  if (e == NULL)
    return -ENOMEM;
  store_link(s, place, e);
  return 0;
}

void store_remove(struct store *s, struct entry **place) {
  struct entry *e = *place;
  assert(e != NULL && s->entries > 0);
  *place = e->next;
  s->entries--;
  expiry_count(s, e->expires_ms, STORE_NO_EXPIRY);
  pin_drop(s->memory, &e->pin);
}

void store_flush(struct store *s) {
  for (uint64_t i = 0; i <= s->mask && s->entries > 0; i++)
    while (s->buckets[i] != NULL)
      store_remove(s, &s->buckets[i]);
}

unsigned store_sweep(struct store *s, int64_t now_ms, unsigned max_buckets) {
  unsigned removed = 0;
  for (unsigned i = 0; i < max_buckets && s->expiring > 0; i++) {
    struct entry **place = &s->buckets[s->sweep_at++ & s->mask];
    while (*place != NULL) {
      if ((*place)->expires_ms <= now_ms) {
        store_remove(s, place);
        removed++;
      } else {
        place = &(*place)->next;
      }
    }
  }
  s->expired += removed;
  return removed;
}
