/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of small numbers that finds its next member in constant time: which
 * tasks are ready, which tokens have completed, which connections want to send.
 *
 *     l2      one word        bit k: l1[k] is not zero
 *     l1      64 words        bit k of word w: l0[64 w + k] is not zero
 *     l0      4096 words      bit k of word w: 64 w + k is a member
 *
 * A member that isn't there costs nothing to skip: a search looks at no more
 * than five words, whatever the size. Setting a bit whose word already holds
 * another touches that word alone.
 */
#ifndef HYBRID_CORE_READYSET_H
#define HYBRID_CORE_READYSET_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define READYSET_BITS_MAX (1u << 18)

struct readyset {
  uint64_t *l0, *l1;
  uint64_t l2;
  uint32_t bits;
};

/* An empty set over 0..bits-1; bits is 1..READYSET_BITS_MAX. -EINVAL, -ENOMEM. */
static inline int readyset_init(struct readyset *rs, uint32_t bits) {
  *rs = (struct readyset){0};
  if (bits == 0 || bits > READYSET_BITS_MAX)
    return -EINVAL;
  uint32_t n0 = (bits + 63) / 64;
  uint32_t n1 = (n0 + 63) / 64;
  rs->l0 = calloc((size_t)n0 + n1, sizeof *rs->l0);
  if (rs->l0 == NULL)
    return -ENOMEM;
  rs->l1 = rs->l0 + n0;
  rs->bits = bits;
  return 0;
}

static inline void readyset_fini(struct readyset *rs) {
  free(rs->l0);
  *rs = (struct readyset){0};
}

static inline void readyset_set(struct readyset *rs, uint32_t i) {
  assert(i < rs->bits);
  uint64_t *word = &rs->l0[i >> 6];
  uint64_t before = *word;
  *word = before | 1ull << (i & 63);
  if (before == 0) {
    rs->l1[i >> 12] |= 1ull << (i >> 6 & 63);
    rs->l2 |= 1ull << (i >> 12);
  }
}

static inline void readyset_clear(struct readyset *rs, uint32_t i) {
  assert(i < rs->bits);
  uint64_t left = rs->l0[i >> 6] & ~(1ull << (i & 63));
  rs->l0[i >> 6] = left;
  if (left != 0)
    return;
  left = rs->l1[i >> 12] & ~(1ull << (i >> 6 & 63));
  rs->l1[i >> 12] = left;
  if (left == 0)
    rs->l2 &= ~(1ull << (i >> 12));
}

static inline bool readyset_test(const struct readyset *rs, uint32_t i) {
  assert(i < rs->bits);
  return rs->l0[i >> 6] >> (i & 63) & 1;
}

static inline bool readyset_empty(const struct readyset *rs) {
  return rs->l2 == 0;
}

/* First member >= from, UINT32_MAX if there is none. */
static inline uint32_t readyset_at_or_after(const struct readyset *rs, uint32_t from) {
  if (from >= rs->bits)
    return UINT32_MAX;
  uint32_t w0 = from >> 6;
  uint64_t word = rs->l0[w0] & ~0ull << (from & 63);
  if (word == 0) {
    /* The words after w0 under the same summary word; a shift by one and then by 63 at most is defined. */
    uint32_t w1 = w0 >> 6;
    uint64_t sum = rs->l1[w1] & ~1ull << (w0 & 63);
    if (sum == 0) {
      uint64_t top = rs->l2 & ~1ull << w1;
      if (top == 0)
        return UINT32_MAX;
      w1 = (uint32_t)__builtin_ctzll(top);
      sum = rs->l1[w1];
    }
    w0 = w1 << 6 | (uint32_t)__builtin_ctzll(sum);
    word = rs->l0[w0];
  }
  return w0 << 6 | (uint32_t)__builtin_ctzll(word);
}

/* First member >= from, going on at 0 behind the last; UINT32_MAX if the set is empty. */
static inline uint32_t readyset_next(const struct readyset *rs, uint32_t from) {
  uint32_t found = readyset_at_or_after(rs, from);
  if (found == UINT32_MAX && rs->l2 != 0)
    found = readyset_at_or_after(rs, 0);
  return found;
}

#endif
