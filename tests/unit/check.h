/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every unit test includes: cmocka with the headers that it wants before
 * it, and a small deterministic generator for property tests. A property test
 * runs a range of seeds; HYBRID_SEED=n runs that one alone, to replay a failure, and HYBRID_SEEDS=n the first
 * n.
 */
#ifndef HYBRID_TESTS_CHECK_H
#define HYBRID_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* splitmix64: each seed gives an unrelated sequence, seed 0 included. */
struct dice {
  uint64_t state;
};

static inline uint64_t dice_u64(struct dice *d) {
  uint64_t z = (d->state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static inline uint32_t dice_below(struct dice *d, uint32_t n) {
  return (uint32_t)(dice_u64(d) % n);
}

/* Calls the property with each seed, and says which one it was before cmocka takes over. */
static inline void for_seeds(uint64_t count, int (*property)(uint64_t seed)) {
  const char *only = getenv("HYBRID_SEED");
  const char *more = getenv("HYBRID_SEEDS");
  uint64_t first = only ? strtoull(only, NULL, 0) : 0;
  uint64_t last = only ? first + 1 : more ? strtoull(more, NULL, 0) : count;
  for (uint64_t seed = first; seed < last; seed++) {
    int failed_line = property(seed);
    if (failed_line != 0)
      fail_msg("line %d, replay with HYBRID_SEED=%llu", failed_line, (unsigned long long)seed);
  }
}

/* HYBRID_TEST=pattern (with * and ?) runs only the tests whose names match. */
static inline void choose_tests(void) {
  if (getenv("HYBRID_TEST") != NULL)
    cmocka_set_test_filter(getenv("HYBRID_TEST"));
}

/* Inside a property: gives for_seeds() the line that does not hold. */
#define HOLDS(condition)                                                                                     \
  do {                                                                                                       \
    if (!(condition))                                                                                        \
      return __LINE__;                                                                                       \
  } while (0)

#endif
