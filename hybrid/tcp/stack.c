/* SPDX-License-Identifier: Apache-2.0 */
/* The stack's entry points: a burst in, time, output; links and the host table. */
#include "tcp/stack.h"

#include <errno.h>
#include <stdlib.h>

#include "tcp/tcp.h"
#include "tcp/udp.h"
#include "tcp/wire.h"

int stack_init(struct stack *st, const struct stack_config *config) {
  const hy_config *limits = config->limits;
  memset(st, 0, sizeof *st);
  st->transport.ops = &stack_transport;
  st->arena = config->arena;
  st->tokens = config->tokens;
  st->queues = config->queues;
  st->stats = config->stats;
  st->app_frames = config->app_frames;
  st->now = config->now;
  st->notice = config->notice;
  st->notice_ctx = config->notice_ctx;
  st->rcvbuf_bytes = limits->rcvbuf_bytes;
  st->sndbuf_bytes = limits->sndbuf_bytes;
  st->app_frames_max = limits->app_frames_max;
  st->plain_max = st->frame_room = arena_frame_room(st->arena);
  st->frames_reserve = arena_reserve(st->arena);
  st->port_lo = limits->port_lo;
  st->port_hi = limits->port_hi;
  rng_init(&st->rng, config->seed);
  int rc = host_view_init(&st->host);
  if (rc == 0)
    rc = tcp_init(st, limits);
  if (rc == 0)
    rc = udp_init(st, limits);
  if (rc < 0)
    stack_fini(st);
  return rc;
}

void stack_fini(struct stack *st) {
  for (uint32_t i = 0; i < st->nlinks; i++) {
    struct link *l = &st->links[i];
    while (l->tx_head != l->tx_tail)
      packet_drop(st->arena, l->tx[l->tx_head++ & (LINK_TX_FRAMES - 1)]);
  }
  neigh_fini(st);
  udp_fini(st);
  tcp_fini(st);
  host_view_fini(&st->host);
}

static void link_refresh(struct stack *st, struct link *l) {
  const hy_host_link *row = l->dev ? host_link(&st->host, l->ifindex) : NULL;
  l->known = row != NULL;
  if (!row)
    return;
  memcpy(l->mac, row->mac, 6);
  l->answers_arp = row->answers_arp;
  uint32_t fits = l->dev->frame_bytes_max - ETH_LEN - VLAN_MAX;
  l->mtu_bytes = row->mtu_bytes < fits ? row->mtu_bytes : fits;
  if (l->mtu_bytes < 576) /* RFC 791: every path takes that; less would leave no room for headers */
    l->mtu_bytes = 576;
}

int stack_add_link(struct stack *st, struct hy_device *dev) {
  uint32_t index = 0;
  while (index < st->nlinks && st->links[index].dev)
    index++;
  if (index == STACK_LINKS)
    return -ENOSPC;
  struct link *l = &st->links[index];
  l->dev = dev;
  l->ifindex = dev->ifindex;
  link_refresh(st, l);
  if (dev->caps & DEVICE_TX_CSUM)
    st->plain_max = CSUM_LEAVE_MIN - 1;
  if (index == st->nlinks)
    st->nlinks++;
  return (int)index;
}

void stack_remove_link(struct stack *st, uint8_t link, int error) {
  struct link *l = &st->links[link];
  tcp_fail_link(st, link, error);
  neigh_forget_link(st, link);
  st->tx_waiting -= l->tx_tail - l->tx_head;
  for (; l->tx_head != l->tx_tail; l->tx_head++)
    packet_drop(st->arena, l->tx[l->tx_head & (LINK_TX_FRAMES - 1)]);
  *l = (struct link){0};
  st->neigh.version++; /* paths by it are looked up again */
}

bool stack_reaches(struct stack *st, const uint8_t remote[16]) {
  struct host_hop hop;
  if (!host_route(&st->host, remote, &hop))
    return false;
  for (uint32_t i = 0; i < st->nlinks; i++)
    if (st->links[i].dev && st->links[i].ifindex == hop.ifindex)
      return true;
  return false;
}

void stack_host_changed(struct stack *st) {
  for (uint32_t i = 0; i < st->nlinks; i++)
    link_refresh(st, &st->links[i]);
  neigh_retry(st);
}

static void dispatch(struct stack *st, struct packet *p) {
  if (__builtin_expect(p->proto == PROTO_TCP, 1)) {
    tcp_input(st, p);
  } else if (p->proto == PROTO_UDP) {
    udp_input(st, p);
  } else {
    if (p->proto == PROTO_ICMP || p->proto == PROTO_ICMP6)
      st->stats->drop_icmp++;
    else
      st->stats->drop_protocol++;
    packet_drop(st->arena, p->frame);
  }
}

/*
 * In stages, so that the cache misses of a burst overlap: headers of all frames, then the flow table's
 * lines, then the connections', then the work itself.
 */
static void input_burst(struct stack *st, uint8_t link, const uint32_t *frames, unsigned n) {
  struct packet packets[DEVICE_BURST];
  unsigned parsed = 0;
  for (unsigned i = 0; i < n; i++) {
    struct packet *p = &packets[parsed];
    if (i + 1 < n)
      __builtin_prefetch(frame_data(st->arena, frames[i + 1]));
    if (!packet_parse(st, link, frames[i], p)) {
      packet_drop(st->arena, frames[i]);
      continue;
    }
    if (p->proto == PROTO_TCP)
      flow_prefetch(&st->flows, p->hash);
    parsed++;
  }
  for (unsigned i = 0; i < parsed; i++) {
    const struct flow_entry *e = &st->flows.entries[packets[i].hash & st->flows.mask];
    if (packets[i].proto == PROTO_TCP && e->conn != FLOW_NONE) {
      const struct tcp_conn *c = conn_at(st, e->conn);
      __builtin_prefetch(c);
      __builtin_prefetch((const uint8_t *)c + 64);
    }
  }
  for (unsigned i = 0; i < parsed; i++)
    dispatch(st, &packets[i]);
}

/* A frame that came alone has nothing to overlap with. */
static void input_one(struct stack *st, uint8_t link, uint32_t frame) {
  struct packet packet;
  if (packet_parse(st, link, frame, &packet))
    dispatch(st, &packet);
  else
    packet_drop(st->arena, frame);
}

void stack_input(struct stack *st, uint8_t link, const uint32_t *frames, unsigned n) {
  assert(n <= DEVICE_BURST);
  if (__builtin_expect(!st->links[link].known, 0)) { /* no address of ours is behind the interface */
    for (unsigned i = 0; i < n; i++)
      packet_drop(st->arena, frames[i]);
    st->stats->drop_mac += n;
  } else if (n == 1) {
    input_one(st, link, frames[0]);
  } else {
    input_burst(st, link, frames, n);
  }
}

void stack_tick(struct stack *st, uint64_t now) {
  assert(now >= st->now);
  st->now = now;
  uint32_t due[64];
  unsigned n;
  while ((n = wheel_expire(&st->wheel, now, due, 64)) > 0)
    for (unsigned i = 0; i < n; i++)
      tcp_timer(st, conn_at(st, due[i]));
  if (__builtin_expect(st->neigh.nwaiting > 0, 0))
    neigh_retry(st);
}

/* One round. Who couldn't send (no room, no frame) has gone to the end of the list and waits for the next. */
void stack_output(struct stack *st) {
  uint32_t last = st->out_tail;
  while (st->out_head != CONN_NONE) {
    uint32_t index = st->out_head;
    tcp_output(st, conn_take_output(st, index));
    if (index == last)
      break;
  }
}

uint64_t stack_next_deadline(struct stack *st) {
  uint64_t timer = wheel_next(&st->wheel), neigh = neigh_deadline(st);
  return timer < neigh ? timer : neigh;
}
