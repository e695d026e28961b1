/* SPDX-License-Identifier: Apache-2.0 */
/* The key-value server's region allocator. */
#include "check.h"

#include "memory.h"

enum { MIB = 1 << 20 };

static void a_block_holds_what_was_asked_for(void **state) {
  struct memory m;
  assert_int_equal(memory_init(&m, MIB, 3 * MIB), 0);
  for (size_t size = 0; size <= MEMORY_BLOCK_MAX; size += size < 5000 ? 1 : 4999) {
    void *block = memory_alloc(&m, size, MEMORY_TRANSIT);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 16, 0);
    assert_true(memory_block_bytes(&m, block) >= size);
    assert_true(memory_block_bytes(&m, block) <= size + size / 4 + MEMORY_PAGE);
    memory_free(&m, block);
  }
  assert_null(memory_alloc(&m, MEMORY_BLOCK_MAX + 1, MEMORY_TRANSIT));
  memory_fini(&m);
}

static void what_is_stored_cannot_take_the_reserve(void **state) {
  struct memory m;
  assert_int_equal(memory_init(&m, MIB, MIB), 0);
  unsigned stored = 0;
  while (memory_alloc(&m, 3 * MEMORY_PAGE, MEMORY_STORE) != NULL)
    stored++;
  assert_in_range(stored, MIB / (3 * MEMORY_PAGE) - 2, MIB / (3 * MEMORY_PAGE));
  assert_null(memory_alloc(&m, 3 * MEMORY_PAGE, MEMORY_STORE));
  assert_non_null(memory_alloc(&m, 3 * MEMORY_PAGE, MEMORY_TRANSIT));
  memory_fini(&m);
}

static void memory_of_small_blocks_serves_large_ones_once_freed(void **state) {
  struct memory m;
  static void *blocks[4 * MIB / 64];
  assert_int_equal(memory_init(&m, 2 * MIB, 0), 0);
  unsigned n = 0;
  while ((blocks[n] = memory_alloc(&m, 64, MEMORY_STORE)) != NULL)
    n++;
  assert_int_equal(n, 2 * MIB / 64);
  for (unsigned i = 0; i < n; i++)
    memory_free(&m, blocks[i]);
  /* One slab stays with its class. */
  assert_true(memory_used_bytes(&m) <= MEMORY_SLAB_PAGES * MEMORY_PAGE);
  assert_non_null(memory_alloc(&m, MIB, MEMORY_STORE));
  memory_fini(&m);
}

/* Random use: blocks never overlap, and in the end every page comes back. */
static int blocks_are_whose_they_are(uint64_t seed) {
  enum { HELD = 300 };
  struct dice d = {seed};
  struct memory m;
  struct {
    uint8_t *block;
    size_t size;
    uint8_t mark;
  } held[HELD] = {0};
  HOLDS(memory_init(&m, 8 * MIB + 12345, MIB) == 0);
  for (int i = 0; i < 6000; i++) {
    unsigned which = dice_below(&d, HELD);
    if (held[which].block != NULL) {
      for (size_t at = 0; at < held[which].size; at++)
        HOLDS(held[which].block[at] == held[which].mark);
      memory_free(&m, held[which].block);
      held[which].block = NULL;
    } else {
      size_t size = 1 + dice_below(&d, 1u << (3 + dice_below(&d, 15)));
      uint8_t *block = memory_alloc(&m, size, dice_below(&d, 2) ? MEMORY_STORE : MEMORY_TRANSIT);
      if (block == NULL)
        continue;
      held[which].block = block;
      held[which].size = size;
      held[which].mark = (uint8_t)dice_u64(&d);
      memset(block, held[which].mark, size);
    }
  }
  for (unsigned i = 0; i < HELD; i++)
    if (held[i].block != NULL)
      memory_free(&m, held[i].block);
  HOLDS(memory_used_bytes(&m) <= (size_t)MEMORY_CLASSES * MEMORY_SLAB_PAGES * MEMORY_PAGE);
  memory_fini(&m);
  return 0;
}

static void random_use_never_overlaps_and_gives_everything_back(void **state) {
  for_seeds(30, blocks_are_whose_they_are);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_block_holds_what_was_asked_for),
      cmocka_unit_test(what_is_stored_cannot_take_the_reserve),
      cmocka_unit_test(memory_of_small_blocks_serves_large_ones_once_freed),
      cmocka_unit_test(random_use_never_overlaps_and_gives_everything_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
