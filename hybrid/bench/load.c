/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load of the throughput benchmark, the same for every subject: connections
 * of the kernel's TCP that each keep `depth` requests under way, from one core
 * that never sleeps while a round runs.
 *
 *     hybrid-bench-load ADDRESS PORT --case echo|kv-get|bulk [--connections N] [--depth N]
 *                       --server PID --server-core N [--core N]
 *
 * It holds the conversation of bench.h, in milliseconds: COUNT of them measured
 * after WARMUP that are not, in slices of SLICE_MS. Its answer is about the slices
 * and the whole window:
 *
 *     {"requests": [per slice], "ns": [per slice], "cpu_ns": [per slice], "core_busy_ms": N, "window_ms": N}
 *
 * cpu_ns is the processor time of process PID, of all its threads, user and system:
 * also what softirqs take that interrupt it. core_busy_ms is what the server's core
 * was busy with whoever it was for (/proc/stat, in ticks of 10 ms).
 *
 * The `depth` requests of a connection are written at once and the next when all
 * of their replies have come: one system call in and one out where they fit.
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
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1024, DEPTH_MAX = 256, BATCH_MAX = 1 << 20, SLICE_MS = 20, VALUE = 64 };
static const uint64_t patience_ns = 10000000000u; /* with no reply at all for so long, the server is lost */

/* What is asked and what must come back, byte for byte. `prepare` is asked once before, and answered. */
struct exchange {
  const char *name;
  size_t request_bytes, reply_bytes;
  char *request, *reply;
  const char *prepare, *prepared;
};

struct connection {
  int fd;
  size_t unsent, awaited; /* bytes of the batch under way */
};

struct load {
  struct exchange exchange;
  unsigned depth, nconnections;
  struct connection connections[CONNECTIONS_MAX];
  const struct addrinfo *at;
  pid_t server;
  unsigned server_core;
  char *batch; /* depth requests */
  size_t batch_bytes, replies_bytes;
  char *sink;        /* where replies go that were checked before */
  uint64_t finished; /* requests answered */
};

/* ---- what is asked --------------------------------------------------------- */

static char *filled(size_t bytes) {
  char *text = malloc(bytes);
  if (!text)
    bench_fail("no memory for requests of %zu bytes", bytes);
  for (size_t i = 0; i < bytes; i++)
    text[i] = (char)('a' + i % 23);
  return text;
}

static void exchange_echo(struct exchange *x, size_t bytes) {
  x->request_bytes = x->reply_bytes = bytes;
  x->request = x->reply = filled(bytes);
}

/* One key of VALUE bytes, in Redis's protocol. */
static void exchange_kv(struct exchange *x) {
  static const char get[] = "*2\r\n$3\r\nGET\r\n$5\r\nbench\r\n";
  static char set[128], value[VALUE + 1], reply[VALUE + 16], request[sizeof get];
  memset(value, 'v', VALUE);
  memcpy(request, get, sizeof get);
  snprintf(set, sizeof set, "*3\r\n$3\r\nSET\r\n$5\r\nbench\r\n$%d\r\n%s\r\n", VALUE, value);
  snprintf(reply, sizeof reply, "$%d\r\n%s\r\n", VALUE, value);
  x->request = request;
  x->request_bytes = strlen(request);
  x->reply = reply;
  x->reply_bytes = strlen(reply);
  x->prepare = set;
  x->prepared = "+OK\r\n";
}

static bool exchange_choose(struct exchange *x, const char *name) {
  x->name = name;
  if (strcmp(name, "echo") == 0)
    exchange_echo(x, 64);
  else if (strcmp(name, "bulk") == 0)
    exchange_echo(x, 64 << 10);
  else if (strcmp(name, "kv-get") == 0)
    exchange_kv(x);
  else
    return false;
  return true;
}

/* ---- connections ------------------------------------------------------------ */

/* One exchange, waited for and checked: what is measured afterwards is of a server that answers rightly. */
static void ask(int fd, const char *request, size_t request_bytes, const char *reply, size_t reply_bytes) {
  char *got = malloc(reply_bytes);
  if (!got)
    bench_fail("no memory for a reply");
  size_t sent = 0, have = 0;
  uint64_t give_up = bench_now_ns() + patience_ns;
  while (have < reply_bytes) {
    ssize_t n = sent < request_bytes
                    ? send(fd, request + sent, request_bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL)
                    : 0;
    sent += n > 0 ? (size_t)n : 0;
    if (n < 0 && errno != EAGAIN)
      bench_fail("send: %s", strerror(errno));
    n = recv(fd, got + have, reply_bytes - have, MSG_DONTWAIT);
    have += n > 0 ? (size_t)n : 0;
    if (n == 0 || (n < 0 && errno != EAGAIN))
      bench_fail("the server ended the connection: %s", n == 0 ? "end of stream" : strerror(errno));
    if (bench_now_ns() > give_up)
      bench_fail("no answer for %u s", (unsigned)(patience_ns / 1000000000u));
  }
  if (memcmp(got, reply, reply_bytes) != 0)
    bench_fail("the server answered something else");
  free(got);
}

static void connection_open(struct load *l, struct connection *c) {
  *c = (struct connection){.fd = socket(l->at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (c->fd < 0 || connect(c->fd, l->at->ai_addr, l->at->ai_addrlen) < 0)
    bench_fail("cannot connect: %s", strerror(errno));
  net_nodelay(c->fd);
  const struct exchange *x = &l->exchange;
  if (x->prepare)
    ask(c->fd, x->prepare, strlen(x->prepare), x->prepared, strlen(x->prepared));
  ask(c->fd, x->request, x->request_bytes, x->reply, x->reply_bytes);
}

/* Waits for the other end, so that the next subject finds a quiet server. */
static void connection_close(struct connection *c) {
  char byte;
  struct timeval patience = {.tv_sec = (time_t)(patience_ns / 1000000000u)};
  setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  shutdown(c->fd, SHUT_WR);
  if (recv(c->fd, &byte, 1, 0) > 0)
    bench_fail("the server sent more than was asked for");
  close(c->fd);
}

/* True: bytes were taken. */
static bool connection_send(const struct load *l, struct connection *c) {
  ssize_t n = send(c->fd, l->batch + (l->batch_bytes - c->unsent), c->unsent, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN)
    bench_fail("send: %s", strerror(errno));
  c->unsent -= n > 0 ? (size_t)n : 0;
  return n > 0;
}

/* True: bytes had come. */
static bool connection_receive(struct load *l, struct connection *c) {
  ssize_t n = recv(c->fd, l->sink, c->awaited, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN))
    bench_fail("the server ended the connection: %s", n == 0 ? "end of stream" : strerror(errno));
  if (n < 0)
    return false;
  c->awaited -= (size_t)n;
  if (c->awaited == 0)
    l->finished += l->depth;
  return true;
}

/* One pass over all connections: true where something moved. With `go_on` a finished batch is followed by the
 * next. */
static bool load_pass(struct load *l, bool go_on) {
  bool moved = false;
  for (unsigned i = 0; i < l->nconnections; i++) {
    struct connection *c = &l->connections[i];
    if (c->awaited > 0)
      moved |= connection_receive(l, c);
    if (c->awaited == 0 && go_on) {
      c->awaited = l->replies_bytes;
      c->unsent = l->batch_bytes;
    }
    if (c->unsent > 0)
      moved |= connection_send(l, c);
  }
  return moved;
}

static bool load_under_way(const struct load *l) {
  for (unsigned i = 0; i < l->nconnections; i++)
    if (l->connections[i].awaited > 0)
      return true;
  return false;
}

/* Runs until `until_ns`, or with 0 until nothing is under way; the time at its end. */
static uint64_t load_run(struct load *l, uint64_t until_ns) {
  uint64_t now = bench_now_ns(), moved_ns = now;
  while (until_ns ? now < until_ns : load_under_way(l)) {
    if (load_pass(l, until_ns != 0))
      moved_ns = now;
    else if (now - moved_ns > patience_ns)
      bench_fail("no answer for %u s", (unsigned)(patience_ns / 1000000000u));
    now = bench_now_ns();
  }
  return now;
}

/* ---- what the server takes ---------------------------------------------------- */

static uint64_t server_cpu_ns(const struct load *l) {
  clockid_t clock;
  struct timespec ts;
  int error = clock_getcpuclockid(l->server, &clock);
  if (error || clock_gettime(clock, &ts) < 0)
    bench_fail("the processor time of process %d: %s", (int)l->server, strerror(error ? error : errno));
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Everything but idle and waiting for disks: user nice system (idle iowait) irq softirq steal. */
static uint64_t server_core_busy_ms(const struct load *l) {
  char line[512], name[16];
  snprintf(name, sizeof name, "cpu%u ", l->server_core);
  FILE *stat = fopen("/proc/stat", "r");
  bool found = false;
  while (stat && !found && fgets(line, sizeof line, stat))
    found = strncmp(line, name, strlen(name)) == 0;
  if (stat)
    fclose(stat);
  unsigned long long user, nice, kernel, idle, waiting, irq, softirq;
  if (!found || sscanf(line + strlen(name), "%llu %llu %llu %llu %llu %llu %llu", &user, &nice, &kernel,
                       &idle, &waiting, &irq, &softirq) != 7)
    bench_fail("/proc/stat does not tell about core %u", l->server_core);
  unsigned long long ticks = user + nice + kernel + irq + softirq;
  return ticks * 1000u / (unsigned long long)sysconf(_SC_CLK_TCK);
}

/* ---- a round ------------------------------------------------------------------ */

struct slices {
  unsigned n;
  uint32_t *requests, *ns, *cpu_ns;
};

static struct slices slices_of(unsigned window_ms) {
  unsigned n = window_ms > SLICE_MS ? window_ms / SLICE_MS : 1;
  uint32_t *memory = calloc(3u * (size_t)n, sizeof *memory);
  if (!memory)
    bench_fail("no memory for %u slices", n);
  return (struct slices){.n = n, .requests = memory, .ns = memory + n, .cpu_ns = memory + 2 * (size_t)n};
}

static void round_run(struct load *l, const struct bench_round *round) {
  struct slices slices = slices_of(round->count);
  for (unsigned i = 0; i < l->nconnections; i++)
    connection_open(l, &l->connections[i]);
  load_run(l, bench_now_ns() + (uint64_t)round->warmup * 1000000u);
  uint64_t busy_ms = server_core_busy_ms(l), cpu = server_cpu_ns(l), now = bench_now_ns();
  uint64_t start = now, finished = l->finished;
  for (unsigned i = 0; i < slices.n; i++) {
    uint64_t end = load_run(l, now + (uint64_t)round->count * 1000000u / slices.n);
    uint64_t cpu_end = server_cpu_ns(l);
    slices.requests[i] = (uint32_t)(l->finished - finished);
    slices.ns[i] = (uint32_t)(end - now);
    slices.cpu_ns[i] = (uint32_t)(cpu_end - cpu);
    now = end, cpu = cpu_end, finished = l->finished;
  }
  busy_ms = server_core_busy_ms(l) - busy_ms;
  load_run(l, 0);
  for (unsigned i = 0; i < l->nconnections; i++)
    connection_close(&l->connections[i]);
  putchar('{');
  bench_put_samples("requests", slices.requests, slices.n, 1);
  fputs(", ", stdout);
  bench_put_samples("ns", slices.ns, slices.n, 1);
  fputs(", ", stdout);
  bench_put_samples("cpu_ns", slices.cpu_ns, slices.n, 1);
  printf(", \"core_busy_ms\": %llu, \"window_ms\": %llu}\n", (unsigned long long)busy_ms,
         (unsigned long long)((now - start) / 1000000u));
  fflush(stdout);
  free(slices.requests);
}

static void load_prepare(struct load *l) {
  const struct exchange *x = &l->exchange;
  l->batch_bytes = l->depth * x->request_bytes;
  l->replies_bytes = l->depth * x->reply_bytes;
  if (l->batch_bytes > BATCH_MAX || l->replies_bytes > BATCH_MAX)
    bench_fail("%u requests at once are more than %d bytes", l->depth, BATCH_MAX);
  l->batch = malloc(l->batch_bytes);
  l->sink = malloc(l->replies_bytes);
  if (!l->batch || !l->sink)
    bench_fail("no memory for %u requests", l->depth);
  for (unsigned i = 0; i < l->depth; i++)
    memcpy(l->batch + i * x->request_bytes, x->request, x->request_bytes);
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"case", required_argument, NULL, 'x'},
                                          {"connections", required_argument, NULL, 'n'},
                                          {"depth", required_argument, NULL, 'd'},
                                          {"server", required_argument, NULL, 's'},
                                          {"server-core", required_argument, NULL, 'S'},
                                          {"core", required_argument, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};
  static struct load load = {.depth = 1, .nconnections = 1};
  int core = -1;
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (opt) {
    case 'x':
      if (!exchange_choose(&load.exchange, optarg))
        bench_fail("--case is echo, kv-get or bulk, not \"%s\"", optarg);
      break;
    case 'n':
      load.nconnections = bench_number("--connections", optarg, CONNECTIONS_MAX);
      break;
    case 'd':
      load.depth = bench_number("--depth", optarg, DEPTH_MAX);
      break;
    case 's':
      load.server = (pid_t)bench_number("--server", optarg, INT32_MAX);
      break;
    case 'S':
      load.server_core = bench_number("--server-core", optarg, 1023);
      break;
    case 'c':
      core = (int)bench_number("--core", optarg, 1023);
      break;
    default:
      return 2;
    }
  }
  if (argc - optind != 2 || !load.exchange.name || !load.server || !load.depth || !load.nconnections)
    bench_fail("expected an address, a port, --case and --server");
  bench_pin(core);
  struct addrinfo *at = net_resolve(argv[optind], argv[optind + 1]);
  load.at = at;
  load_prepare(&load);
  bench_ready();
  for (struct bench_round round; bench_next_round(&round);)
    round_run(&load, &round);
  freeaddrinfo(at);
  return 0;
}
