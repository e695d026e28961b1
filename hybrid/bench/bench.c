/* SPDX-License-Identifier: Apache-2.0 */
/* The part that every benchmark program shares; see bench.h for the conversation. */
#include "bench/bench.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t bench_now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool bench_quiet(struct bench_idle *idle, uint64_t quiet_ns) {
  if (++idle->polls % 1024)
    return false;
  uint64_t now_ns = bench_now_ns();
  if (idle->polls == 1024)
    idle->since_ns = now_ns;
  return now_ns - idle->since_ns > quiet_ns;
}

void bench_pin(int core) {
  if (core < 0)
    return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((unsigned)core, &set);
  if (sched_setaffinity(0, sizeof set, &set) < 0)
    bench_fail("cannot run on core %d: %s", core, strerror(errno));
}

/* A number of at most BENCH_COUNT_MAX that ends with `end`; moves on behind it. Negative: it is none. */
static long read_count(char **at, char end) {
  char *behind;
  errno = 0;
  long value = strtol(*at, &behind, 10);
  if (errno || behind == *at || *behind != end || value > BENCH_COUNT_MAX)
    return -1;
  *at = behind + 1;
  return value;
}

int bench_next_round(struct bench_round *out) {
  char line[64];
  if (!fgets(line, sizeof line, stdin))
    return 0;
  char *at = line;
  long count = read_count(&at, ' '), warmup = count > 0 ? read_count(&at, '\n') : -1;
  if (count <= 0 || warmup < 0)
    bench_fail("expected \"COUNT WARMUP\" on standard input, each at most %d", BENCH_COUNT_MAX);
  *out = (struct bench_round){.count = (unsigned)count, .warmup = (unsigned)warmup};
  return 1;
}

void bench_ready(void) {
  puts("{\"ready\": true}");
  fflush(stdout);
}

uint32_t *bench_take(const struct bench_round *round, uint32_t (*sample)(void *context), void *context) {
  uint32_t *ns = calloc(round->count, sizeof *ns);
  if (!ns)
    bench_fail("no memory for %u samples", round->count);
  for (unsigned i = 0; i < round->warmup; i++)
    sample(context);
  for (unsigned i = 0; i < round->count; i++)
    ns[i] = sample(context);
  return ns;
}

void bench_answer_ns(uint32_t *ns, unsigned count) {
  putchar('{');
  bench_put_samples("ns", ns, count, 1);
  puts("}");
  fflush(stdout);
  free(ns);
}

void bench_put_samples(const char *name, const uint32_t *samples, unsigned count, unsigned divide_by) {
  printf("\"%s\": [", name);
  for (unsigned i = 0; i < count; i++)
    printf(divide_by > 1 ? "%s%.2f" : "%s%.0f", i ? "," : "", (double)samples[i] / divide_by);
  putchar(']');
}

unsigned bench_number(const char *option, const char *text, unsigned max) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno || end == text || *end || text[0] == '-' || value > max)
    bench_fail("%s takes a number of at most %u, not \"%s\"", option, max, text);
  return (unsigned)value;
}

void bench_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fflush(stdout);
  fputs(program_invocation_short_name, stderr);
  fputs(": ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(1);
}
