/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hierarchical timing wheel: one timer per id, 0..n-1, armed and cancelled in
 * constant time however many there are (Varghese and Lauck, SOSP 1987).
 *
 * Time is counted in ticks of 2^16 ns. Where a timer sits follows from the
 * highest digit (base 256) in which its tick differs from the wheel's time, so
 * every slot of a level lies ahead of the wheel's digit of that level:
 *
 *     level  slot is   level reaches
 *       0    66 us     17 ms           expires from here, exact to a tick
 *       1    17 ms     4.3 s           when the wheel gets to a slot's start, its
 *       2    4.3 s     18 min          timers move to the levels below
 *       3    18 min    78 h            a ring; what lies beyond waits in its last slot
 *
 * A bitmap per level says which slots hold anything, so time may jump by any
 * amount and costs only what is found on the way. A timer that is armed again
 * for later stays where it is and moves when its old slot comes up: for a
 * retransmission timer that every acknowledgement pushes back, that is one store.
 *
 * The wheel reads no clock. Time must not go back.
 */
#ifndef HYBRID_CORE_WHEEL_H
#define HYBRID_CORE_WHEEL_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

enum {
  WHEEL_TICK_SHIFT = 16,
  WHEEL_LEVELS = 4,
  WHEEL_SLOTS = 256,
  WHEEL_DUE = WHEEL_LEVELS * WHEEL_SLOTS, /* one list more: timers whose tick has come */
};

#define WHEEL_NONE UINT32_MAX
/* In a timer's prev: it is the first of the list in the low bits. */
#define WHEEL_FIRST 0x80000000u

struct wheel_timer {
  uint64_t deadline_ns;
  uint32_t next; /* WHEEL_NONE: last of its list */
  uint32_t prev; /* WHEEL_NONE: not armed; WHEEL_FIRST | list */
};
static_assert(sizeof(struct wheel_timer) == 16, "four timers per cache line");

struct wheel {
  uint64_t next_ns; /* nothing happens before: no expiry, no move between levels */
  uint64_t tick;    /* the wheel's time; never ahead of the caller's */
  struct wheel_timer *timers;
  uint32_t n;
  uint64_t occupied[WHEEL_LEVELS][WHEEL_SLOTS / 64];
  uint32_t lists[WHEEL_LEVELS * WHEEL_SLOTS + 1];
};

/* n is at most 2^31 - 1. -EINVAL, -ENOMEM. */
int wheel_init(struct wheel *w, uint32_t n, uint64_t now_ns);
void wheel_fini(struct wheel *w);

/* Sets the timer, whether armed or not. A deadline that has passed expires with the next wheel_expire(). */
void wheel_arm(struct wheel *w, uint32_t id, uint64_t deadline_ns);
/* Nothing happens if it isn't armed. */
void wheel_cancel(struct wheel *w, uint32_t id);

static inline bool wheel_armed(const struct wheel *w, uint32_t id) {
  assert(id < w->n);
  return w->timers[id].prev != WHEEL_NONE;
}

/* Of an armed timer: exactly what was asked for. */
static inline uint64_t wheel_deadline(const struct wheel *w, uint32_t id) {
  assert(wheel_armed(w, id));
  return w->timers[id].deadline_ns;
}

unsigned wheel_advance(struct wheel *w, uint64_t now_ns, uint32_t *ids, unsigned max);

/*
 * Takes up to max expired timers out and returns how many: none before its
 * deadline, each at the latest once now_ns has reached the end of the deadline's
 * tick. Where it returns max there may be more. Nothing due costs one compare.
 */
static inline unsigned wheel_expire(struct wheel *w, uint64_t now_ns, uint32_t *ids, unsigned max) {
  if (__builtin_expect(now_ns < w->next_ns, 1))
    return 0;
  return wheel_advance(w, now_ns, ids, max);
}

/*
 * When to call wheel_expire() next if nothing is armed meanwhile: never later
 * than the earliest deadline rounded up to its tick, perhaps earlier (a slot of a
 * coarse level is due at its start). UINT64_MAX: no timer is armed; 0: at once.
 */
uint64_t wheel_next(struct wheel *w);

#endif
