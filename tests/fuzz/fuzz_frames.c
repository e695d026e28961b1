/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile peer and a hostile wire against a whole shard: an echo server over
 * TCP and UDP, a virtual clock, and a wire device whose far end is the input.
 *
 * The input is a script of records. So that the fuzzer gets past checksums and
 * sequence numbers, a record may ask for a well-formed frame around its bytes:
 *
 *     kind % 8   0  a raw frame                       len16 bytes
 *                1  an IP packet, v4 or v6            protocol len8 bytes
 *                2..4  a TCP segment of the connection: flags, distance of seq and ack
 *                   from what the stack expects, window, options, payload
 *                5  time passes                       milliseconds16
 *                6  the application closes, aborts or shuts down what it has accepted
 *                7  the application connects to the peer
 *
 * Whatever comes in, what the stack sends must be well formed: lengths that fit
 * the frame, and right checksums.
 */
#include "core/hybrid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
  LINK = 1,
  ECHO_PORT = 7,
  PEER_PORT = 4000,
  FRAME_MAX = 1514,
  ACCEPTED_MAX = 8,
  EVENTS = 16,
  ETH_IPV4 = 0x0800,
  ETH_IPV6 = 0x86dd,
  TCP = 6,
  UDP = 17,
  FLAG_FIN = 1,
  FLAG_SYN = 2,
};

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t peer_mac[6] = {2, 0, 0, 0, 0, 2};

struct script {
  const uint8_t *at;
  const uint8_t *end;
};

struct world {
  hy_shard *shard;
  uint32_t port;
  hy_qd datagrams;
  hy_qd accepted[ACCEPTED_MAX];
  unsigned naccepted;
  uint64_t now_ns;
  /* Of the last segment that the stack sent to the peer. */
  uint32_t stack_seq_end;
  uint32_t stack_ack;
  uint16_t stack_port;
};

/* ---- bytes ---------------------------------------------------------------- */

static uint8_t take8(struct script *s) {
  return s->at < s->end ? *s->at++ : 0;
}

static uint16_t take16(struct script *s) {
  uint8_t high = take8(s);
  return (uint16_t)(high << 8 | take8(s));
}

/* Up to len bytes of the script; the rest is zero. */
static void take(struct script *s, uint8_t *out, size_t len) {
  size_t left = (size_t)(s->end - s->at);
  size_t n = len < left ? len : left;
  memcpy(out, s->at, n);
  memset(out + n, 0, len - n);
  s->at += n;
}

static void put16(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value);
}

static uint16_t get16(const uint8_t *at) {
  return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at) {
  return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* RFC 1071, written here again on purpose: the stack's own is what is under test. */
static uint32_t sum(uint32_t acc, const uint8_t *at, size_t len) {
  for (size_t i = 0; i + 1 < len; i += 2)
    acc += get16(at + i);
  if (len & 1)
    acc += (uint32_t)at[len - 1] << 8;
  return acc;
}

static uint16_t fold(uint32_t acc) {
  while (acc >> 16)
    acc = (acc & 0xffff) + (acc >> 16);
  return (uint16_t)~acc;
}

/* ---- frames to the stack --------------------------------------------------- */

/* Addresses as in hy_addr: 10.0.0.host, or fd00::host. */
static void address(hy_addr *out, bool v6, uint8_t host) {
  memset(out, 0, sizeof *out);
  out->family = v6 ? 6 : 4;
  if (v6) {
    out->ip[0] = 0xfd;
  } else {
    out->ip[10] = out->ip[11] = 0xff;
    out->ip[12] = 10;
  }
  out->ip[15] = host;
}

/* Writes Ethernet and IP headers around the payload that stands at frame + 54; what is sent starts at *start.
 */
static size_t wrap(uint8_t *frame, bool v6, uint8_t protocol, size_t len, size_t *start) {
  size_t ip_len = v6 ? 40 : 20;
  uint8_t *ip = frame + 54 - ip_len;
  hy_addr from;
  hy_addr to;
  address(&from, v6, 2);
  address(&to, v6, 1);
  memset(ip, 0, ip_len);
  if (v6) {
    ip[0] = 0x60;
    put16(ip + 4, (uint32_t)len);
    ip[6] = protocol;
    ip[7] = 64;
    memcpy(ip + 8, from.ip, 16);
    memcpy(ip + 24, to.ip, 16);
  } else {
    ip[0] = 0x45;
    put16(ip + 2, (uint32_t)(len + 20));
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, from.ip + 12, 4);
    memcpy(ip + 16, to.ip + 12, 4);
    put16(ip + 10, fold(sum(0, ip, 20)));
  }
  size_t checksum_at = protocol == TCP ? 16 : protocol == UDP ? 6 : len;
  if (checksum_at + 2 <= len) {
    uint8_t *payload = frame + 54;
    put16(payload + checksum_at, 0);
    uint32_t acc = sum((uint32_t)(protocol + len), ip + (v6 ? 8 : 12), v6 ? 32 : 8);
    put16(payload + checksum_at, fold(sum(acc, payload, len)));
  }
  uint8_t *ethernet = ip - 14;
  memcpy(ethernet, our_mac, 6);
  memcpy(ethernet + 6, peer_mac, 6);
  put16(ethernet + 12, v6 ? ETH_IPV6 : ETH_IPV4);
  *start = (size_t)(ethernet - frame);
  return 14 + ip_len + len;
}

static void send_raw(struct world *w, struct script *s) {
  uint8_t frame[FRAME_MAX];
  size_t len = take16(s) % (FRAME_MAX + 1);
  take(s, frame, len);
  if (len >= 12 && (len & 1)) {
    memcpy(frame, our_mac, 6);
    memcpy(frame + 6, peer_mac, 6);
  }
  hy_wire_inject(w->shard, w->port, frame, len);
}

static void send_packet(struct world *w, struct script *s) {
  uint8_t frame[54 + 256];
  size_t start;
  uint8_t how = take8(s);
  uint8_t protocol = how & 2 ? UDP : take8(s);
  size_t len = take8(s);
  take(s, frame + 54, len);
  if (protocol == UDP && len >= 8) {
    put16(frame + 54, PEER_PORT);
    put16(frame + 56, ECHO_PORT);
    put16(frame + 58, (uint32_t)len);
  }
  len = wrap(frame, how & 1, protocol, len, &start);
  hy_wire_inject(w->shard, w->port, frame + start, len);
}

static void send_segment(struct world *w, struct script *s) {
  uint8_t frame[54 + 60 + 256];
  size_t start;
  uint8_t how = take8(s);
  uint8_t flags = take8(s);
  uint32_t seq = w->stack_ack + (uint32_t)(int8_t)take8(s) * (how & 2 ? 1460u : 1u);
  uint32_t ack = w->stack_seq_end + (uint32_t)(int8_t)take8(s) * (how & 4 ? 1460u : 1u);
  uint8_t *tcp = frame + 54;
  size_t options = (take8(s) % 11u) * 4u;
  size_t payload = take8(s);
  put16(tcp, PEER_PORT + (how >> 6));
  put16(tcp + 2, how & 8 ? w->stack_port : ECHO_PORT);
  put32(tcp + 4, seq);
  put32(tcp + 8, ack);
  tcp[12] = (uint8_t)((20 + options) / 4 << 4);
  tcp[13] = flags;
  put16(tcp + 14, take16(s));
  put16(tcp + 16, 0);
  put16(tcp + 18, 0);
  take(s, tcp + 20, options + payload);
  size_t len = wrap(frame, how & 1, TCP, 20 + options + payload, &start);
  hy_wire_inject(w->shard, w->port, frame + start, len);
}

/* ---- frames from the stack -------------------------------------------------- */

static void check(bool holds) {
  if (!holds)
    abort();
}

static void see_segment(struct world *w, const uint8_t *tcp, size_t len) {
  size_t header = (size_t)(tcp[12] >> 4) * 4;
  check(header >= 20 && header <= len);
  uint32_t span = (uint32_t)(len - header) + ((tcp[13] & FLAG_SYN) != 0) + ((tcp[13] & FLAG_FIN) != 0);
  w->stack_seq_end = get32(tcp + 4) + span;
  w->stack_ack = get32(tcp + 8);
  w->stack_port = get16(tcp);
}

static void see_frame(struct world *w, const uint8_t *frame, size_t len) {
  check(len >= 14 + 20);
  uint16_t type = get16(frame + 12);
  const uint8_t *ip = frame + 14;
  size_t ip_len = type == ETH_IPV6 ? 40 : 20;
  size_t payload;
  uint8_t protocol;
  if (type == ETH_IPV4) {
    check(ip[0] == 0x45 && fold(sum(0, ip, 20)) == 0);
    payload = (size_t)get16(ip + 2) - ip_len;
    protocol = ip[9];
  } else {
    check(type == ETH_IPV6 && ip[0] >> 4 == 6 && len >= 14 + 40);
    payload = get16(ip + 4);
    protocol = ip[6];
  }
  check(14 + ip_len + payload <= len);
  const uint8_t *transport = ip + ip_len;
  check((protocol == TCP && payload >= 20) || (protocol == UDP && payload >= 8));
  if (protocol == TCP || get16(transport + 6) != 0) {
    uint32_t acc =
        sum((uint32_t)(protocol + payload), ip + ip_len - (ip_len == 40 ? 32 : 8), ip_len == 40 ? 32 : 8);
    check(fold(sum(acc, transport, payload)) == 0);
  }
  if (protocol == TCP)
    see_segment(w, transport, payload);
}

/* ---- the application --------------------------------------------------------- */

static void forget(struct world *w, hy_qd qd) {
  for (unsigned i = 0; i < w->naccepted; i++)
    if (w->accepted[i] == qd)
      w->accepted[i] = w->accepted[--w->naccepted];
}

static void on_pop(struct world *w, hy_event *event) {
  hy_qt again;
  if (event->status < 0 || (event->sga.nsegs == 0 && event->qd != w->datagrams)) {
    if (event->status != -ECANCELED && event->qd != w->datagrams && hy_close(w->shard, event->qd) == 0)
      forget(w, event->qd);
    return;
  }
  int sent = event->qd == w->datagrams ? hy_pushto(w->shard, event->qd, &event->sga, &event->addr, NULL)
                                       : hy_push(w->shard, event->qd, &event->sga, NULL);
  if (sent < 0)
    hy_sga_free(w->shard, &event->sga);
  hy_pop(w->shard, event->qd, &again);
}

static void on_connection(struct world *w, hy_qd qd) {
  hy_qt popped;
  if (w->naccepted == ACCEPTED_MAX) {
    hy_abort(w->shard, qd);
    return;
  }
  w->accepted[w->naccepted++] = qd;
  hy_pop(w->shard, qd, &popped);
}

static void settle(struct world *w) {
  hy_event events[EVENTS];
  uint8_t frame[2048];
  int n;
  /* A time-out of 0 is one pass; a pass that completes nothing ends it. */
  while ((n = hy_wait_any(w->shard, events, EVENTS, 0)) > 0) {
    for (int i = 0; i < n; i++) {
      hy_qt again;
      hy_event *event = &events[i];
      if (event->op == HY_OP_ACCEPT) {
        if (event->status == 0)
          on_connection(w, event->accepted);
        hy_accept(w->shard, event->qd, &again);
      } else if (event->op == HY_OP_CONNECT) {
        if (event->status == 0)
          on_connection(w, event->qd);
        else
          hy_close(w->shard, event->qd);
      } else if (event->op == HY_OP_POP) {
        on_pop(w, event);
      }
    }
  }
  while ((n = hy_wire_collect(w->shard, w->port, frame, sizeof frame)) > 0)
    see_frame(w, frame, (size_t)n);
}

static void interfere(struct world *w, uint8_t what) {
  if (w->naccepted == 0)
    return;
  hy_qd qd = w->accepted[(what >> 2) % w->naccepted];
  if (what % 4 == 0) {
    hy_shutdown(w->shard, qd);
    return;
  }
  if ((what % 4 == 1 ? hy_abort(w->shard, qd) : hy_close(w->shard, qd)) == 0)
    forget(w, qd);
}

static void connect_out(struct world *w, bool v6) {
  hy_addr peer;
  hy_qd qd;
  hy_qt qt;
  address(&peer, v6, 2);
  peer.port = PEER_PORT;
  if (hy_socket(w->shard, HY_STREAM, &qd) == 0 && hy_connect(w->shard, qd, &peer, &qt) < 0)
    hy_close(w->shard, qd);
}

/* ---- one input ---------------------------------------------------------------- */

static hy_host *host_of_the_lab(void) {
  hy_host *host;
  hy_host_link link = {.ifindex = LINK, .mtu_bytes = 1500};
  hy_host_addr addrs[2] = {{.ifindex = LINK, .prefix_len = 24}, {.ifindex = LINK, .prefix_len = 64}};
  hy_host_route routes[2] = {{.ifindex = LINK, .prefix_len = 24}, {.ifindex = LINK, .prefix_len = 64}};
  hy_host_neigh neighs[2] = {{.ifindex = LINK}, {.ifindex = LINK}};
  memcpy(link.mac, our_mac, 6);
  for (int v6 = 0; v6 < 2; v6++) {
    address(&addrs[v6].addr, v6, 1);
    address(&routes[v6].dst, v6, 0);
    address(&neighs[v6].addr, v6, 2);
    memcpy(neighs[v6].mac, peer_mac, 6);
  }
  check(hy_host_create(&host) == 0);
  check(hy_host_update(host, &link, 1, addrs, 2, routes, 2, neighs, 2) == 0);
  return host;
}

static void open_world(struct world *w, const hy_host *host) {
  hy_config config;
  hy_addr anywhere = {.port = ECHO_PORT};
  hy_qd listener;
  hy_qt qt;
  memset(w, 0, sizeof *w);
  hy_config_default(&config);
  config.frames = 512;
  config.sockets = 64;
  config.connections = 32;
  config.tokens = 256;
  config.rcvbuf_bytes = config.sndbuf_bytes = 65536;
  config.app_frames_max = 256;
  config.clock = HY_CLOCK_VIRTUAL;
  config.hugepages = HY_HUGEPAGES_NO;
  config.seeded = 1;
  w->now_ns = 1000000000;
  check(hy_shard_open(&config, &w->shard) == 0);
  check(hy_clock_set(w->shard, w->now_ns) == 0);
  check(hy_shard_set_host(w->shard, host) == 0);
  check(hy_wire_attach(w->shard, LINK, &w->port) == 0);
  check(hy_socket(w->shard, HY_STREAM, &listener) == 0 && hy_bind(w->shard, listener, &anywhere) == 0);
  check(hy_listen(w->shard, listener, 8) == 0 && hy_accept(w->shard, listener, &qt) == 0);
  check(hy_socket(w->shard, HY_DGRAM, &w->datagrams) == 0 && hy_bind(w->shard, w->datagrams, &anywhere) == 0);
  check(hy_pop(w->shard, w->datagrams, &qt) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static hy_host *host;
  struct world w;
  struct script s = {data, data + size};
  if (host == NULL)
    host = host_of_the_lab();
  open_world(&w, host);
  while (s.at < s.end) {
    uint8_t kind = take8(&s);
    switch (kind % 8) {
    case 0:
      send_raw(&w, &s);
      break;
    case 1:
      send_packet(&w, &s);
      break;
    case 5:
      w.now_ns += (uint64_t)take16(&s) * 1000000;
      hy_clock_set(w.shard, w.now_ns);
      break;
    case 6:
      interfere(&w, take8(&s));
      break;
    case 7:
      connect_out(&w, kind & 8);
      break;
    default:
      send_segment(&w, &s);
    }
    settle(&w);
  }
  hy_shard_close(w.shard);
  return 0;
}
