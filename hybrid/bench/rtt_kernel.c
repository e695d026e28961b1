/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of the round-trip benchmark: an echo server and a client over
 * the kernel's TCP, both at their best. Sockets never block while traffic flows
 * (a wake-up costs several round trips), Nagle is off, every call moves the whole
 * 64 bytes, and each end has a core.
 *
 *     hybrid-bench-rtt-kernel --server ADDRESS PORT [--core N] [--busy-poll US]
 *     hybrid-bench-rtt-kernel --client ADDRESS PORT [--core N] [--busy-poll US]
 *
 * The server serves one connection at a time and sleeps between connections, so
 * that it leaves its core to another subject. The client holds the conversation
 * of bench.h: one connection per round, one sample per round trip.
 */
#include "bench/bench.h"
#include "bench/net.h"

#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAYLOAD = 64 };
static const uint64_t patience_ns = 5000000000u; /* a round trip that takes this long has failed */

static void prepare(int fd, unsigned busy_poll_us) {
  net_nodelay(fd);
  int us = (int)busy_poll_us;
  if (us && setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &us, sizeof us) < 0)
    bench_fail("SO_BUSY_POLL: %s", strerror(errno));
}

/* Reads without sleeping. 0 at the end of the stream. */
static size_t spin_receive(int fd, char *buffer, size_t want) {
  uint64_t give_up = 0;
  for (unsigned tries = 1;; tries++) {
    ssize_t got = recv(fd, buffer, want, MSG_DONTWAIT);
    if (got >= 0)
      return (size_t)got;
    if (errno == ECONNRESET)
      return 0;
    if (errno != EAGAIN && errno != EINTR)
      bench_fail("recv: %s", strerror(errno));
    if (tries % 65536)
      continue;
    uint64_t now = bench_now_ns();
    if (!give_up)
      give_up = now + patience_ns;
    else if (now > give_up)
      bench_fail("no answer for %u s", (unsigned)(patience_ns / 1000000000u));
  }
}

static bool send_all(int fd, const char *buffer, size_t len) {
  while (len > 0) {
    ssize_t sent = send(fd, buffer, len, MSG_NOSIGNAL);
    if (sent < 0)
      return false;
    buffer += sent;
    len -= (size_t)sent;
  }
  return true;
}

static void serve(const char *address, const char *port, unsigned busy_poll_us) {
  int listener = net_listen(address, port, 8);
  bench_ready();
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
      bench_fail("accept: %s", strerror(errno));
    prepare(fd, busy_poll_us);
    char buffer[4096];
    for (size_t got; (got = spin_receive(fd, buffer, sizeof buffer)) > 0;)
      if (!send_all(fd, buffer, got))
        break;
    close(fd);
  }
}

static uint32_t round_trip(void *context) {
  const int fd = *(const int *)context;
  static char buffer[PAYLOAD] = {'x'};
  uint64_t sent_ns = bench_now_ns();
  if (!send_all(fd, buffer, PAYLOAD))
    bench_fail("send: %s", strerror(errno));
  for (size_t have = 0; have < PAYLOAD;) {
    size_t got = spin_receive(fd, buffer + have, PAYLOAD - have);
    if (!got)
      bench_fail("the server closed the connection");
    have += got;
  }
  uint64_t ns = bench_now_ns() - sent_ns;
  return ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static void round_run(const struct addrinfo *at, unsigned busy_poll_us, const struct bench_round *round) {
  int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, at->ai_addr, at->ai_addrlen) < 0)
    bench_fail("cannot connect: %s", strerror(errno));
  prepare(fd, busy_poll_us);
  uint32_t *ns = bench_take(round, round_trip, &fd);
  /* Both ends are closed before the answer is given: the next subject finds a quiet server. */
  shutdown(fd, SHUT_WR);
  for (char rest[PAYLOAD]; spin_receive(fd, rest, sizeof rest) > 0;) {
  }
  close(fd);
  bench_answer_ns(ns, round->count);
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"server", no_argument, NULL, 's'},
                                          {"client", no_argument, NULL, 'c'},
                                          {"core", required_argument, NULL, 'C'},
                                          {"busy-poll", required_argument, NULL, 'b'},
                                          {NULL, 0, NULL, 0}};
  int role = 0, core = -1;
  unsigned busy_poll_us = 0;
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (opt) {
    case 's':
    case 'c':
      role = opt;
      break;
    case 'C':
      core = (int)bench_number("--core", optarg, 1023);
      break;
    case 'b':
      busy_poll_us = bench_number("--busy-poll", optarg, 1000000);
      break;
    default:
      return 2;
    }
  }
  if (!role || argc - optind != 2)
    bench_fail("expected --server or --client, an address and a port");
  bench_pin(core);
  if (role == 's')
    serve(argv[optind], argv[optind + 1], busy_poll_us);
  struct addrinfo *at = net_resolve(argv[optind], argv[optind + 1]);
  bench_ready();
  for (struct bench_round round; bench_next_round(&round);)
    round_run(at, busy_poll_us, &round);
  freeaddrinfo(at);
  return 0;
}
