/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that wait for a neighbour; ARP and neighbour discovery for devices that have no kernel behind them.
 */
#include "tcp/neigh.h"

#include "tcp/csum.h"
#include "tcp/stack.h"
#include "tcp/wire.h"

enum {
  ARP_LEN = 28,
  ARP_REQUEST = 1,
  ARP_REPLY = 2,
  ND_SOLICIT = 135,
  ND_ADVERT = 136,
  ND_OPT_SOURCE = 1,
  ND_OPT_TARGET = 2,
  ND_LEN = 32, /* type .. target address, and one link-layer address option */
};

static struct neigh_entry *cache_find(struct neigh_table *n, uint32_t ifindex, const uint8_t ip[16]) {
  for (unsigned i = 0; i < NEIGH_CACHE; i++)
    if (n->cache[i].ifindex == ifindex && ip_equal(n->cache[i].ip, ip))
      return &n->cache[i];
  return NULL;
}

/* Updates an entry, or (create) makes one, at the cost of the one made longest ago when full. */
static void cache_learn(struct stack *st, uint32_t ifindex, const uint8_t ip[16], const uint8_t *mac,
                        bool create) {
  struct neigh_table *n = &st->neigh;
  struct neigh_entry *e = cache_find(n, ifindex, ip);
  if (e && memcmp(e->mac, mac, 6) == 0)
    return;
  if (!e && !create)
    return;
  if (!e)
    e = &n->cache[n->evict++ & (NEIGH_CACHE - 1)];
  memcpy(e->ip, ip, 16);
  memcpy(e->mac, mac, 6);
  e->ifindex = ifindex;
  n->version++;
  neigh_retry(st);
}

const uint8_t *neigh_find(struct stack *st, uint8_t link, uint32_t ifindex, const uint8_t ip[16]) {
  if (!st->links[link].answers_arp)
    return host_neigh(&st->host, ifindex, ip);
  const struct neigh_entry *e = cache_find(&st->neigh, ifindex, ip);
  return e ? e->mac : NULL;
}

/* ---- asking --------------------------------------------------------------- */

static void ethernet_header(uint8_t *p, const uint8_t *dst, const uint8_t *src, uint16_t type) {
  memcpy(p, dst, 6);
  memcpy(p + 6, src, 6);
  store16(p + 12, type);
}

static void arp_send(struct stack *st, struct link *l, uint16_t op, const uint8_t *dst_mac,
                     const uint8_t *target_mac, const uint8_t *sender_ip4, const uint8_t *target_ip4) {
  uint32_t frame = link_tx_room(l) > 0 ? frame_alloc(st->arena) : FRAME_NONE;
  if (frame == FRAME_NONE)
    return; /* asked again by neigh_retry; an unanswered peer asks again too */
  struct frame *f = frame_meta(st->arena, frame);
  f->len = ETH_LEN + ARP_LEN;
  uint8_t *p = frame_data(st->arena, frame);
  ethernet_header(p, dst_mac, l->mac, ETH_ARP);
  p += ETH_LEN;
  store16(p, 1); /* Ethernet */
  store16(p + 2, ETH_IP4);
  p[4] = 6;
  p[5] = 4;
  store16(p + 6, op);
  memcpy(p + 8, l->mac, 6);
  memcpy(p + 14, sender_ip4, 4);
  memcpy(p + 18, target_mac, 6);
  memcpy(p + 24, target_ip4, 4);
  link_send(st, l, frame);
}

static void nd_send(struct stack *st, struct link *l, uint8_t type, const uint8_t *dst_mac,
                    const uint8_t *src, const uint8_t *dst, const uint8_t *target) {
  uint32_t frame = link_tx_room(l) > 0 ? frame_alloc(st->arena) : FRAME_NONE;
  if (frame == FRAME_NONE)
    return;
  struct frame *f = frame_meta(st->arena, frame);
  f->len = ETH_LEN + IP6_LEN + ND_LEN;
  uint8_t *p = frame_data(st->arena, frame);
  ethernet_header(p, dst_mac, l->mac, ETH_IP6);
  p += ETH_LEN;
  memset(p, 0, IP6_LEN + ND_LEN);
  p[0] = 0x60;
  store16(p + 4, ND_LEN);
  p[6] = PROTO_ICMP6;
  p[7] = 255; /* RFC 4861 section 7.1: proof that it has not been forwarded */
  memcpy(p + 8, src, 16);
  memcpy(p + 24, dst, 16);
  uint8_t *icmp = p + IP6_LEN;
  icmp[0] = type;
  if (type == ND_ADVERT)
    icmp[4] = 0x60; /* solicited, override */
  memcpy(icmp + 8, target, 16);
  icmp[24] = type == ND_ADVERT ? ND_OPT_TARGET : ND_OPT_SOURCE;
  icmp[25] = 1;
  memcpy(icmp + 26, l->mac, 6);
  uint16_t sum = csum_fold(csum_add(csum_pseudo6(p + 8, PROTO_ICMP6, ND_LEN), icmp, ND_LEN));
  memcpy(icmp + 2, &sum, 2);
  link_send(st, l, frame);
}

static void ask(struct stack *st, struct neigh_waiting *w) {
  struct link *l = &st->links[w->link];
  w->asked_ns = st->now;
  st->stats->neighbour_requests++;
  bool is4 = ip_is_4(w->nexthop);
  if (!l->answers_arp) {
    hy_notice notice = {.kind = HY_NOTICE_NEIGH_MISSING, .ifindex = w->ifindex};
    addr_from_ip(&notice.addr, w->nexthop, 0, is4);
    st->notice(st->notice_ctx, &notice);
    return;
  }
  struct host_hop hop;
  if (!host_route(&st->host, w->nexthop, &hop))
    return;
  if (is4) {
    static const uint8_t everyone[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, nobody[6];
    arp_send(st, l, ARP_REQUEST, everyone, nobody, hop.source + 12, w->nexthop + 12);
  } else {
    /* The solicited-node multicast address, RFC 4291 section 2.7.1, and its MAC, RFC 2464 section 7. */
    uint8_t dst[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0};
    memcpy(dst + 13, w->nexthop + 13, 3);
    uint8_t mac[6] = {0x33, 0x33, 0xff, dst[13], dst[14], dst[15]};
    nd_send(st, l, ND_SOLICIT, mac, hop.source, dst, w->nexthop);
  }
}

void neigh_wait(struct stack *st, const struct path *path, uint32_t frame) {
  struct neigh_table *n = &st->neigh;
  if (n->nwaiting == NEIGH_WAITING) {
    st->stats->drop_neighbour++;
    packet_drop(st->arena, frame);
    return;
  }
  frame_meta(st->arena, frame)->flags |= FRAME_IN_DEVICE; /* its headers are written: not to be reused */
  bool asked = false;
  for (unsigned i = 0; i < n->nwaiting && !asked; i++)
    asked = ip_equal(n->waiting[i].nexthop, path->nexthop);
  struct neigh_waiting *w = &n->waiting[n->nwaiting++];
  *w = (struct neigh_waiting){
      .since_ns = st->now, .asked_ns = st->now, .frame = frame, .ifindex = path->ifindex, .link = path->link};
  memcpy(w->nexthop, path->nexthop, 16);
  if (!asked)
    ask(st, w);
}

void neigh_retry(struct stack *st) {
  struct neigh_table *n = &st->neigh;
  unsigned kept = 0;
  for (unsigned i = 0; i < n->nwaiting; i++) {
    struct neigh_waiting w = n->waiting[i];
    struct link *l = &st->links[w.link];
    const uint8_t *mac = neigh_find(st, w.link, w.ifindex, w.nexthop);
    if (mac && link_tx_room(l) > 0) {
      memcpy(frame_data(st->arena, w.frame), mac, 6);
      link_send(st, l, w.frame);
    } else if (!mac && st->now - w.since_ns >= NEIGH_WAIT_NS) {
      st->stats->drop_neighbour++;
      packet_drop(st->arena, w.frame);
    } else {
      if (!mac && st->now - w.asked_ns >= NEIGH_RETRY_NS)
        ask(st, &w);
      n->waiting[kept++] = w;
    }
  }
  n->nwaiting = kept;
}

void neigh_forget_link(struct stack *st, uint8_t link) {
  struct neigh_table *n = &st->neigh;
  unsigned kept = 0;
  for (unsigned i = 0; i < n->nwaiting; i++) {
    if (n->waiting[i].link != link) {
      n->waiting[kept++] = n->waiting[i];
      continue;
    }
    packet_drop(st->arena, n->waiting[i].frame);
  }
  n->nwaiting = kept;
}

uint64_t neigh_deadline(const struct stack *st) {
  uint64_t first = UINT64_MAX;
  for (unsigned i = 0; i < st->neigh.nwaiting; i++) {
    uint64_t at = st->neigh.waiting[i].asked_ns + NEIGH_RETRY_NS;
    if (at < first)
      first = at;
  }
  return first;
}

void neigh_fini(struct stack *st) {
  for (unsigned i = 0; i < st->neigh.nwaiting; i++)
    packet_drop(st->arena, st->neigh.waiting[i].frame);
  st->neigh.nwaiting = 0;
}

/* ---- answering ------------------------------------------------------------ */

void neigh_arp_input(struct stack *st, uint8_t link, uint32_t frame) {
  struct link *l = &st->links[link];
  const struct frame *f = frame_meta(st->arena, frame);
  if (f->len < ETH_LEN + ARP_LEN) {
    st->stats->drop_short++;
    return;
  }
  const uint8_t *p = frame_data(st->arena, frame) + ETH_LEN;
  if (load16(p) != 1 || load16(p + 2) != ETH_IP4 || p[4] != 6 || p[5] != 4)
    return;
  uint8_t sender[16], target[16];
  ip_map4(sender, p + 14);
  ip_map4(target, p + 24);
  bool for_us = host_is_local(&st->host, target);
  /* RFC 826: whoever is known is updated; a stranger is learnt when it talks to us. */
  if (!ip_is_zero(sender) && !host_is_local(&st->host, sender) && (p[8] & 1) == 0)
    cache_learn(st, l->ifindex, sender, p + 8, for_us);
  if (for_us && load16(p + 6) == ARP_REQUEST) {
    st->stats->arp_answered++;
    arp_send(st, l, ARP_REPLY, p + 8, p + 8, target + 12, sender + 12);
  }
}

void neigh_nd_input(struct stack *st, const struct packet *p) {
  struct link *l = &st->links[p->link];
  const uint8_t *base = frame_base(st->arena, p->frame);
  const uint8_t *icmp = base + p->l4_off;
  if (p->l4_len < 24 || base[p->l3_off + 7] != 255)
    return;
  if (csum_fold(csum_add(csum_pseudo6(base + p->l3_off + 8, PROTO_ICMP6, p->l4_len), icmp, p->l4_len)) != 0)
    return;
  const uint8_t *target = icmp + 8;
  const uint8_t *mac = NULL;
  uint8_t wanted = icmp[0] == ND_SOLICIT ? ND_OPT_SOURCE : ND_OPT_TARGET;
  for (uint32_t at = 24; at + 8 <= p->l4_len && icmp[at + 1] != 0; at += icmp[at + 1] * 8u)
    if (icmp[at] == wanted && icmp[at + 1] == 1)
      mac = icmp + at + 2;
  if (icmp[0] == ND_SOLICIT && mac && !ip_is_zero(p->key.remote) && host_is_local(&st->host, target)) {
    cache_learn(st, l->ifindex, p->key.remote, mac, true);
    st->stats->arp_answered++;
    nd_send(st, l, ND_ADVERT, mac, target, p->key.remote, target);
  } else if (icmp[0] == ND_ADVERT && mac && !host_is_local(&st->host, target)) {
    bool waited_for = false;
    for (unsigned i = 0; i < st->neigh.nwaiting; i++)
      waited_for |= ip_equal(st->neigh.waiting[i].nexthop, target);
    cache_learn(st, l->ifindex, target, mac, waited_for);
  }
}
