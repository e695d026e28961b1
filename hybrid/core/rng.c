/* SPDX-License-Identifier: Apache-2.0 */
/* The generator and the hash of rng.h. */
#include "core/rng.h"

#include <assert.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are loaded and stored as they are in memory");

static uint32_t rotl32(uint32_t x, unsigned bits) {
  return x << bits | x >> (32 - bits);
}

static void quarter_round(uint32_t s[16], unsigned a, unsigned b, unsigned c, unsigned d) {
  s[a] += s[b];
  s[d] = rotl32(s[d] ^ s[a], 16);
  s[c] += s[d];
  s[b] = rotl32(s[b] ^ s[c], 12);
  s[a] += s[b];
  s[d] = rotl32(s[d] ^ s[a], 8);
  s[c] += s[d];
  s[b] = rotl32(s[b] ^ s[c], 7);
}

void chacha20_block(const uint8_t key[32], uint32_t counter, const uint8_t nonce[12], uint8_t out[64]) {
  uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  memcpy(&start[4], key, 32);
  start[12] = counter;
  memcpy(&start[13], nonce, 12);

  uint32_t s[16];
  memcpy(s, start, sizeof s);
  for (unsigned i = 0; i < 10; i++) {
    quarter_round(s, 0, 4, 8, 12);
    quarter_round(s, 1, 5, 9, 13);
    quarter_round(s, 2, 6, 10, 14);
    quarter_round(s, 3, 7, 11, 15);
    quarter_round(s, 0, 5, 10, 15);
    quarter_round(s, 1, 6, 11, 12);
    quarter_round(s, 2, 7, 8, 13);
    quarter_round(s, 3, 4, 9, 14);
  }
  for (unsigned i = 0; i < 16; i++)
    s[i] += start[i];
  memcpy(out, s, sizeof s);
}

void rng_init(struct rng *r, const uint8_t seed[32]) {
  memcpy(r->key, seed, sizeof r->key);
  r->used = RNG_BATCH;
}

static void batch_refill(struct rng *r) {
  static const uint8_t nonce[12];
  for (uint32_t block = 0; block < RNG_BATCH / 64; block++)
    chacha20_block(r->key, block, nonce, r->batch + 64 * block);
  memcpy(r->key, r->batch, sizeof r->key);
  memset(r->batch, 0, sizeof r->key);
  r->used = sizeof r->key;
}

void rng_fill(struct rng *r, void *out, size_t len_bytes) {
  uint8_t *to = out;
  while (len_bytes > 0) {
    if (r->used == RNG_BATCH)
      batch_refill(r);
    size_t n = RNG_BATCH - r->used;
    if (n > len_bytes)
      n = len_bytes;
    memcpy(to, r->batch + r->used, n);
    memset(r->batch + r->used, 0, n);
    r->used += (uint32_t)n;
    to += n;
    len_bytes -= n;
  }
}

uint32_t rng_u32(struct rng *r) {
  uint32_t value;
  rng_fill(r, &value, sizeof value);
  return value;
}

uint64_t rng_u64(struct rng *r) {
  uint64_t value;
  rng_fill(r, &value, sizeof value);
  return value;
}

/* By multiplication, refusing the few values that would make some results likelier (Lemire 2019). */
uint32_t rng_below(struct rng *r, uint32_t n) {
  assert(n > 0);
  uint32_t unfair = -n % n;
  uint64_t product;
  do
    product = (uint64_t)rng_u32(r) * n;
  while ((uint32_t)product < unfair);
  return (uint32_t)(product >> 32);
}

uint64_t siphash24(const uint8_t key[16], const void *data, size_t len_bytes) {
  uint64_t k[2], v[4];
  memcpy(k, key, sizeof k);
  sip_init(v, k[0], k[1]);
  const uint8_t *at = data;
  for (size_t left = len_bytes; left >= 8; left -= 8, at += 8) {
    uint64_t word;
    memcpy(&word, at, 8);
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
  }
  uint64_t last = 0;
  if (len_bytes & 7)
    memcpy(&last, at, len_bytes & 7);
  last |= (uint64_t)len_bytes << 56;
  v[3] ^= last;
  sip_round(v);
  sip_round(v);
  v[0] ^= last;
  v[2] ^= 0xff;
  for (unsigned i = 0; i < 4; i++)
    sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}
