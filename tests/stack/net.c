/* SPDX-License-Identifier: Apache-2.0 */
/* The two hosts and the wire of net.h. */
#include "net.h"

#include <errno.h>

#include "core/wire.h"

static const uint8_t macs[2][6] = {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}};

hy_addr net_addr(uint32_t host, int family, uint16_t port) {
  hy_addr addr;
  assert_int_equal(hy_addr_parse(family == 4 ? "10.0.0.1" : "2001:db8::1", &addr), 0);
  addr.ip[15] = (uint8_t)(host + 1);
  addr.port = port;
  return addr;
}

static int host_describe(hy_host *host, uint32_t self, uint32_t mtu_bytes) {
  hy_host_link link = {.ifindex = 1, .mtu_bytes = mtu_bytes};
  hy_host_addr addrs[2];
  hy_host_route routes[2];
  hy_host_neigh neighs[2];
  memcpy(link.mac, macs[self], 6);
  for (int i = 0; i < 2; i++) {
    int family = i == 0 ? 4 : 6;
    uint32_t len = i == 0 ? 24 : 64;
    addrs[i] = (hy_host_addr){.addr = net_addr(self, family, 0), .ifindex = 1, .prefix_len = len};
    routes[i] = (hy_host_route){.dst = net_addr(self, family, 0), .prefix_len = len, .ifindex = 1};
    neighs[i] = (hy_host_neigh){.addr = net_addr(1 - self, family, 0), .ifindex = 1};
    memcpy(neighs[i].mac, macs[1 - self], 6);
  }
  return hy_host_update(host, &link, 1, addrs, 2, routes, 2, neighs, 2);
}

int net_open(struct net *net, uint64_t seed, const hy_config *config, uint32_t mtu_bytes) {
  memset(net, 0, sizeof *net);
  net->dice.state = seed * 1000003;
  net->mtu_bytes = mtu_bytes;
  net->cut_at = UINT64_MAX;
  net->trace = getenv("HYBRID_TRACE") != NULL;
  /* Clocks that start anywhere: time stamps and the wheel must not mind. */
  net->now = dice_u64(&net->dice) >> (1 + dice_below(&net->dice, 40));
  for (uint32_t i = 0; i < 2; i++) {
    hy_config c = *config;
    c.clock = HY_CLOCK_VIRTUAL;
    c.hugepages = HY_HUGEPAGES_NO;
    c.seeded = 1;
    for (unsigned k = 0; k < sizeof c.seed; k++)
      c.seed[k] = (uint8_t)dice_u64(&net->dice);
    int rc = hy_shard_open(&c, &net->shards[i]);
    if (rc == 0)
      rc = hy_wire_attach(net->shards[i], 1, &net->ports[i]);
    if (rc == 0)
      rc = hy_host_create(&net->hosts[i]);
    if (rc == 0)
      rc = host_describe(net->hosts[i], i, mtu_bytes);
    if (rc == 0)
      rc = hy_shard_set_host(net->shards[i], net->hosts[i]);
    if (rc < 0)
      return rc;
    net->frames[i] = net->shards[i]->arena.free_count;
  }
  net_set_time(net, net->now);
  return 0;
}

void net_close(struct net *net) {
  for (uint32_t i = 0; i < net->nflying; i++)
    free(net->flying[i].bytes);
  for (uint32_t i = 0; i < 2; i++) {
    hy_shard_close(net->shards[i]);
    hy_host_close(net->hosts[i]);
  }
}

void net_set_time(struct net *net, uint64_t now) {
  net->now = now;
  for (uint32_t i = 0; i < 2; i++)
    assert_int_equal(hy_clock_set(net->shards[i], now), 0);
}

/* ---- the wire: a heap by time of arrival ---- */

static bool sooner(const struct flying *a, const struct flying *b) {
  return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void fly(struct net *net, struct flying one) {
  uint32_t i = net->nflying++;
  for (; i > 0 && sooner(&one, &net->flying[(i - 1) / 2]); i = (i - 1) / 2)
    net->flying[i] = net->flying[(i - 1) / 2];
  net->flying[i] = one;
}

static struct flying land(struct net *net) {
  struct flying first = net->flying[0], last = net->flying[--net->nflying];
  uint32_t i = 0;
  for (uint32_t child; (child = 2 * i + 1) < net->nflying; i = child) {
    if (child + 1 < net->nflying && sooner(&net->flying[child + 1], &net->flying[child]))
      child++;
    if (!sooner(&net->flying[child], &last))
      break;
    net->flying[i] = net->flying[child];
  }
  net->flying[i] = last;
  return first;
}

static bool happens(struct net *net, uint32_t thousandths) {
  return thousandths > 0 && dice_below(&net->dice, 1000) < thousandths;
}

static void trace(const struct net *net, uint32_t from, const uint8_t *frame, uint32_t len,
                  const char *fate) {
  bool is4 = frame[12] == 0x08;
  const uint8_t *tcp = frame + 14 + (is4 ? 20 : 40);
  uint32_t seq, ack;
  memcpy(&seq, tcp + 4, 4);
  memcpy(&ack, tcp + 8, 4);
  uint32_t payload = len - (uint32_t)(tcp - frame) - (tcp[12] >> 4) * 4u;
  fprintf(stderr, "%14.6f %u> %5u>%5u %s%s%s%s%s seq %u len %u ack %u win %u%s\n", (double)net->now / 1e9,
          from, tcp[0] << 8 | tcp[1], tcp[2] << 8 | tcp[3], tcp[13] & 2 ? "S" : "", tcp[13] & 1 ? "F" : "",
          tcp[13] & 4 ? "R" : "", tcp[13] & 8 ? "P" : "", tcp[13] & 16 ? "." : "", be32toh(seq), payload,
          be32toh(ack), tcp[14] << 8 | tcp[15], fate);
}

static void launch(struct net *net, uint32_t from, const uint8_t *frame, uint32_t len) {
  const struct impairments *im = &net->impair;
  bool lost = happens(net, im->lost) || net->now >= net->cut_at;
  uint32_t copies = happens(net, im->repeated) ? 2 : 1;
  net->sent++;
  assert_in_range(len, 1, net->mtu_bytes + 14); /* a real link would lose it, every time */
  for (uint32_t copy = 0; copy < copies; copy++) {
    bool damaged = happens(net, im->damaged);
    uint64_t at = net->now + im->delay_ns;
    if (happens(net, im->late))
      at += dice_u64(&net->dice) % (im->late_ns + 1);
    if (net->trace)
      trace(net, from, frame, len, lost ? " LOST" : damaged ? " DAMAGED" : copy ? " REPEATED" : "");
    if (lost || net->nflying == NET_FLYING)
      continue;
    uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    memcpy(bytes, frame, len);
    if (damaged) /* one byte: the Internet checksum finds it always */
      bytes[dice_below(&net->dice, len)] ^= (uint8_t)(1 + dice_below(&net->dice, 255));
    fly(net, (struct flying){.at = at, .order = net->sent, .to = 1 - from, .len = len, .bytes = bytes});
  }
}

void net_run(struct net *net, uint32_t host) {
  uint8_t frame[NET_FRAME_BYTES];
  hy_poll(net->shards[host]);
  int len;
  while ((len = hy_wire_collect(net->shards[host], net->ports[host], frame, sizeof frame)) > 0)
    launch(net, host, frame, (uint32_t)len);
  assert_int_equal(len, 0);
}

void net_deliver(struct net *net) {
  while (net->nflying > 0 && net->flying[0].at <= net->now) {
    struct flying one = land(net);
    struct hy_device *dev = shard_device(net->shards[one.to], net->ports[one.to]);
    uint32_t room = arena_frame_room(dev->arena), piece = room;
    if (one.len > NET_PIECE_MIN && happens(net, 250))
      piece = NET_PIECE_MIN + dice_below(&net->dice, room - NET_PIECE_MIN);
    int rc = wire_inject_split(dev, one.bytes, one.len, piece);
    assert_true(rc == 0 || rc == -ENOBUFS);
    free(one.bytes);
  }
}

uint64_t net_next(struct net *net) {
  uint64_t next = net->nflying > 0 ? net->flying[0].at : UINT64_MAX;
  for (uint32_t i = 0; i < 2; i++) {
    uint64_t deadline = hy_next_deadline(net->shards[i]);
    if (deadline < next)
      next = deadline;
  }
  return next;
}

int net_check_clean(const struct net *net) {
  for (uint32_t i = 0; i < 2; i++) {
    const hy_shard *shard = net->shards[i];
    HOLDS(shard->stack.conns_used == 0);
    HOLDS(shard->app_frames == 0);
    HOLDS(shard->arena.free_count == net->frames[i]);
    for (uint32_t c = 0; c < shard->stack.nconns; c++)
      HOLDS(!wheel_armed(&shard->stack.wheel, c));
    for (uint32_t t = 1; t <= shard->tokens.count; t++)
      HOLDS(shard->tokens.slots[t].state == TOKEN_FREE);
  }
  return 0;
}
