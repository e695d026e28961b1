/* SPDX-License-Identifier: Apache-2.0 */
/* The rings shared with the kernel: this program plays the kernel's side. */
#include "check.h"

#include "afxdp/ring.h"

enum { SIZE = 8 };

/* A ring in our own memory, with the kernel's indices and view of it beside. */
struct fixture {
  uint32_t producer, consumer, flags;
  uint64_t slots[SIZE];
  struct ring ring;
};

static void fixture_start(struct fixture *f, uint32_t index) {
  *f = (struct fixture){.producer = index, .consumer = index};
  ring_init(&f->ring, &f->producer, &f->consumer, &f->flags, f->slots, SIZE);
}

static void a_new_ring_has_room_for_its_size_and_nothing_to_read(void **state) {
  struct fixture f;
  fixture_start(&f, 0);
  assert_int_equal(ring_reserve(&f.ring, SIZE + 1), SIZE);
  assert_int_equal(ring_peek(&f.ring, 1), 0);
  assert_false(ring_unconsumed(&f.ring));
}

static void the_kernel_sees_slots_only_once_submitted(void **state) {
  struct fixture f;
  fixture_start(&f, 0);
  assert_int_equal(ring_reserve(&f.ring, 3), 3);
  for (uint32_t i = 0; i < 3; i++)
    *ring_addr(&f.ring, f.ring.cached_prod + i) = 100 + i;
  assert_int_equal(f.producer, 0);
  ring_submit(&f.ring, 3);
  assert_int_equal(f.producer, 3);
  assert_int_equal(f.slots[2], 102);
}

static void a_full_ring_gives_no_room_until_the_kernel_consumes(void **state) {
  struct fixture f;
  fixture_start(&f, 0);
  ring_submit(&f.ring, ring_reserve(&f.ring, SIZE));
  assert_int_equal(ring_reserve(&f.ring, 1), 0);
  assert_true(ring_unconsumed(&f.ring));
  f.consumer += 5;
  assert_int_equal(ring_reserve(&f.ring, SIZE), 5);
  f.consumer += 3;
  assert_false(ring_unconsumed(&f.ring));
}

static void what_was_released_is_the_kernels_again(void **state) {
  struct fixture f;
  fixture_start(&f, 0);
  f.producer += SIZE;
  assert_int_equal(ring_peek(&f.ring, 3), 3);
  ring_release(&f.ring, 3);
  assert_int_equal(f.consumer, 3);
  assert_int_equal(ring_peek(&f.ring, SIZE), SIZE - 3);
}

static void a_ring_that_was_used_before_starts_where_it_stands(void **state) {
  struct fixture f;
  f = (struct fixture){.producer = 7, .consumer = 5};
  ring_init(&f.ring, &f.producer, &f.consumer, &f.flags, f.slots, SIZE);
  assert_int_equal(ring_peek(&f.ring, SIZE), 2);
}

static void the_wakeup_flag_is_the_kernels_to_set(void **state) {
  struct fixture f;
  fixture_start(&f, 0);
  assert_false(ring_needs_wakeup(&f.ring));
  f.flags = XDP_RING_NEED_WAKEUP;
  assert_true(ring_needs_wakeup(&f.ring));
}

/* Values come out in the order they went in, across the wrap of the slots and that of the 32-bit indices. */
static int produced_values_reach_the_kernel_in_order(uint64_t seed) {
  struct dice dice = {seed};
  struct fixture f;
  fixture_start(&f, UINT32_MAX - dice_below(&dice, 40));
  uint64_t in = 0, out = 0;
  for (int step = 0; step < 200; step++) {
    uint32_t want = dice_below(&dice, SIZE + 3);
    uint32_t n = ring_reserve(&f.ring, want);
    HOLDS(n <= want && in - out + n <= SIZE);
    HOLDS(n == want || in - out + n == SIZE);
    for (uint32_t i = 0; i < n; i++)
      *ring_addr(&f.ring, f.ring.cached_prod + i) = in++;
    ring_submit(&f.ring, n);
    for (uint32_t take = dice_below(&dice, SIZE + 1); take > 0 && f.consumer != f.producer; take--)
      HOLDS(f.slots[f.consumer++ % SIZE] == out++);
    HOLDS(ring_unconsumed(&f.ring) == (in != out));
  }
  return 0;
}

static int consumed_values_leave_the_kernel_in_order(uint64_t seed) {
  struct dice dice = {seed};
  struct fixture f;
  fixture_start(&f, UINT32_MAX - dice_below(&dice, 40));
  uint64_t in = 0, out = 0;
  for (int step = 0; step < 200; step++) {
    for (uint32_t give = dice_below(&dice, SIZE + 1); give > 0 && f.producer - f.consumer < SIZE; give--)
      f.slots[f.producer++ % SIZE] = in++;
    uint32_t want = dice_below(&dice, SIZE + 3);
    uint32_t n = ring_peek(&f.ring, want);
    HOLDS(n == (want < in - out ? want : in - out));
    for (uint32_t i = 0; i < n; i++)
      HOLDS(*ring_addr(&f.ring, f.ring.cached_cons + i) == out++);
    ring_release(&f.ring, n);
  }
  return 0;
}

static void produced_values_reach_the_kernel_in_order_across_wraps(void **state) {
  for_seeds(500, produced_values_reach_the_kernel_in_order);
}

static void consumed_values_leave_the_kernel_in_order_across_wraps(void **state) {
  for_seeds(500, consumed_values_leave_the_kernel_in_order);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_new_ring_has_room_for_its_size_and_nothing_to_read),
      cmocka_unit_test(the_kernel_sees_slots_only_once_submitted),
      cmocka_unit_test(a_full_ring_gives_no_room_until_the_kernel_consumes),
      cmocka_unit_test(what_was_released_is_the_kernels_again),
      cmocka_unit_test(a_ring_that_was_used_before_starts_where_it_stands),
      cmocka_unit_test(the_wakeup_flag_is_the_kernels_to_set),
      cmocka_unit_test(produced_values_reach_the_kernel_in_order_across_wraps),
      cmocka_unit_test(consumed_values_leave_the_kernel_in_order_across_wraps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
