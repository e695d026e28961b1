/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark programs share: a clock, pinning to a core, and the
 * conversation with `hybrid bench`, which starts one long-lived program per
 * subject and lets them work in turns:
 *
 *     hybrid bench                         program
 *                             <-  {"ready": true}
 *     COUNT WARMUP            ->
 *                             <-  {"ns": [...], ...}    one line per round
 *     end of input            ->  exits
 *
 * A program that waits for its turn sleeps in read(2), so that the subject whose
 * turn it is has its cores to itself.
 */
#ifndef HYBRID_BENCH_BENCH_H
#define HYBRID_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

enum { BENCH_COUNT_MAX = 10 * 1000 * 1000 };

struct bench_round {
  unsigned count;  /* samples to take */
  unsigned warmup; /* samples to throw away first */
};

/* CLOCK_MONOTONIC: the vDSO reads the processor's counter, about 20 ns here and the same for every subject.
 */
uint64_t bench_now_ns(void);

/* A program that polls: how often it has found nothing, and since when. Zero it where something came. */
struct bench_idle {
  unsigned polls;
  uint64_t since_ns;
};
/* After a poll that found nothing: whether it has been quiet for so long. Every 1024th looks at the clock. */
bool bench_quiet(struct bench_idle *idle, uint64_t quiet_ns);

/* Keeps this thread, and those that it starts, on one core. -1 leaves them where they are. */
void bench_pin(int core);

/* The next order from standard input: 1, or 0 at its end. Anything malformed ends the program. */
int bench_next_round(struct bench_round *out);

/* Tells the driver that rounds may begin. */
void bench_ready(void);

/* Calls `sample` for the warm-up and then once for each sample, in ns; for bench_answer_ns. */
uint32_t *bench_take(const struct bench_round *round, uint32_t (*sample)(void *context), void *context);
/* The whole answer of a program that has nothing but these to tell: {"ns": [...]}. Frees them. */
void bench_answer_ns(uint32_t *ns, unsigned count);

/* A member of the answer: "name": [a, b, ...]. */
void bench_put_samples(const char *name, const uint32_t *samples, unsigned count, unsigned divide_by);

/* A positive number from the command line; ends the program with a sentence otherwise. */
unsigned bench_number(const char *option, const char *text, unsigned max);

/* One sentence on standard error, exit code 1. */
__attribute__((noreturn, format(printf, 1, 2))) void bench_fail(const char *format, ...);

#endif
