/* SPDX-License-Identifier: Apache-2.0 */
/* The ready set against an array of flags. */
#include "check.h"
#include "core/readyset.h"

static void an_empty_set_has_no_next(void **state) {
  struct readyset rs;
  assert_int_equal(readyset_init(&rs, 65536), 0);
  assert_true(readyset_empty(&rs));
  assert_int_equal(readyset_next(&rs, 0), UINT32_MAX);
  assert_int_equal(readyset_next(&rs, 65535), UINT32_MAX);
  readyset_fini(&rs);
}

static void sizes_out_of_range_are_refused(void **state) {
  struct readyset rs;
  assert_int_equal(readyset_init(&rs, 0), -EINVAL);
  assert_int_equal(readyset_init(&rs, READYSET_BITS_MAX + 1), -EINVAL);
}

static void next_wraps_round_and_takes_a_start_behind_the_end(void **state) {
  struct readyset rs;
  assert_int_equal(readyset_init(&rs, 100), 0);
  readyset_set(&rs, 7);
  assert_int_equal(readyset_next(&rs, 7), 7);
  assert_int_equal(readyset_next(&rs, 8), 7);
  assert_int_equal(readyset_next(&rs, 100), 7);
  readyset_set(&rs, 99);
  assert_int_equal(readyset_next(&rs, 8), 99);
  readyset_fini(&rs);
}

/* Sizes around every word boundary, densities from one bit to many, clears included. */
static int agrees_with_an_array_of_flags(uint64_t seed) {
  static const uint32_t sizes[] = {1, 63, 64, 65, 4095, 4096, 4097, 65536, READYSET_BITS_MAX};
  static uint8_t flags[READYSET_BITS_MAX];
  struct dice dice = {seed};
  struct readyset rs;
  uint32_t bits = sizes[seed % (sizeof sizes / sizeof *sizes)];
  memset(flags, 0, bits);
  HOLDS(readyset_init(&rs, bits) == 0);
  uint32_t members = 0;
  uint32_t range = dice_below(&dice, 4) == 0 && bits > 300 ? 300 : bits;
  for (int step = 0; step < 300; step++) {
    uint32_t i = dice_below(&dice, range);
    if (dice_below(&dice, 5) < 2) {
      members -= flags[i];
      flags[i] = 0;
      readyset_clear(&rs, i);
    } else {
      members += flags[i] == 0;
      flags[i] = 1;
      readyset_set(&rs, i);
    }
    HOLDS(readyset_test(&rs, i) == (flags[i] != 0));
    HOLDS(readyset_empty(&rs) == (members == 0));
    uint32_t from = dice_below(&dice, bits + 2);
    uint32_t want = UINT32_MAX;
    for (uint32_t k = 0; k < bits && members > 0; k++) {
      uint32_t at = (from >= bits ? k : (from + k) % bits);
      if (flags[at]) {
        want = at;
        break;
      }
    }
    HOLDS(readyset_next(&rs, from) == want);
  }
  readyset_fini(&rs);
  return 0;
}

static void property_agrees_with_an_array_of_flags(void **state) {
  for_seeds(90, agrees_with_an_array_of_flags);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_empty_set_has_no_next),
      cmocka_unit_test(sizes_out_of_range_are_refused),
      cmocka_unit_test(next_wraps_round_and_takes_a_start_behind_the_end),
      cmocka_unit_test(property_agrees_with_an_array_of_flags),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
