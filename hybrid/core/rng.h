/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpredictable numbers for what must not be guessed (initial sequence numbers,
 * ephemeral ports, hash keys), without a system call and, from a given seed,
 * always the same.
 *
 * The generator is ChaCha20 (RFC 8439) run over zeroes in batches; the first 32
 * bytes of each batch become the next key and what has been handed out is wiped,
 * so that its state tells nothing of earlier output.
 *
 * SipHash (Aumasson and Bernstein, Indocrypt 2012) is the keyed hash: 2-4 where
 * the result is shown to others, 1-3 for the flow table, where only collisions matter.
 */
#ifndef HYBRID_CORE_RNG_H
#define HYBRID_CORE_RNG_H

#include <stddef.h>
#include <stdint.h>

enum { RNG_BATCH = 512 };

struct rng {
  uint8_t key[32];
  uint32_t used; /* of batch; RNG_BATCH: all of it */
  uint8_t batch[RNG_BATCH];
};

void rng_init(struct rng *r, const uint8_t seed[32]);
uint32_t rng_u32(struct rng *r);
uint64_t rng_u64(struct rng *r);
void rng_fill(struct rng *r, void *out, size_t len_bytes);
/* Uniform in 0..n-1; n > 0. */
uint32_t rng_below(struct rng *r, uint32_t n);

/* One block of key stream, RFC 8439 section 2.3. */
void chacha20_block(const uint8_t key[32], uint32_t counter, const uint8_t nonce[12], uint8_t out[64]);

uint64_t siphash24(const uint8_t key[16], const void *data, size_t len_bytes);

static inline uint64_t sip_rotl(uint64_t x, unsigned bits) {
  return x << bits | x >> (64 - bits);
}

static inline void sip_round(uint64_t v[4]) {
  v[0] += v[1];
  v[2] += v[3];
  v[1] = sip_rotl(v[1], 13) ^ v[0];
  v[3] = sip_rotl(v[3], 16) ^ v[2];
  v[0] = sip_rotl(v[0], 32);
  v[2] += v[1];
  v[0] += v[3];
  v[1] = sip_rotl(v[1], 17) ^ v[2];
  v[3] = sip_rotl(v[3], 21) ^ v[0];
  v[2] = sip_rotl(v[2], 32);
}

static inline void sip_init(uint64_t v[4], uint64_t k0, uint64_t k1) {
  v[0] = k0 ^ 0x736f6d6570736575u;
  v[1] = k1 ^ 0x646f72616e646f6du;
  v[2] = k0 ^ 0x6c7967656e657261u;
  v[3] = k1 ^ 0x7465646279746573u;
}

/* SipHash-1-3 of a flow: exactly 40 bytes, given as five little-endian words. */
static inline uint64_t flow_siphash(const uint64_t key[2], const uint64_t words[5]) {
  uint64_t v[4];
  sip_init(v, key[0], key[1]);
  for (unsigned i = 0; i < 5; i++) {
    v[3] ^= words[i];
    sip_round(v);
    v[0] ^= words[i];
  }
  /* The last block of the standard holds the bytes left over, none here, and the length. */
  const uint64_t last = 40ull << 56;
  v[3] ^= last;
  sip_round(v);
  v[0] ^= last;
  v[2] ^= 0xff;
  for (unsigned i = 0; i < 3; i++)
    sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/*
 * A cheaper keyed hash of the same five words, for the flow table's lookup of
 * every frame: NH of UMAC (RFC 4418 section 5.2.2) on words of 64 bits, three
 * multiplications in all. Two different flows collide in its 128 bits with
 * probability 2^-64 over the choice of key, whoever chose the flows; the last
 * multiplication spreads that over every bit of the result. Not for values that
 * anybody outside sees.
 */
static inline uint64_t flow_hash(const uint64_t key[6], const uint64_t words[5]) {
  unsigned __int128 sum = (unsigned __int128)(words[0] + key[0]) * (words[1] + key[1]);
  sum += (unsigned __int128)(words[2] + key[2]) * (words[3] + key[3]);
  sum += (unsigned __int128)(words[4] + key[4]) * key[5];
  unsigned __int128 spread = (unsigned __int128)((uint64_t)sum ^ (uint64_t)(sum >> 64)) * 0x9e3779b97f4a7c15u;
  return (uint64_t)spread ^ (uint64_t)(spread >> 64);
}

#endif
