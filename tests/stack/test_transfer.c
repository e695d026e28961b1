/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams over a bad wire. Some connections at once, each end sending a stream of
 * its own and reading the other's, with applications that push in odd pieces, read
 * late and close in any order. Whatever the wire does, bytes arrive in order and
 * unchanged, every operation completes, and afterwards nothing is left: no frame, no
 * connection, no timer, no token.
 */
#include "net.h"
#include "tcp/tcp.h"

#include <errno.h>

enum { PORT = 7, ENDS_MAX = 8, HELD_MAX = 16 };

/* How one end behaves, and what it has seen. */
struct end {
  uint32_t host;
  hy_qd qd; /* -1: not open, or given back */
  uint16_t port, peer_port;
  uint32_t to_send, sent, received;
  uint32_t push_max; /* bytes in one push at most */
  uint32_t abort_at; /* bytes received or sent; UINT32_MAX: never */
  uint64_t lazy_ns;  /* how long it waits before it reads again, at most */
  uint32_t hold;     /* popped arrays that it keeps for a while */
  bool want_tokens;  /* for pushes */
  bool connected, shut, eof, aborted;
  bool popping, draining;
  uint32_t pushes, pushed; /* with a token: started, completed */
  int32_t error;           /* first that an operation told */
  uint64_t read_at, write_at;
  uint64_t patience_ns;
  hy_sga held[HELD_MAX];
  uint32_t nheld;
};

struct world {
  struct net net;
  struct end ends[ENDS_MAX];
  uint32_t nends, nconns;
  hy_qd listener;
  bool must_succeed; /* nothing that happens here may make a connection fail */
  int broken;        /* line */
};

#define EXPECT(w, condition)                                                                                 \
  do {                                                                                                       \
    if (!(condition) && (w)->broken == 0)                                                                    \
      (w)->broken = __LINE__;                                                                                \
  } while (0)

/* What stands at an offset of the stream that the end at `port` of `host` sends to `peer_port`. */
static uint8_t stream_byte(uint32_t host, uint16_t a, uint16_t b, uint32_t offset) {
  return (uint8_t)((offset + host * 77 + a + b) * 2654435761u >> 13 ^ offset >> 16);
}

static hy_shard *shard_of(struct world *w, const struct end *e) {
  return w->net.shards[e->host];
}

static uint32_t some_size(struct dice *dice) {
  static const uint32_t edges[] = {0, 1, 2, 535, 536, 1447, 1448, 1449, 2896, 65535, 65536, 1 << 20};
  if (dice_below(dice, 3) == 0)
    return edges[dice_below(dice, sizeof edges / sizeof *edges)];
  return dice_below(dice, 1u << (1 + dice_below(dice, 18)));
}

static struct end *end_add(struct world *w, uint32_t host) {
  struct dice *dice = &w->net.dice;
  struct end *e = &w->ends[w->nends++];
  *e = (struct end){
      .host = host,
      .qd = -1,
      .to_send = some_size(dice),
      .push_max = 1 + dice_below(dice, 1u << (4 + dice_below(dice, 11))),
      .abort_at = UINT32_MAX,
      .lazy_ns = dice_below(dice, 3) == 0 ? 1 + dice_u64(dice) % 3000000000u : 0,
      .hold = dice_below(dice, 2) ? dice_below(dice, HELD_MAX) : 0,
      .want_tokens = dice_below(dice, 2),
  };
  /* A stream of a hundred thousand one-byte pushes says no more than one of a few thousand. */
  if (e->to_send / e->push_max > 4000)
    e->push_max = 1 + e->to_send / 4000;
  return e;
}

/* ---- applications ---- */

static void end_give_back(struct world *w, struct end *e, bool hard) {
  hy_shard *shard = shard_of(w, e);
  EXPECT(w, (hard ? hy_abort : hy_close)(shard, e->qd) == 0);
  e->qd = -1;
  for (uint32_t i = 0; i < e->nheld; i++)
    hy_sga_free(shard, &e->held[i]);
  e->nheld = 0;
}

/* When to try again what there was no memory for. */
static uint64_t later(const struct world *w, struct end *e) {
  e->patience_ns = e->patience_ns < NS_PER_S ? 2 * e->patience_ns + NS_PER_MS : 2 * NS_PER_S;
  return w->net.now + e->patience_ns;
}

static void end_failed(struct world *w, struct end *e, int32_t status) {
  if (w->net.trace)
    fprintf(stderr, "end at host %u port %u: %s\n", e->host, e->port, hy_strerror(status));
  EXPECT(w, !w->must_succeed);
  EXPECT(w, status == -ECONNRESET || status == -ETIMEDOUT || status == -EPIPE || status == -ECONNREFUSED);
  if (e->error == 0)
    e->error = status;
  if (e->qd >= 0)
    end_give_back(w, e, false);
}

/* Pushes as much as is taken now. */
static void end_write(struct world *w, struct end *e) {
  hy_shard *shard = shard_of(w, e);
  while (e->sent < e->to_send && !e->draining && w->net.now >= e->write_at) {
    uint32_t len = 1 + dice_below(&w->net.dice, e->push_max);
    if (len > e->to_send - e->sent)
      len = e->to_send - e->sent;
    if (len > hy_sga_max(shard))
      len = (uint32_t)hy_sga_max(shard);
    hy_sga sga;
    hy_qt qt;
    if (hy_sga_alloc(shard, len, &sga) == -ENOBUFS) {
      e->write_at = later(w, e);
      return;
    }
    uint32_t offset = e->sent;
    for (uint32_t s = 0; s < sga.nsegs; s++)
      for (uint32_t i = 0; i < sga.segs[s].len_bytes; i++)
        ((uint8_t *)sga.segs[s].addr)[i] = stream_byte(e->host, e->port, e->peer_port, offset++);
    EXPECT(w, offset == e->sent + len);
    int rc = hy_push(shard, e->qd, &sga, e->want_tokens ? &qt : NULL);
    if (e->want_tokens || rc < 0)
      hy_sga_free(shard, &sga); /* with a token the library has references of its own */
    if (rc == -EAGAIN) {
      EXPECT(w, hy_drain(shard, e->qd, &qt) == 0);
      e->draining = true;
      return;
    }
    if (rc == -ENOBUFS) {
      e->write_at = later(w, e);
      return;
    }
    if (rc < 0) {
      end_failed(w, e, rc);
      return;
    }
    e->patience_ns = 0;
    e->sent += len;
    e->pushes += e->want_tokens;
  }
  if (e->sent == e->to_send && !e->shut) {
    int rc = hy_shutdown(shard, e->qd);
    e->shut = true;
    if (rc < 0)
      end_failed(w, e, rc);
  }
}

static void end_step(struct world *w, struct end *e) {
  hy_shard *shard = shard_of(w, e);
  if (e->qd < 0 || !e->connected)
    return;
  if (!e->aborted && (e->received >= e->abort_at || e->sent >= e->abort_at)) {
    e->aborted = true;
    end_give_back(w, e, true);
    return;
  }
  end_write(w, e);
  if (e->qd < 0)
    return;
  if (!e->popping && !e->eof && w->net.now >= e->read_at) {
    while (e->nheld > 0)
      hy_sga_free(shard, &e->held[--e->nheld]);
    hy_qt qt;
    EXPECT(w, hy_pop(shard, e->qd, &qt) == 0);
    e->popping = true;
  }
  /* Half of the ends close with data still unacknowledged: it must be delivered all the same. */
  if (e->eof && e->shut && (e->pushes == e->pushed || e->port % 2 == 0))
    end_give_back(w, e, false);
}

static void end_popped(struct world *w, struct end *e, hy_event *event) {
  hy_shard *shard = shard_of(w, e);
  e->popping = false;
  if (event->status == -ENOBUFS) { /* it holds too much: the data stays for the next pop */
    while (e->nheld > 0)
      hy_sga_free(shard, &e->held[--e->nheld]);
    e->read_at = later(w, e);
    return;
  }
  if (event->status < 0) {
    end_failed(w, e, event->status);
    return;
  }
  e->eof = event->sga.nsegs == 0;
  uint32_t received = e->received;
  for (uint32_t s = 0; s < event->sga.nsegs; s++) {
    const uint8_t *bytes = event->sga.segs[s].addr;
    EXPECT(w, event->sga.segs[s].len_bytes > 0);
    for (uint32_t i = 0; i < event->sga.segs[s].len_bytes; i++)
      EXPECT(w, bytes[i] == stream_byte(1 - e->host, e->peer_port, e->port, received + i));
    received += event->sga.segs[s].len_bytes;
  }
  e->received = received;
  if (e->nheld < e->hold && event->sga.nsegs > 0)
    e->held[e->nheld++] = event->sga;
  else
    hy_sga_free(shard, &event->sga);
  if (e->lazy_ns > 0 && dice_below(&w->net.dice, 4) == 0)
    e->read_at = w->net.now + dice_u64(&w->net.dice) % e->lazy_ns;
}

static void handle(struct world *w, uint32_t host, hy_event *event) {
  hy_shard *shard = w->net.shards[host];
  struct end *e = event->user;
  hy_addr local;
  if (event->op == HY_OP_ACCEPT) {
    hy_qt qt;
    if (event->status == -ECANCELED)
      return;
    EXPECT(w, event->status == 0 && w->nends < ENDS_MAX);
    if (w->broken)
      return;
    e = end_add(w, host);
    e->qd = event->accepted;
    e->connected = true;
    e->port = PORT;
    e->peer_port = event->addr.port;
    EXPECT(w, hy_set_user(shard, e->qd, e) == 0);
    EXPECT(w, hy_accept(shard, w->listener, &qt) == 0);
    return;
  }
  if (e->qd != event->qd) { /* given back by an event before it in the same batch */
    hy_sga_free(shard, &event->sga);
    return;
  }
  switch (event->op) {
  case HY_OP_CONNECT:
    if (event->status < 0) {
      end_failed(w, e, event->status);
      break;
    }
    EXPECT(w, hy_local(shard, e->qd, &local) == 0);
    e->port = local.port;
    e->peer_port = PORT;
    e->connected = true;
    break;
  case HY_OP_POP:
    end_popped(w, e, event);
    break;
  case HY_OP_DRAIN:
    e->draining = false;
    if (event->status < 0)
      end_failed(w, e, event->status);
    break;
  default:
    EXPECT(w, event->op == HY_OP_PUSH);
    e->pushed++;
    if (event->status < 0)
      end_failed(w, e, event->status);
  }
}

/* ---- the loop ---- */

static void run_host(struct world *w, uint32_t host) {
  hy_event events[8];
  int n;
  while ((n = hy_wait_any(w->net.shards[host], events, 8, 0)) > 0 && w->broken == 0)
    for (int i = 0; i < n; i++)
      handle(w, host, &events[i]);
  EXPECT(w, n >= 0);
  for (uint32_t i = 0; i < w->nends; i++)
    if (w->ends[i].host == host)
      end_step(w, &w->ends[i]);
  net_run(&w->net, host);
}

static bool all_given_back(const struct world *w) {
  for (uint32_t i = 0; i < w->nends; i++)
    if (w->ends[i].qd >= 0)
      return false;
  return true;
}

/* When an application wants to do something by itself. */
static uint64_t next_whim(const struct world *w) {
  uint64_t next = UINT64_MAX;
  for (uint32_t i = 0; i < w->nends; i++) {
    const struct end *e = &w->ends[i];
    if (e->qd < 0 || !e->connected)
      continue;
    if (!e->popping && !e->eof && e->read_at < next)
      next = e->read_at;
    if (e->sent < e->to_send && !e->draining && e->write_at < next)
      next = e->write_at;
  }
  return next;
}

/* What a person who replays a failure wants to know. */
static void world_dump(const struct world *w) {
  for (uint32_t i = 0; i < 2; i++) {
    const hy_shard *shard = w->net.shards[i];
    fprintf(stderr, "host %u at %.6f: %u of %u frames free, application holds %u, %u connections\n", i,
            (double)w->net.now / 1e9, shard->arena.free_count, shard->arena.frames, shard->app_frames,
            shard->stack.conns_used);
    for (unsigned k = 0; k < hy_stat_count(); k++)
      if (hy_stat(shard, k) != 0)
        fprintf(stderr, "  %s %llu\n", hy_stat_name(k), (unsigned long long)hy_stat(shard, k));
    for (uint32_t k = 0; k < shard->stack.nconns; k++) {
      const struct tcp_conn *c = &shard->stack.conns[k];
      if (c->state != TCP_CLOSED || (c->flags & CONN_OUT) || wheel_armed(&shard->stack.wheel, k))
        fprintf(stderr,
                "  connection %u: state %u flags %x una %u nxt %u max %u write %u wnd %u cwnd %u rcv_nxt %u "
                "rcv_adv %u rxq %u rto_at %.6f close_at %.6f retries %u%s\n",
                k, c->state, c->flags, c->snd_una, c->snd_nxt, c->snd_max, c->write_seq, c->snd_wnd, c->cwnd,
                c->rcv_nxt, c->rcv_adv, c->rxq_bytes, (double)c->rto_at / 1e9, (double)c->close_at / 1e9,
                c->retries, c->flags & CONN_OUT ? " wants output" : "");
    }
  }
  for (uint32_t i = 0; i < w->nends; i++) {
    const struct end *e = &w->ends[i];
    fprintf(stderr,
            "end %u>%u of host %u: qd %d sent %u/%u received %u pushes %u/%u held %u%s%s%s%s error %d\n",
            e->port, e->peer_port, e->host, e->qd, e->sent, e->to_send, e->received, e->pushed, e->pushes,
            e->nheld, e->popping ? " popping" : "", e->draining ? " draining" : "", e->shut ? " shut" : "",
            e->eof ? " eof" : "", e->error);
  }
}

/* Lets the world go on until nothing more will happen or `until` has come. */
static int run_until(struct world *w, uint64_t until) {
  for (uint64_t steps = 0;; steps++) {
    if (steps == 400000) { /* it goes round in circles */
      world_dump(w);
      return __LINE__;
    }
    net_deliver(&w->net);
    run_host(w, 0);
    run_host(w, 1);
    if (w->broken)
      return w->broken;
    uint64_t next = net_next(&w->net), whim = next_whim(w);
    next = whim < next ? whim : next;
    if (next == UINT64_MAX || next > until)
      return 0;
    net_set_time(&w->net, next > w->net.now ? next : w->net.now + 1000);
  }
}

static struct end *partner(struct world *w, const struct end *e) {
  for (uint32_t i = 0; i < w->nends; i++)
    if (w->ends[i].host != e->host && w->ends[i].peer_port == e->port && w->ends[i].port == e->peer_port)
      return &w->ends[i];
  return NULL;
}

static int world_open(struct world *w, uint64_t seed) {
  struct dice dice = {seed};
  static const uint32_t frames[] = {256, 1024, 4096};
  static const uint32_t mtus[] = {1280, 1500, 1500, 1400, 9000, 4000};
  hy_config config;
  hy_config_default(&config);
  config.frames = frames[dice_below(&dice, 3)];
  config.sockets = 32;
  config.connections = 32;
  config.tokens = 8192;
  config.rcvbuf_bytes = 4096u << dice_below(&dice, 9);
  config.sndbuf_bytes = 4096u << dice_below(&dice, 9);
  memset(w, 0, sizeof *w);
  HOLDS(net_open(&w->net, seed, &config, mtus[dice_below(&dice, 6)]) == 0);
  w->net.impair.delay_ns = dice_u64(&dice) >> (38 + dice_below(&dice, 12)); /* to 67 ms */
  w->must_succeed = true;
  return 0;
}

static int world_connect(struct world *w) {
  struct dice *dice = &w->net.dice;
  int family = dice_below(dice, 2) ? 4 : 6;
  hy_addr any = {.port = PORT};
  hy_qt qt;
  HOLDS(hy_socket(w->net.shards[1], HY_STREAM, &w->listener) == 0);
  HOLDS(hy_bind(w->net.shards[1], w->listener, &any) == 0);
  HOLDS(hy_listen(w->net.shards[1], w->listener, 16) == 0);
  HOLDS(hy_accept(w->net.shards[1], w->listener, &qt) == 0);
  w->nconns = 1 + (dice_below(dice, 3) == 0 ? dice_below(dice, ENDS_MAX / 2) : 0);
  for (uint32_t i = 0; i < w->nconns; i++) {
    struct end *e = end_add(w, 0);
    hy_addr peer = net_addr(1, family, PORT);
    HOLDS(hy_socket(w->net.shards[0], HY_STREAM, &e->qd) == 0);
    HOLDS(hy_set_user(w->net.shards[0], e->qd, e) == 0);
    HOLDS(hy_connect(w->net.shards[0], e->qd, &peer, &qt) == 0);
  }
  return 0;
}

#define MINUTES(n) ((uint64_t)(n)*60 * NS_PER_S)

/* Everybody goes home: whatever is open still is given back, and time passes until nothing is left to do. */
static int world_close(struct world *w) {
  for (uint32_t i = 0; i < w->nends; i++)
    if (w->ends[i].qd >= 0)
      end_give_back(w, &w->ends[i], false);
  EXPECT(w, hy_close(w->net.shards[1], w->listener) == 0);
  int line = run_until(w, w->net.now + MINUTES(120));
  if (line == 0)
    line = net_check_clean(&w->net);
  if (line == 0 && net_next(&w->net) != UINT64_MAX)
    line = __LINE__;
  net_close(&w->net);
  return line;
}

/* ---- what holds ---- */

static struct world world;

static void impair(struct world *w, uint32_t lost_max) {
  struct dice *dice = &w->net.dice;
  struct impairments *im = &w->net.impair;
  im->lost = dice_below(dice, 3) ? dice_below(dice, lost_max + 1) : 0;
  im->damaged = dice_below(dice, 4) == 0 ? dice_below(dice, lost_max + 1) : 0;
  im->repeated = dice_below(dice, 3) == 0 ? dice_below(dice, 200) : 0;
  im->late = dice_below(dice, 2) ? dice_below(dice, 300) : 0;
  im->late_ns = dice_u64(dice) >> (36 + dice_below(dice, 12)); /* to 268 ms */
}

static int run_to_the_end(struct world *w) {
  int line = run_until(w, w->net.now + MINUTES(120));
  if (w->net.trace)
    world_dump(w);
  if (line != 0)
    return line;
  HOLDS(all_given_back(w));
  HOLDS(w->nends == 2 * w->nconns);
  for (uint32_t i = 0; i < w->nends; i++) {
    struct end *e = &w->ends[i], *peer = partner(w, e);
    HOLDS(peer != NULL);
    HOLDS(e->error == 0);
    HOLDS(e->received == peer->to_send);
  }
  return world_close(w);
}

static int streams_arrive_whole_over_a_perfect_wire(uint64_t seed) {
  struct world *w = &world;
  int line = world_open(w, seed);
  return line != 0 || (line = world_connect(w)) != 0 ? line : run_to_the_end(w);
}

static int streams_arrive_whole_over_a_bad_wire(uint64_t seed) {
  struct world *w = &world;
  int line = world_open(w, seed);
  if (line != 0)
    return line;
  impair(w, 80);
  return (line = world_connect(w)) != 0 ? line : run_to_the_end(w);
}

/* Where nothing is lost, an abort is seen by the other side, unless that has finished before. */
static int an_abort_reaches_the_peer_and_leaves_nothing(uint64_t seed) {
  struct world *w = &world;
  int line = world_open(w, seed);
  if (line != 0)
    return line;
  impair(w, 0);
  w->must_succeed = false;
  if ((line = world_connect(w)) != 0)
    return line;
  for (uint32_t i = 0; i < w->nends; i++)
    w->ends[i].abort_at = dice_below(&w->net.dice, w->ends[i].to_send + 2);
  if ((line = run_until(w, w->net.now + MINUTES(120))) != 0)
    return line;
  for (uint32_t i = 0; i < w->nends; i++) {
    const struct end *e = &w->ends[i], *peer = partner(w, e);
    HOLDS(e->qd < 0);
    HOLDS(peer != NULL || !e->connected || e->aborted); /* or it was reset before it was accepted */
    HOLDS(e->error == 0 || peer == NULL || peer->aborted);
    HOLDS(peer == NULL || e->received <= peer->to_send);
  }
  return world_close(w);
}

/* The wire is cut in the middle: who has something to say finds out, and closing frees the rest. */
static int a_cut_wire_leaves_nothing(uint64_t seed) {
  struct world *w = &world;
  int line = world_open(w, seed);
  if (line != 0)
    return line;
  impair(w, 50);
  w->must_succeed = false;
  w->net.cut_at = w->net.now + (dice_u64(&w->net.dice) >> (27 + dice_below(&w->net.dice, 20)));
  if ((line = world_connect(w)) != 0 || (line = run_until(w, w->net.now + MINUTES(120))) != 0)
    return line;
  for (uint32_t i = 0; i < w->nends; i++) {
    const struct end *e = &w->ends[i];
    HOLDS(e->qd < 0 || (e->connected && e->sent == e->to_send && e->pushes == e->pushed));
  }
  return world_close(w);
}

#define PROPERTY(name, seeds)                                                                                \
  static void property_##name(void **state) {                                                                \
    for_seeds(seeds, name);                                                                                  \
  }

PROPERTY(streams_arrive_whole_over_a_perfect_wire, 100)
PROPERTY(streams_arrive_whole_over_a_bad_wire, 300)
PROPERTY(an_abort_reaches_the_peer_and_leaves_nothing, 150)
PROPERTY(a_cut_wire_leaves_nothing, 100)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(property_streams_arrive_whole_over_a_perfect_wire),
      cmocka_unit_test(property_streams_arrive_whole_over_a_bad_wire),
      cmocka_unit_test(property_an_abort_reaches_the_peer_and_leaves_nothing),
      cmocka_unit_test(property_a_cut_wire_leaves_nothing),
  };
  choose_tests();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
