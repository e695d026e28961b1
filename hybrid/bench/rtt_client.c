/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of the round-trip benchmark on hybrid.h: 64 bytes there and back
 * over our stack, polling and never sleeping; holds the conversation of bench.h,
 * one connection per round, one sample per round trip.
 *
 *     hybrid --output json run -- hybrid-bench-rtt-client ADDRESS:PORT [--core N]
 *     hybrid-bench-rtt-client --backend SPEC ADDRESS:PORT [--core N]       (bench/backend.h)
 *
 * In the first form it is hybrid run that announces it, once its queues are in service.
 *
 * A sample is from before the push to after the pop has completed, just as the
 * kernel's client measures from before send() to after recv().
 */
#include "bench/backend.h"
#include "bench/bench.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAYLOAD = 64 };
static const int64_t patience_ns = 5000000000; /* a round trip that takes this long has failed */

static void must(int status, const char *what) {
  if (status < 0)
    bench_fail("%s: %s", what, backend_error(status));
}

/* The operation's event; ends the program if it failed or never came. */
static void finish(hy_shard *shard, hy_qt qt, hy_event *event, const char *what) {
  int got = hy_wait(shard, qt, event, patience_ns);
  must(got, what);
  if (got == 0)
    bench_fail("%s: no answer for %d s", what, (int)(patience_ns / 1000000000));
  must(event->status, what);
}

struct client {
  hy_shard *shard;
  hy_qd qd;
};

static uint32_t round_trip(void *context) {
  const struct client *client = context;
  hy_shard *shard = client->shard;
  hy_qd qd = client->qd;
  hy_sga sga;
  hy_event event;
  hy_qt pop;
  uint64_t sent_ns = bench_now_ns();
  must(hy_sga_alloc(shard, PAYLOAD, &sga), "buffer");
  memset(sga.segs[0].addr, 'x', PAYLOAD);
  must(hy_push(shard, qd, &sga, NULL), "push");
  for (size_t have = 0; have < PAYLOAD;) {
    must(hy_pop(shard, qd, &pop), "pop");
    finish(shard, pop, &event, "pop");
    size_t got = hy_sga_bytes(&event.sga);
    hy_sga_free(shard, &event.sga);
    if (!got)
      bench_fail("the server closed the connection");
    have += got;
  }
  uint64_t ns = bench_now_ns() - sent_ns;
  return ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static void round_run(hy_shard *shard, const hy_addr *server, const struct bench_round *round) {
  hy_qd qd;
  hy_qt qt;
  hy_event event;
  must(hy_socket(shard, HY_STREAM, &qd), "socket");
  must(hy_connect(shard, qd, server, &qt), "connect");
  finish(shard, qt, &event, "connect");
  uint32_t *ns = bench_take(round, round_trip, &(struct client){shard, qd});
  /* Both ends are closed before the answer is given: the next subject finds a quiet server. */
  must(hy_shutdown(shard, qd), "shutdown");
  must(hy_pop(shard, qd, &qt), "pop");
  finish(shard, qt, &event, "close");
  hy_sga_free(shard, &event.sga);
  must(hy_close(shard, qd), "close");
  for (int i = 0; i < 64; i++)
    hy_poll(shard); /* the last acknowledgement leaves before this program sleeps */
  bench_answer_ns(ns, round->count);
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"core", required_argument, NULL, 'c'}, {"backend", required_argument, NULL, 'b'}, {NULL, 0, NULL, 0}};
  const char *backend = NULL;
  int core = -1;
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (opt == 'c')
      core = (int)bench_number("--core", optarg, 1023);
    else if (opt == 'b')
      backend = optarg;
    else
      return 2;
  }
  hy_addr server;
  if (argc - optind != 1 || hy_addr_parse(argv[optind], &server) < 0 || !server.port)
    bench_fail("expected ADDRESS:PORT");
  bench_pin(core);
  hy_config config;
  hy_config_default(&config);
  config.spin_ns = UINT64_MAX;
  hy_shard *shard;
  must(backend_open(backend, &config, &shard), "shard");
  must(hy_shard_ready(shard), "putting the queues into service");
  if (backend)
    bench_ready();
  for (struct bench_round round; bench_next_round(&round);)
    round_run(shard, &server, &round);
  hy_shard_close(shard);
  return 0;
}
