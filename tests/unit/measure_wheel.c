/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a timer costs with few and with many armed: arm + cancel of a random
 * timer (the budget is 20 ns, flat to 300,000), pushing one back, and the check
 * that finds nothing due.
 */
#include "core/wheel.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 2000000, ORDER = 1 << 16 };

static uint64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(void) {
  static uint32_t order[ORDER];
  static uint64_t away[ORDER];
  printf("%10s %14s %14s %14s\n", "timers", "arm+cancel ns", "push back ns", "nothing due ns");
  static const uint32_t sizes[] = {64, 1024, 16384, 65536, 300000};
  for (unsigned size = 0; size < sizeof sizes / sizeof *sizes; size++) {
    uint32_t n = sizes[size];
    struct wheel w;
    if (wheel_init(&w, 2 * n, 0) != 0)
      return 1;
    uint64_t state = n;
    for (uint32_t i = 0; i < ORDER; i++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      order[i] = (uint32_t)(state >> 33) % n;
      away[i] = 200000000 + (state >> 20) % 60000000000u; /* 0.2 s to 60 s, as TCP's are */
    }
    for (uint32_t i = 0; i < n; i++)
      wheel_arm(&w, i, away[i % ORDER]);

    /* The upper half is idle: each round arms one of those beside the n and cancels it. */
    uint64_t start = clock_ns();
    for (uint32_t r = 0; r < ROUNDS; r++) {
      wheel_arm(&w, n + order[r % ORDER], away[r % ORDER]);
      wheel_cancel(&w, n + order[r % ORDER]);
    }
    uint64_t cancelled = clock_ns();
    for (uint32_t r = 0; r < ROUNDS; r++)
      wheel_arm(&w, order[r % ORDER], 61000000000u + r);
    uint64_t pushed = clock_ns();
    unsigned expired = 0;
    for (uint32_t r = 0; r < ROUNDS; r++) {
      uint32_t id;
      expired += wheel_expire(&w, r, &id, 1);
      __asm__ volatile("" ::: "memory");
    }
    uint64_t checked = clock_ns();
    printf("%10u %14.1f %14.1f %14.2f\n", n, (double)(cancelled - start) / ROUNDS,
           (double)(pushed - cancelled) / ROUNDS, (double)(checked - pushed) / ROUNDS);
    wheel_fini(&w);
    if (expired != 0)
      return 1;
  }
  return 0;
}
