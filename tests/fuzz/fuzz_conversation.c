/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of any kind, at any time, to a shard with a listener, an established
 * connection, one that is being opened and a datagram socket, while the application
 * does what it likes. Afterwards everything is closed, time passes, and no frame,
 * connection or token may be left.
 *
 * The input is a row of records: a byte that says what, and in how small frames a
 * packet arrives, a byte of length, that many bytes. Checksums are made right where the record asks for it,
 * and numbers are relative to the connection's, or mutation would hardly ever get past the first check.
 */
#include "core/shard.h"
#include "core/wire.h"
#include "tcp/csum.h"
#include "tcp/tcp.h"

#include <stdlib.h>
#include <string.h>

enum record {
  RAW,     /* a frame as it is */
  MENDED,  /* a frame whose addresses and checksums are made right */
  SEGMENT, /* of the established connection: see struct told */
  TIME,    /* passes: four bytes, microseconds */
  APPLICATION,
  RECORDS,
};

struct told {
  int16_t seq, ack; /* from what the connection expects next, and from what it sent last */
  uint16_t window;
  uint8_t flags;
  uint8_t words; /* of options: so many of the bytes that follow */
};

enum {
  PORT = 80,
  PEER_PORT = 4321,
  ETH_IP = ETH_LEN + IP4_LEN,
  FRAME_MAX = ETH_IP + 60 + 256,
  QUEUES = 8,
  MTU = 4000
};

/* Most records arrive in one frame, whole; the others are cut behind, or within, their headers. */
static const uint32_t pieces[] = {1500, 1500, 1500, 100, 60, 33, 7, 1};

struct world {
  hy_shard *shard;
  hy_host *host;
  uint32_t wire, frames;
  uint64_t now;
  uint32_t piece;    /* bytes of a frame that the next packet fills */
  uint32_t seq, ack; /* as the peer of the established connection has them */
  hy_qd queues[QUEUES];
  uint32_t nqueues;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
  if (!holds)
    abort();
}

static hy_addr address(const char *text) {
  hy_addr a;
  must(hy_addr_parse(text, &a) == 0);
  return a;
}

static void poll_once(struct world *w) {
  uint8_t frame[MTU + 100];
  hy_event events[16];
  int n;
  hy_clock_set(w->shard, w->now);
  while ((n = hy_wait_any(w->shard, events, 16, 0)) > 0)
    for (int i = 0; i < n; i++) {
      hy_sga_free(w->shard, &events[i].sga);
      if (events[i].accepted >= 0) {
        if (w->nqueues < QUEUES)
          w->queues[w->nqueues++] = events[i].accepted;
        else
          hy_abort(w->shard, events[i].accepted);
      }
    }
  must(n == 0);
  while ((n = hy_wire_collect(w->shard, w->wire, frame, sizeof frame)) > 0)
    if (n >= ETH_IP + TCP_LEN && load16(frame + ETH_IP) == PORT && load16(frame + ETH_IP + 2) == PEER_PORT &&
        (frame[ETH_IP + 13] & TCP_SYN))
      w->ack = load32(frame + ETH_IP + 4) + 1;
  must(n == 0);
}

static void inject(struct world *w, const uint8_t *frame, size_t len) {
  must(wire_inject_split(shard_device(w->shard, w->wire), frame, len, w->piece) == 0);
  poll_once(w);
}

/* Makes it a frame from the peer to us, in IPv4 or IPv6 as it says itself, with checksums that are right. */
static void mend(uint8_t *f, size_t len) {
  static const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
  if (len < ETH_IP)
    return;
  memcpy(f, macs, sizeof macs);
  hy_addr us = address("10.0.0.1"), peer = address("10.0.0.2");
  uint8_t *ip = f + ETH_LEN, *l4;
  uint8_t proto;
  if (load16(f + 12) == 0x86dd && len >= ETH_LEN + IP6_LEN) {
    us = address("fd00::1");
    peer = address("fd00::2");
    memcpy(ip + 8, peer.ip, 16);
    memcpy(ip + 24, us.ip, 16);
    store16(ip + 4, (uint16_t)(len - ETH_LEN - IP6_LEN));
    l4 = ip + IP6_LEN;
    proto = ip[6];
  } else {
    store16(f + 12, 0x0800);
    uint32_t words = (ip[0] & 15u) < 5 ? 5 : ip[0] & 15u;
    if (ETH_LEN + words * 4 > len)
      words = 5;
    ip[0] = (uint8_t)(0x40 | words);
    store16(ip + 2, (uint16_t)(len - ETH_LEN));
    memcpy(ip + 12, peer.ip + 12, 4);
    memcpy(ip + 16, us.ip + 12, 4);
    store16(ip + 10, 0);
    uint16_t sum = csum_fold(csum_add(0, ip, words * 4));
    memcpy(ip + 10, &sum, 2);
    l4 = ip + words * 4;
    proto = ip[9];
  }
  uint32_t l4_len = (uint32_t)(f + len - l4), at = proto == 6 ? 16 : 6;
  if (l4_len < at + 2 || (proto != 6 && proto != 17))
    return;
  store16(l4 + at, 0);
  uint16_t sum = csum_fold(csum_add(pseudo_sum(peer.ip, us.ip, proto, l4_len), l4, l4_len));
  memcpy(l4 + at, &sum, 2);
}

static void segment(struct world *w, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t window,
                    const uint8_t *rest, size_t len, uint32_t words) {
  uint8_t f[FRAME_MAX] = {0};
  uint8_t *h = f + ETH_IP;
  f[ETH_LEN] = 0x45;
  f[ETH_LEN + 8] = 64;
  f[ETH_LEN + 9] = 6;
  store16(h, PEER_PORT);
  store16(h + 2, PORT);
  store32(h + 4, seq);
  store32(h + 8, ack);
  h[12] = (uint8_t)((5 + words) << 4);
  h[13] = flags;
  store16(h + 14, window);
  memcpy(h + TCP_LEN, rest, len);
  mend(f, ETH_IP + TCP_LEN + len);
  inject(w, f, ETH_IP + TCP_LEN + len);
}

static void record_segment(struct world *w, const uint8_t *bytes, size_t len) {
  struct told t;
  if (len < sizeof t)
    return;
  memcpy(&t, bytes, sizeof t);
  bytes += sizeof t;
  len -= sizeof t;
  uint32_t words = t.words % 11;
  if (words * 4 > len)
    words = (uint32_t)len / 4;
  segment(w, t.flags, w->seq + (uint32_t)(int32_t)t.seq, w->ack + (uint32_t)(int32_t)t.ack, t.window, bytes,
          len, words);
  /* The peer goes on, as one would that follows the rules. */
  if (t.seq == 0 && !(t.flags & TCP_RST))
    w->seq += (uint32_t)(len - words * 4) + ((t.flags & TCP_FIN) ? 1 : 0);
}

static void record_application(struct world *w, const uint8_t *bytes, size_t len) {
  if (len < 2 || w->nqueues == 0)
    return;
  hy_shard *s = w->shard;
  uint32_t which = bytes[1] % w->nqueues;
  hy_qd qd = w->queues[which];
  hy_qt qt;
  hy_sga sga;
  switch (bytes[0] % 8) {
  case 0:
    hy_pop(s, qd, &qt);
    break;
  case 1:
    if (hy_sga_alloc(s, 1 + bytes[len - 1] * 47u, &sga) == 0) {
      hy_push(s, qd, &sga, &qt);
      hy_sga_free(s, &sga);
    }
    break;
  case 2:
    hy_accept(s, qd, &qt);
    break;
  case 3:
    hy_shutdown(s, qd);
    break;
  case 4:
    hy_drain(s, qd, &qt);
    break;
  case 5:
    if (hy_pop(s, qd, &qt) == 0)
      hy_cancel(s, qt);
    break;
  default:
    (bytes[0] % 8 == 6 ? hy_close : hy_abort)(s, qd);
    w->queues[which] = w->queues[--w->nqueues];
  }
  poll_once(w);
}

/* ---- before and after ---- */

static void world_open(struct world *w) {
  hy_config config;
  hy_config_default(&config);
  config.frames = 256;
  config.sockets = 32;
  config.connections = 16;
  config.tokens = 128;
  config.clock = HY_CLOCK_VIRTUAL;
  config.hugepages = HY_HUGEPAGES_NO;
  config.seeded = 1;
  config.rcvbuf_bytes = config.sndbuf_bytes = 16384;
  *w = (struct world){.now = 1000000000, .seq = 1000, .piece = 1500};
  must(hy_shard_open(&config, &w->shard) == 0 && hy_wire_attach(w->shard, 1, &w->wire) == 0);
  hy_host_link link = {.ifindex = 1, .mtu_bytes = MTU, .mac = {2, 0, 0, 0, 0, 1}, .answers_arp = 1};
  hy_host_addr addrs[] = {{.addr = address("10.0.0.1"), .ifindex = 1, .prefix_len = 24},
                          {.addr = address("fd00::1"), .ifindex = 1, .prefix_len = 64}};
  hy_host_route routes[] = {{.dst = address("10.0.0.0"), .prefix_len = 24, .ifindex = 1},
                            {.dst = address("fd00::"), .prefix_len = 64, .ifindex = 1}};
  hy_host_neigh neighs[] = {{.addr = address("10.0.0.2"), .ifindex = 1, .mac = {2, 0, 0, 0, 0, 2}},
                            {.addr = address("fd00::2"), .ifindex = 1, .mac = {2, 0, 0, 0, 0, 2}}};
  must(hy_host_create(&w->host) == 0 &&
       hy_host_update(w->host, &link, 1, addrs, 2, routes, 2, neighs, 2) == 0 &&
       hy_shard_set_host(w->shard, w->host) == 0);
  w->frames = w->shard->arena.free_count;

  hy_addr any = {.port = PORT}, peer = address("10.0.0.2:9");
  hy_qt qt;
  must(hy_socket(w->shard, HY_STREAM, &w->queues[0]) == 0 && hy_bind(w->shard, w->queues[0], &any) == 0 &&
       hy_listen(w->shard, w->queues[0], 4) == 0 && hy_accept(w->shard, w->queues[0], &qt) == 0);
  any.port = 53;
  must(hy_socket(w->shard, HY_DGRAM, &w->queues[1]) == 0 && hy_bind(w->shard, w->queues[1], &any) == 0);
  must(hy_socket(w->shard, HY_STREAM, &w->queues[2]) == 0 &&
       hy_connect(w->shard, w->queues[2], &peer, &qt) == 0);
  w->nqueues = 3;
  static const uint8_t offer[] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7};
  segment(w, TCP_SYN, w->seq, 0, 65535, offer, sizeof offer, sizeof offer / 4);
  w->seq++;
  segment(w, TCP_ACK, w->seq, w->ack, 512, offer, 0, 0);
}

static void world_close(struct world *w) {
  while (w->nqueues > 0)
    must(hy_close(w->shard, w->queues[--w->nqueues]) == 0);
  for (unsigned steps = 0;; steps++) {
    must(steps < 100000);
    poll_once(w);
    uint64_t next = hy_next_deadline(w->shard);
    if (next == UINT64_MAX)
      break;
    w->now = next > w->now ? next : w->now + 1000;
  }
  must(w->shard->stack.conns_used == 0);
  must(w->shard->app_frames == 0);
  must(w->shard->arena.free_count == w->frames);
  for (uint32_t t = 1; t <= w->shard->tokens.count; t++)
    must(w->shard->tokens.slots[t].state == TOKEN_FREE);
  hy_shard_close(w->shard);
  hy_host_close(w->host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct world w;
  world_open(&w);
  for (const uint8_t *end = data + size; end - data >= 2;) {
    uint8_t what = data[0] % RECORDS, frame[FRAME_MAX];
    w.piece = pieces[data[0] / RECORDS % (sizeof pieces / sizeof *pieces)];
    size_t len = data[1];
    data += 2;
    if (len > (size_t)(end - data))
      len = (size_t)(end - data);
    uint32_t us;
    switch (what) {
    case RAW:
    case MENDED:
      memcpy(frame, data, len);
      if (what == MENDED)
        mend(frame, len);
      inject(&w, frame, len);
      break;
    case SEGMENT:
      record_segment(&w, data, len);
      break;
    case TIME:
      us = 0;
      memcpy(&us, data, len < 4 ? len : 4);
      w.now += us * 1000ull;
      poll_once(&w);
      break;
    default:
      record_application(&w, data, len);
    }
    data += len;
  }
  world_close(&w);
  return 0;
}
