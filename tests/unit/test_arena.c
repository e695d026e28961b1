/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a shard: frames, references, hugepages. */
#include "check.h"
#include "core/arena.h"
#include "core/hybrid.h"

#include <errno.h>

static void every_frame_can_be_had_once_and_comes_back(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 100, 2048, 0, HY_HUGEPAGES_NO), 0);
  assert_int_equal(arena.free_count, 100);
  bool seen[100] = {false};
  for (unsigned i = 0; i < 100; i++) {
    uint32_t index = frame_alloc(&arena);
    assert_true(index < 100 && !seen[index]);
    seen[index] = true;
    assert_int_equal(frame_meta(&arena, index)->off, FRAME_HEADROOM);
    memset(frame_base(&arena, index), (int)index, arena.frame_size);
    assert_int_equal(frame_of(&arena, frame_base(&arena, index) + 2047), index);
  }
  assert_int_equal(frame_alloc(&arena), FRAME_NONE);
  for (uint32_t i = 0; i < 100; i++) {
    assert_int_equal(*frame_data(&arena, i), i);
    frame_unref(&arena, i);
  }
  assert_int_equal(arena.free_count, 100);
  arena_fini(&arena);
}

static void a_frame_is_free_when_its_last_reference_is_dropped(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 2, 4096, 0, HY_HUGEPAGES_NO), 0);
  uint32_t index = frame_alloc(&arena);
  frame_ref(&arena, index);
  frame_unref(&arena, index);
  assert_int_equal(arena.free_count, 1);
  frame_unref(&arena, index);
  assert_int_equal(arena.free_count, 2);
  assert_int_equal(frame_alloc(&arena), index);
  arena_fini(&arena);
}

static void the_region_starts_on_a_hugepage_boundary_and_says_what_it_is(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 64, 2048, 0, HY_HUGEPAGES_TRY), 0);
  assert_int_equal((uintptr_t)arena.base % (2u << 20), 0);
  assert_true(arena.hugepages <= 1);
  assert_int_equal(arena.size_bytes % (2u << 20), 0);
  arena_fini(&arena);
}

/* More than any machine has reserved: 64 TiB. */
static void hugepages_that_must_be_had_and_cannot_are_an_error(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 1u << 31, 32768, 0, HY_HUGEPAGES_MUST), -EOPNOTSUPP);
}

static void sizes_out_of_range_are_refused(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 0, 2048, 0, HY_HUGEPAGES_NO), -EINVAL);
  assert_int_equal(arena_init(&arena, 10, 3000, 0, HY_HUGEPAGES_NO), -EINVAL);
  assert_int_equal(arena_init(&arena, 10, 128, 0, HY_HUGEPAGES_NO), -EINVAL);
  assert_int_equal(arena_init(&arena, 10, 65536, 0, HY_HUGEPAGES_NO), -EINVAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_frame_can_be_had_once_and_comes_back),
      cmocka_unit_test(a_frame_is_free_when_its_last_reference_is_dropped),
      cmocka_unit_test(the_region_starts_on_a_hugepage_boundary_and_says_what_it_is),
      cmocka_unit_test(hugepages_that_must_be_had_and_cannot_are_an_error),
      cmocka_unit_test(sizes_out_of_range_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
