/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stack benchmark's loop, the same for every subject (see stack.h):
 *
 *     craft 64 frames, load them | t0 | empty loop | t1 | run | t2 | check
 *
 * --echo      the application sends each 64 bytes back (else it frees them)
 * --burst N   frames per burst, each on a connection of its own
 * --core N    where to run
 * --ops N     no conversation: runs N segments and ends, for callgrind
 * --spoil     turns over a bit of every payload: a stack that verifies checksums reads none of them
 */
#include "bench/bench.h"
#include "bench/stack.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct bench {
  struct peer peer;
  bool echo;
  bool spoil;
  unsigned burst;
};

static void handshake(struct bench *bench) {
  uint8_t frame[PEER_FRAME_MAX];
  const struct stack_subject *s = &stack_subject;
  s->lock();
  s->load(0, frame, peer_arp_request(frame));
  s->settle(1);
  for (unsigned i = 0; i < bench->peer.nconns; i++) {
    s->load(0, frame, peer_syn(&bench->peer, i, frame));
    s->settle(1);
    if (!bench->peer.conns[i].established)
      bench_fail("%s answered the SYN of connection %u with no SYN-ACK", s->name, i);
    s->load(0, frame, peer_ack(&bench->peer, i, frame));
    s->settle(1);
  }
  s->unlock();
}

/* Named and kept out of line: `hybrid bench stack --instructions` has callgrind count inside these two only.
 */
__attribute__((noinline)) void stack_timed_run(unsigned burst);
__attribute__((noinline)) void stack_timed_empty(unsigned burst);

void stack_timed_run(unsigned burst) {
  stack_subject.run(STACK_BATCH, burst);
}

void stack_timed_empty(unsigned burst) {
  stack_subject.empty(STACK_BATCH, burst);
}

/* One batch; nanoseconds of the run and of the empty loop. */
static void batch(struct bench *bench, uint32_t *run_ns, uint32_t *empty_ns) {
  uint8_t frame[PEER_FRAME_MAX];
  const struct stack_subject *s = &stack_subject;
  s->lock();
  for (unsigned i = 0; i < STACK_BATCH; i++) {
    size_t len = peer_data(&bench->peer, i % bench->peer.nconns, bench->echo, frame);
    frame[len - 1] ^= bench->spoil;
    s->load(i, frame, len);
  }
  uint64_t app_before = s->app_bytes();
  bench->peer.timed = true;
  bench->peer.out_frames = bench->peer.out_bytes = 0;

  uint64_t t0 = bench_now_ns();
  stack_timed_empty(bench->burst);
  uint64_t t1 = bench_now_ns();
  stack_timed_run(bench->burst);
  uint64_t t2 = bench_now_ns();

  bench->peer.timed = false;
  s->unlock();
  *empty_ns = (uint32_t)(t1 - t0);
  *run_ns = (uint32_t)(t2 - t1);
  uint64_t read = s->app_bytes() - app_before;
  if (read != (uint64_t)STACK_BATCH * PEER_PAYLOAD)
    bench_fail("the application over %s read %" PRIu64 " bytes of %d", s->name, read,
               STACK_BATCH * PEER_PAYLOAD);
  uint64_t payload = bench->peer.out_bytes - bench->peer.out_frames * PEER_HEADERS;
  if (payload != (bench->echo ? read : 0))
    bench_fail("%s sent %" PRIu64 " bytes of payload in %" PRIu64 " frames for %" PRIu64 " bytes read",
               s->name, payload, bench->peer.out_frames, read);
}

static void round_run(struct bench *bench, const struct bench_round *round) {
  uint32_t *run_ns = calloc(round->count, sizeof *run_ns);
  uint32_t *empty_ns = calloc(round->count, sizeof *empty_ns);
  if (!run_ns || !empty_ns)
    bench_fail("no memory for %u samples", round->count);
  for (unsigned i = 0; i < round->warmup; i++)
    batch(bench, &run_ns[0], &empty_ns[0]);
  uint64_t frames = 0;
  for (unsigned i = 0; i < round->count; i++) {
    batch(bench, &run_ns[i], &empty_ns[i]);
    frames += bench->peer.out_frames;
  }
  putchar('{');
  bench_put_samples("ns", run_ns, round->count, STACK_BATCH);
  printf(", ");
  bench_put_samples("empty_ns", empty_ns, round->count, STACK_BATCH);
  printf(", \"frames_out_per_op\": %.4f}\n", (double)frames / ((double)round->count * STACK_BATCH));
  fflush(stdout);
  free(run_ns);
  free(empty_ns);
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"echo", no_argument, NULL, 'e'},       {"burst", required_argument, NULL, 'b'},
      {"core", required_argument, NULL, 'c'}, {"ops", required_argument, NULL, 'o'},
      {"spoil", no_argument, NULL, 's'},      {NULL, 0, NULL, 0}};
  static struct bench bench = {.burst = 1};
  int core = -1;
  unsigned ops = 0;
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (opt) {
    case 'e':
      bench.echo = true;
      break;
    case 'b':
      bench.burst = bench_number("--burst", optarg, STACK_BATCH);
      break;
    case 'c':
      core = (int)bench_number("--core", optarg, 1023);
      break;
    case 's':
      bench.spoil = true;
      break;
    case 'o':
      ops = bench_number("--ops", optarg, BENCH_COUNT_MAX);
      break;
    default:
      return 2;
    }
  }
  if (bench.burst == 0 || STACK_BATCH % bench.burst)
    bench_fail("--burst must divide %d", STACK_BATCH);

  bench_pin(core);
  peer_init(&bench.peer, bench.burst);
  stack_subject.open(&bench.peer, bench.echo);
  handshake(&bench);
  if (ops) {
    uint32_t run_ns, empty_ns;
    for (unsigned i = 0; i < ops; i += STACK_BATCH)
      batch(&bench, &run_ns, &empty_ns);
    return 0;
  }
  bench_ready();
  for (struct bench_round round; bench_next_round(&round);)
    round_run(&bench, &round);
  return 0;
}
