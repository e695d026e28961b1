/* SPDX-License-Identifier: Apache-2.0 */
/* The timing wheel against an array of deadlines, over tiny and huge steps of time. */
#include "check.h"
#include "core/wheel.h"

#include <errno.h>

#define TICK_NS (1ull << WHEEL_TICK_SHIFT)
#define HOUR_NS (3600ull * 1000 * 1000 * 1000)

static uint64_t rounded_up(uint64_t ns) {
  uint64_t tick = ns / TICK_NS + (ns % TICK_NS != 0);
  return tick > UINT64_MAX / TICK_NS ? UINT64_MAX : tick * TICK_NS;
}

static void a_timer_expires_within_the_tick_of_its_deadline_and_not_before(void **state) {
  struct wheel w;
  uint32_t id = 9;
  assert_int_equal(wheel_init(&w, 4, 1000), 0);
  wheel_arm(&w, 2, 5000000);
  assert_true(wheel_armed(&w, 2));
  assert_int_equal(wheel_deadline(&w, 2), 5000000);
  assert_int_equal(wheel_expire(&w, 4999999, &id, 1), 0);
  assert_int_equal(wheel_expire(&w, rounded_up(5000000), &id, 1), 1);
  assert_int_equal(id, 2);
  assert_false(wheel_armed(&w, 2));
  assert_int_equal(wheel_next(&w), UINT64_MAX);
  wheel_fini(&w);
}

static void a_deadline_in_the_past_expires_at_once(void **state) {
  struct wheel w;
  uint32_t id;
  assert_int_equal(wheel_init(&w, 1, 10 * TICK_NS), 0);
  wheel_arm(&w, 0, 3);
  assert_int_equal(wheel_next(&w), 0);
  assert_int_equal(wheel_expire(&w, 10 * TICK_NS, &id, 1), 1);
  wheel_fini(&w);
}

static void a_cancelled_timer_never_expires_and_cancelling_twice_is_harmless(void **state) {
  struct wheel w;
  uint32_t ids[2];
  assert_int_equal(wheel_init(&w, 2, 0), 0);
  wheel_arm(&w, 0, HOUR_NS);
  wheel_arm(&w, 1, HOUR_NS);
  wheel_cancel(&w, 0);
  wheel_cancel(&w, 0);
  assert_int_equal(wheel_expire(&w, 2 * HOUR_NS, ids, 2), 1);
  assert_int_equal(ids[0], 1);
  wheel_fini(&w);
}

static void a_timer_pushed_back_again_and_again_expires_at_the_last_deadline(void **state) {
  struct wheel w;
  uint32_t id;
  assert_int_equal(wheel_init(&w, 1, 0), 0);
  uint64_t now = 0;
  for (; now < 10000 * TICK_NS; now += 3 * TICK_NS) {
    wheel_arm(&w, 0, now + 100 * TICK_NS);
    assert_int_equal(wheel_expire(&w, now, &id, 1), 0);
  }
  uint64_t deadline = wheel_deadline(&w, 0);
  assert_int_equal(wheel_expire(&w, deadline - 1, &id, 1), 0);
  assert_int_equal(wheel_expire(&w, deadline, &id, 1), 1);
  wheel_fini(&w);
}

static void what_lies_beyond_the_last_level_is_not_lost(void **state) {
  struct wheel w;
  uint32_t id;
  assert_int_equal(wheel_init(&w, 2, 123456789), 0);
  uint64_t deadline = 1000 * HOUR_NS;
  wheel_arm(&w, 0, deadline);
  unsigned calls = 0;
  uint64_t now = 0;
  for (; wheel_expire(&w, now, &id, 1) == 0; calls++) {
    assert_true(calls < 100);
    assert_true(wheel_next(&w) > now);
    now = wheel_next(&w);
  }
  assert_int_equal(now, rounded_up(deadline));
  wheel_fini(&w);
}

static void a_deadline_at_the_end_of_time_never_comes(void **state) {
  struct wheel w;
  uint32_t id;
  assert_int_equal(wheel_init(&w, 1, UINT64_MAX - HOUR_NS), 0);
  wheel_arm(&w, 0, UINT64_MAX);
  assert_int_equal(wheel_expire(&w, UINT64_MAX - 1, &id, 1), 0);
  wheel_cancel(&w, 0);
  assert_int_equal(wheel_next(&w), UINT64_MAX);
  wheel_fini(&w);
}

static void sizes_out_of_range_are_refused(void **state) {
  struct wheel w;
  assert_int_equal(wheel_init(&w, 0, 0), -EINVAL);
  assert_int_equal(wheel_init(&w, UINT32_MAX, 0), -EINVAL);
}

/* ---- properties ---- */

enum { TIMERS = 40 };

/* A length of time of any magnitude: below a tick up to far beyond the span of the wheel. */
static uint64_t some_time(struct dice *dice) {
  unsigned bits = dice_below(dice, 56);
  uint64_t ns = dice_u64(dice) & ((1ull << bits) - 1);
  return dice_below(dice, 3) == 0 ? ns & ~(TICK_NS - 1) : ns;
}

static int agrees_with_an_array_of_deadlines(uint64_t seed) {
  struct dice dice = {seed};
  struct wheel w;
  bool armed[TIMERS] = {false};
  uint64_t deadline[TIMERS];
  uint64_t now = some_time(&dice);
  HOLDS(wheel_init(&w, TIMERS, now) == 0);
  for (int step = 0; step < 400; step++) {
    uint32_t id = dice_below(&dice, TIMERS);
    switch (dice_below(&dice, 6)) {
    case 0:
      wheel_cancel(&w, id);
      armed[id] = false;
      break;
    case 1:
    case 2:
    case 3: {
      uint64_t away = some_time(&dice);
      deadline[id] = dice_below(&dice, 10) == 0 && away < now ? now - away : now + away;
      armed[id] = true;
      wheel_arm(&w, id, deadline[id]);
      HOLDS(wheel_deadline(&w, id) == deadline[id]);
      break;
    }
    default: {
      uint64_t next = wheel_next(&w);
      now = dice_below(&dice, 2) && next > now && next != UINT64_MAX ? next : now + some_time(&dice);
      uint32_t ids[TIMERS];
      unsigned max = 1 + dice_below(&dice, TIMERS);
      unsigned n;
      do {
        n = wheel_expire(&w, now, ids, max);
        HOLDS(n <= max);
        for (unsigned i = 0; i < n; i++) {
          HOLDS(armed[ids[i]] && deadline[ids[i]] <= now);
          armed[ids[i]] = false;
        }
      } while (n == max);
      for (uint32_t i = 0; i < TIMERS; i++)
        HOLDS(!armed[i] || rounded_up(deadline[i]) > now);
    }
    }
    uint64_t earliest = UINT64_MAX;
    for (uint32_t i = 0; i < TIMERS; i++) {
      HOLDS(wheel_armed(&w, i) == armed[i]);
      if (armed[i] && rounded_up(deadline[i]) < earliest)
        earliest = rounded_up(deadline[i]);
    }
    HOLDS(wheel_next(&w) <= earliest);
    HOLDS(earliest != UINT64_MAX || wheel_next(&w) == UINT64_MAX);
  }
  wheel_fini(&w);
  return 0;
}

static void property_agrees_with_an_array_of_deadlines(void **state) {
  for_seeds(3000, agrees_with_an_array_of_deadlines);
}

/* An idle shard sleeps until wheel_next(): that must make progress, and few wake-ups per timer. */
static int sleeping_until_next_finds_every_timer_in_its_tick(uint64_t seed) {
  struct dice dice = {seed};
  struct wheel w;
  uint64_t now = some_time(&dice) / 16;
  HOLDS(wheel_init(&w, TIMERS, now) == 0);
  uint64_t deadline[TIMERS];
  for (uint32_t i = 0; i < TIMERS; i++) {
    deadline[i] = now + some_time(&dice) % (70 * HOUR_NS);
    wheel_arm(&w, i, deadline[i]);
  }
  unsigned wakes = 0, expired = 0;
  while (wheel_next(&w) != UINT64_MAX) {
    uint64_t next = wheel_next(&w);
    HOLDS(next == 0 || next > now);
    now = next > now ? next : now;
    uint32_t ids[TIMERS];
    unsigned n = wheel_expire(&w, now, ids, TIMERS);
    for (unsigned i = 0; i < n; i++)
      HOLDS(deadline[ids[i]] <= now && now - deadline[ids[i]] < TICK_NS);
    expired += n;
    HOLDS(++wakes <= TIMERS * WHEEL_LEVELS + 1);
  }
  HOLDS(expired == TIMERS);
  wheel_fini(&w);
  return 0;
}

static void property_sleeping_until_next_finds_every_timer_in_its_tick(void **state) {
  for_seeds(1000, sleeping_until_next_finds_every_timer_in_its_tick);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_timer_expires_within_the_tick_of_its_deadline_and_not_before),
      cmocka_unit_test(a_deadline_in_the_past_expires_at_once),
      cmocka_unit_test(a_cancelled_timer_never_expires_and_cancelling_twice_is_harmless),
      cmocka_unit_test(a_timer_pushed_back_again_and_again_expires_at_the_last_deadline),
      cmocka_unit_test(what_lies_beyond_the_last_level_is_not_lost),
      cmocka_unit_test(a_deadline_at_the_end_of_time_never_comes),
      cmocka_unit_test(sizes_out_of_range_are_refused),
      cmocka_unit_test(property_agrees_with_an_array_of_deadlines),
      cmocka_unit_test(property_sleeping_until_next_finds_every_timer_in_its_tick),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
