/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timing wheel of wheel.h. All lists are doubly linked by timer ids; the
 * first of a list names its list in `prev`, which is all that unlinking needs to
 * know about where a timer sits.
 */
#include "core/wheel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TICKS_MAX (UINT64_MAX >> WHEEL_TICK_SHIFT)

enum { TOP = WHEEL_LEVELS - 1, DIGIT_MASK = WHEEL_SLOTS - 1 };

static unsigned level_shift(unsigned level) {
  return 8 * level;
}

/* The first tick at which the deadline has passed. */
static uint64_t tick_of_deadline(uint64_t deadline_ns) {
  uint64_t fraction = deadline_ns & ((1ull << WHEEL_TICK_SHIFT) - 1);
  return (deadline_ns >> WHEEL_TICK_SHIFT) + (fraction != 0);
}

static uint64_t ns_of_tick(uint64_t tick) {
  return tick > TICKS_MAX ? UINT64_MAX : tick << WHEEL_TICK_SHIFT;
}

int wheel_init(struct wheel *w, uint32_t n, uint64_t now_ns) {
  if (n == 0 || n >= WHEEL_FIRST)
    return -EINVAL;
  memset(w, 0, sizeof *w);
  w->timers = malloc((size_t)n * sizeof *w->timers);
  if (w->timers == NULL)
    return -ENOMEM;
  for (uint32_t id = 0; id < n; id++)
    w->timers[id] = (struct wheel_timer){.next = WHEEL_NONE, .prev = WHEEL_NONE};
  memset(w->lists, 0xff, sizeof w->lists);
  w->n = n;
  w->tick = now_ns >> WHEEL_TICK_SHIFT;
  w->next_ns = UINT64_MAX;
  return 0;
}

void wheel_fini(struct wheel *w) {
  free(w->timers);
  memset(w, 0, sizeof *w);
}

static void list_push(struct wheel *w, uint32_t list, uint32_t id) {
  struct wheel_timer *t = &w->timers[id];
  uint32_t first = w->lists[list];
  t->next = first;
  t->prev = WHEEL_FIRST | list;
  if (first != WHEEL_NONE)
    w->timers[first].prev = id;
  w->lists[list] = id;
}

static void occupied_clear(struct wheel *w, uint32_t list) {
  if (list != WHEEL_DUE)
    w->occupied[list >> 8][list >> 6 & 3] &= ~(1ull << (list & 63));
}

static void timer_unlink(struct wheel *w, struct wheel_timer *t) {
  if (t->next != WHEEL_NONE)
    w->timers[t->next].prev = t->prev;
  if (t->prev & WHEEL_FIRST) {
    uint32_t list = t->prev & ~WHEEL_FIRST;
    w->lists[list] = t->next;
    if (t->next == WHEEL_NONE)
      occupied_clear(w, list);
  } else {
    w->timers[t->prev].next = t->next;
  }
  t->prev = WHEEL_NONE;
}

/* Puts an unlinked timer where it belongs by its deadline and the wheel's time. */
static void timer_place(struct wheel *w, uint32_t id) {
  uint64_t tick = tick_of_deadline(w->timers[id].deadline_ns);
  if (tick <= w->tick) {
    list_push(w, WHEEL_DUE, id);
    w->next_ns = 0;
    return;
  }
  unsigned level = (unsigned)(63 - __builtin_clzll(tick ^ w->tick)) / 8;
  if (level >= TOP) {
    level = TOP;
    uint64_t last = (w->tick >> level_shift(TOP)) + DIGIT_MASK;
    if (tick >> level_shift(TOP) > last)
      tick = last << level_shift(TOP);
  }
  uint64_t slot_number = tick >> level_shift(level);
  uint32_t slot = (uint32_t)slot_number & DIGIT_MASK;
  list_push(w, level << 8 | slot, id);
  w->occupied[level][slot >> 6] |= 1ull << (slot & 63);
  uint64_t due_ns = ns_of_tick(slot_number << level_shift(level));
  if (due_ns < w->next_ns)
    w->next_ns = due_ns;
}

void wheel_arm(struct wheel *w, uint32_t id, uint64_t deadline_ns) {
  assert(id < w->n);
  struct wheel_timer *t = &w->timers[id];
  if (t->prev != WHEEL_NONE) {
    bool later = deadline_ns >= t->deadline_ns;
    t->deadline_ns = deadline_ns;
    if (later)
      return;
    timer_unlink(w, t);
  }
  t->deadline_ns = deadline_ns;
  timer_place(w, id);
}

void wheel_cancel(struct wheel *w, uint32_t id) {
  assert(id < w->n);
  struct wheel_timer *t = &w->timers[id];
  if (t->prev != WHEEL_NONE)
    timer_unlink(w, t);
}

/* First occupied slot >= from of a level; WHEEL_SLOTS if none. */
static uint32_t slot_next(const struct wheel *w, unsigned level, uint32_t from) {
  if (from >= WHEEL_SLOTS)
    return WHEEL_SLOTS;
  uint32_t word = from >> 6;
  uint64_t bits = w->occupied[level][word] & ~0ull << (from & 63);
  while (bits == 0) {
    if (++word == WHEEL_SLOTS / 64)
      return WHEEL_SLOTS;
    bits = w->occupied[level][word];
  }
  return word << 6 | (uint32_t)__builtin_ctzll(bits);
}

/* The tick at which the next slot of any level comes up; UINT64_MAX: all are empty. */
static uint64_t next_slot_tick(const struct wheel *w) {
  uint64_t earliest = UINT64_MAX;
  for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
    uint64_t now = w->tick >> level_shift(level);
    uint32_t digit = (uint32_t)now & DIGIT_MASK;
    uint64_t block = now - digit;
    uint32_t slot = slot_next(w, level, digit + 1);
    if (slot == WHEEL_SLOTS && level == TOP) {
      block += WHEEL_SLOTS;
      slot = slot_next(w, level, 0);
    }
    if (slot == WHEEL_SLOTS)
      continue;
    uint64_t tick = (block + slot) << level_shift(level);
    if (tick < earliest)
      earliest = tick;
  }
  return earliest;
}

/* Empties the slot of a level that starts at the wheel's time into the levels below. */
static void slot_cascade(struct wheel *w, unsigned level) {
  uint32_t list = level << 8 | ((uint32_t)(w->tick >> level_shift(level)) & DIGIT_MASK);
  uint32_t id = w->lists[list];
  w->lists[list] = WHEEL_NONE;
  occupied_clear(w, list);
  while (id != WHEEL_NONE) {
    uint32_t next = w->timers[id].next;
    timer_place(w, id);
    id = next;
  }
}

unsigned wheel_advance(struct wheel *w, uint64_t now_ns, uint32_t *ids, unsigned max) {
  uint64_t now = now_ns >> WHEEL_TICK_SHIFT;
  unsigned n = 0;
  for (;;) {
    uint32_t id;
    while ((id = w->lists[WHEEL_DUE]) != WHEEL_NONE) {
      struct wheel_timer *t = &w->timers[id];
      bool pushed_back = tick_of_deadline(t->deadline_ns) > w->tick;
      if (!pushed_back && n == max)
        return n;
      timer_unlink(w, t);
      if (pushed_back)
        timer_place(w, id);
      else
        ids[n++] = id;
    }
    uint64_t tick = next_slot_tick(w);
    if (tick > now) {
      if (now > w->tick)
        w->tick = now;
      w->next_ns = ns_of_tick(tick);
      return n;
    }
    /* From the top: a slot's timers may belong into the slot that comes up one level below. */
    w->tick = tick;
    for (unsigned level = TOP + 1; level-- > 0;)
      if ((tick & ((1ull << level_shift(level)) - 1)) == 0)
        slot_cascade(w, level);
  }
}

uint64_t wheel_next(struct wheel *w) {
  w->next_ns = w->lists[WHEEL_DUE] != WHEEL_NONE ? 0 : ns_of_tick(next_slot_tick(w));
  return w->next_ns;
}
