/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An echo server: the smallest whole program on hybrid.h.
 *
 *     hybrid serve echo --port 7          (or: hybrid run -- hybrid-echo --port 7)
 *     hybrid-echo --backend SPEC          on its own: bench/backend.h has what SPEC may be
 *
 * A connection always has exactly one operation under way:
 *
 *     accept --> pop --> push: the same bytes, given back --> pop --> ... --> close
 *                          \__ queue full: keep them, drain __/
 *
 * Nothing is copied: what hy_pop hands over lies in the frames that the device
 * received into, and hy_push sends from there. A client that doesn't read costs
 * one scatter-gather array here and its send queue in the library; as nothing
 * more is popped meanwhile, its own sending stops when the receive window is full.
 */
#include "bench/backend.h"
#include "hybrid.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTIONS = 4096, BACKLOG = 1024, ACCEPTS = 16, EVENTS = 64 };

struct connection {
  hy_sga unsent; /* what the queue had no room for */
  struct connection *next_free;
};

struct echo {
  hy_shard *shard;
  struct connection *free;
  struct connection connections[CONNECTIONS];
};

static volatile sig_atomic_t stopping;

static void on_signal(int signal) {
  stopping = 1;
}

static void connection_end(struct echo *e, struct connection *c, hy_qd qd) {
  hy_sga_free(e->shard, &c->unsent);
  hy_close(e->shard, qd); /* in order: what was pushed still arrives */
  c->next_free = e->free;
  e->free = c;
}

/*
 * Sends what there is to send, then asks for more; or, if the queue is full, for
 * room. A push without a token hands our references over, unless it fails.
 */
static void connection_go_on(struct echo *e, struct connection *c, hy_qd qd) {
  hy_qt qt;
  int rc = 0;
  if (c->unsent.nsegs > 0 && (rc = hy_push(e->shard, qd, &c->unsent, NULL)) == 0)
    c->unsent.nsegs = 0;
  if (rc == -EAGAIN)
    rc = hy_drain(e->shard, qd, &qt);
  else if (rc == 0)
    rc = hy_pop(e->shard, qd, &qt);
  if (rc < 0)
    connection_end(e, c, qd);
}

static void on_accept(struct echo *e, const hy_event *event) {
  hy_qt qt;
  hy_accept(e->shard, event->qd, &qt); /* the next one */
  if (event->status < 0)
    return;
  struct connection *c = e->free;
  if (c == NULL) {
    hy_abort(e->shard, event->accepted);
    return;
  }
  e->free = c->next_free;
  c->unsent.nsegs = 0;
  hy_set_user(e->shard, event->accepted, c);
  connection_go_on(e, c, event->accepted);
}

static void on_stream(struct echo *e, hy_event *event) {
  struct connection *c = event->user;
  if (event->op == HY_OP_POP)
    c->unsent = event->sga;
  bool over = event->op == HY_OP_POP && event->sga.nsegs == 0; /* the peer has sent all it will */
  if (event->status < 0 || over)
    connection_end(e, c, event->qd);
  else
    connection_go_on(e, c, event->qd);
}

/* A datagram that can't be sent at once is lost, as datagrams are. */
static void on_datagram(struct echo *e, hy_event *event) {
  hy_qt qt;
  if (event->status == 0 && hy_pushto(e->shard, event->qd, &event->sga, &event->addr, NULL) < 0)
    hy_sga_free(e->shard, &event->sga);
  hy_pop(e->shard, event->qd, &qt);
}

static int serve(struct echo *e, int type) {
  hy_event events[EVENTS];
  while (!stopping) {
    /* A signal ends a sleep, but one that comes just before it does not: so sleep for 100 ms at most. */
    int n = hy_wait_any(e->shard, events, EVENTS, 100 * 1000 * 1000);
    if (n < 0 && n != -EINTR)
      return n;
    for (int i = 0; i < n; i++) {
      if (events[i].op == HY_OP_ACCEPT)
        on_accept(e, &events[i]);
      else if (type == HY_DGRAM)
        on_datagram(e, &events[i]);
      else
        on_stream(e, &events[i]);
    }
  }
  return 0;
}

/* A socket on the port of every local address, IPv4 and IPv6, with the first operations under way. */
static int open_port(hy_shard *shard, int type, uint16_t port) {
  hy_qd qd;
  hy_qt qt;
  hy_addr any = {.port = port};
  int rc = hy_socket(shard, type, &qd);
  if (rc == 0)
    rc = hy_bind(shard, qd, &any);
  if (rc == 0 && type == HY_STREAM)
    rc = hy_listen(shard, qd, BACKLOG);
  for (int i = 0; rc == 0 && i < ACCEPTS; i++)
    rc = type == HY_STREAM ? hy_accept(shard, qd, &qt) : hy_pop(shard, qd, &qt);
  return rc == 0 ? hy_shard_ready(shard) : rc;
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"port", required_argument, NULL, 'p'},
                                          {"udp", no_argument, NULL, 'u'},
                                          {"spin", optional_argument, NULL, 's'},
                                          {"backend", required_argument, NULL, 'b'},
                                          {0}};
  static struct echo echo;
  const char *backend = NULL;
  long port = 7;
  int type = HY_STREAM, option;
  hy_config config;
  hy_config_default(&config);
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    if (option == 'p')
      port = optarg ? strtol(optarg, NULL, 10) : 0;
    else if (option == 'u')
      type = HY_DGRAM;
    else if (option == 's')
      /* Without a number never sleep: the lowest latency, and a whole core. With 0 sleep at once. */
      config.spin_ns = optarg ? strtoull(optarg, NULL, 10) * 1000 + !strcmp(optarg, "0") : UINT64_MAX;
    else if (option == 'b')
      backend = optarg;
    else
      port = 0;
  }
  if (optind < argc || port < 1 || port > 65535) {
    fprintf(stderr, "usage: hybrid-echo [--port PORT] [--udp] [--spin[=MICROSECONDS]] [--backend SPEC]\n");
    return 2;
  }
  sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
  sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
  for (int i = 0; i < CONNECTIONS; i++) {
    echo.connections[i].next_free = echo.free;
    echo.free = &echo.connections[i];
  }

  int rc = backend_open(backend, &config, &echo.shard);
  if (rc == -ENOENT && backend == NULL) {
    fprintf(stderr, "hybrid-echo: nobody has prepared a datapath for it: start it with `hybrid serve echo`, "
                    "or with `hybrid run -- hybrid-echo`\n");
    return 1;
  }
  if (rc == 0)
    rc = open_port(echo.shard, type, (uint16_t)port);
  if (rc == 0) {
    printf("hybrid-echo: listening on %s port %ld\n", type == HY_DGRAM ? "udp" : "tcp", port);
    fflush(stdout);
    rc = serve(&echo, type);
  }
  if (rc < 0)
    fprintf(stderr, "hybrid-echo: %s\n", backend_error(rc));
  hy_shard_close(echo.shard);
  return rc < 0 ? 1 : 0;
}
