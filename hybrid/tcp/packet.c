/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an Ethernet frame to a transport packet: every length is checked against
 * the frame before it is used, and whatever is odd is dropped under its own name.
 */
#include "tcp/csum.h"
#include "tcp/stack.h"
#include "tcp/wire.h"

#define EXTENSION_HEADERS_MAX 8 /* more than that and somebody is playing */

static inline bool mac_equal(const uint8_t a[6], const uint8_t b[6]) {
  return load32(a) == load32(b) && load16(a + 4) == load16(b + 4);
}

/*
 * What nearly every frame is: for us, untagged, an IPv4 header without options, not a fragment, TCP.
 * The same tests as below, in a straight line. False: look closer.
 */
static inline bool parse_plain(const struct link *l, uint8_t *p, uint32_t len, struct packet *out) {
  if (len < ETH_LEN + IP4_LEN + TCP_LEN || !mac_equal(p, l->mac))
    return false;
  uint8_t *ip = p + ETH_LEN;
  uint64_t front, addresses;
  uint32_t middle;
  memcpy(&front, ip, 8);
  memcpy(&middle, ip + 8, 4);
  memcpy(&addresses, ip + 12, 8);
  uint32_t total = load16(ip + 2);
  if (load32(p + 12) >> 8 != (ETH_IP4 << 8 | 0x45) || (load16(ip + 6) & 0x3fff) != 0 || ip[9] != PROTO_TCP ||
      total < IP4_LEN + TCP_LEN || total > len - ETH_LEN ||
      csum_fold(csum_carry(csum_carry(front, addresses), middle)) != 0)
    return false;
  ip_map4(out->key.remote, ip + 12);
  ip_map4(out->key.local, ip + 16);
  out->addresses = addresses;
  out->proto = PROTO_TCP;
  out->l4_off = (uint16_t)(out->l3_off + IP4_LEN);
  out->l4_len = (uint16_t)(total - IP4_LEN);
  out->l4 = ip + IP4_LEN;
  return true;
}

/* p: the IP packet, of which the first frame holds `linear` bytes, and all frames together len. */
static bool parse_ip4(struct stack *st, const uint8_t *p, uint32_t linear, uint32_t len, struct packet *out) {
  struct stats *s = st->stats;
  if (linear < IP4_LEN) {
    s->drop_short++;
    return false;
  }
  uint32_t header = (uint32_t)(p[0] & 15) * 4;
  uint32_t total = load16(p + 2);
  if (header > linear) {
    s->drop_short++;
    return false;
  }
  if (p[0] >> 4 != 4 || header < IP4_LEN || total < header ||
      csum_fold(header == IP4_LEN ? csum_ip4(p) : csum_add(0, p, header)) != 0) {
    s->drop_ip_header++;
    return false;
  }
  if (total > len) {
    s->drop_short++;
    return false;
  }
  if (load16(p + 6) & 0x3fff) { /* more fragments, or an offset */
    s->drop_fragment++;
    return false;
  }
  for (uint32_t i = IP4_LEN; __builtin_expect(i < header, 0) && p[i] != 0;) {
    if (p[i] == 131 || p[i] == 137) { /* source routes, RFC 7126 sections 4.3 and 4.4 */
      s->drop_ip_option++;
      return false;
    }
    if (p[i] == 1) {
      i++;
      continue;
    }
    if (i + 1 >= header || p[i + 1] < 2) {
      s->drop_ip_header++;
      return false;
    }
    i += p[i + 1];
  }
  ip_map4(out->key.remote, p + 12);
  ip_map4(out->key.local, p + 16);
  memcpy(&out->addresses, p + 12, 8);
  out->proto = p[9];
  out->l4_off = (uint16_t)(out->l3_off + header);
  out->l4_len = (uint16_t)(total - header);
  return true;
}

static bool parse_ip6(struct stack *st, const uint8_t *p, uint32_t linear, uint32_t len, struct packet *out) {
  struct stats *s = st->stats;
  if (linear < IP6_LEN) {
    s->drop_short++;
    return false;
  }
  uint32_t payload = load16(p + 4);
  if (p[0] >> 4 != 6) {
    s->drop_ip_header++;
    return false;
  }
  if (payload + IP6_LEN > len) {
    s->drop_short++;
    return false;
  }
  uint32_t end = IP6_LEN + payload, at = IP6_LEN;
  uint32_t headers_end = end < linear ? end : linear;
  uint8_t next = p[6];
  for (unsigned n = 0; next == PROTO_HOPOPTS || next == PROTO_DSTOPTS || next == PROTO_ROUTING; n++) {
    if (n == EXTENSION_HEADERS_MAX || at + 8 > headers_end || at + (p[at + 1] + 1u) * 8 > headers_end ||
        (next == PROTO_ROUTING && p[at + 3] != 0)) { /* segments left: not for us yet */
      s->drop_ip_option++;
      return false;
    }
    next = p[at];
    at += (p[at + 1] + 1u) * 8;
  }
  if (next == PROTO_FRAGMENT) {
    s->drop_fragment++;
    return false;
  }
  memcpy(out->key.remote, p + 8, 16);
  memcpy(out->key.local, p + 24, 16);
  if (ip_is_4(out->key.remote) || ip_is_4(out->key.local)) { /* mapped addresses are not for the wire */
    s->drop_bad_source++;
    return false;
  }
  out->addresses = csum_add32(0, p + 8);
  out->proto = next;
  out->l4_off = (uint16_t)(out->l3_off + at);
  out->l4_len = (uint16_t)(end - at);
  return true;
}

/* Headers are read where they lie, so of a packet in several frames they must all lie in the first. */
static bool header_in_first_frame(const struct stack *st, const struct packet *p) {
  const struct frame *f = frame_meta(st->arena, p->frame);
  uint32_t header = p->proto == PROTO_TCP ? TCP_LEN : p->proto == PROTO_UDP ? UDP_LEN : p->l4_len;
  return p->l4_off + header <= (uint32_t)f->off + f->len;
}

/* All else that may come in; what isn't fit for a socket is dropped or answered here. */
static __attribute__((noinline)) bool parse_any(struct stack *st, const uint8_t *p, uint32_t len,
                                                struct packet *out) {
  struct stats *s = st->stats;
  const struct link *l = &st->links[out->link];
  if (len < ETH_LEN) {
    s->drop_short++;
    return false;
  }
  uint32_t l2 = ETH_LEN;
  uint16_t type = load16(p + 12);
  while ((type == ETH_VLAN || type == ETH_QINQ) && l2 < ETH_LEN + VLAN_MAX && len >= l2 + 4) {
    type = load16(p + l2 + 2);
    l2 += 4;
  }
  bool ours = mac_equal(p, l->mac);
  if (!ours && !(l->answers_arp && (p[0] & 1))) { /* group addresses matter to ARP and ND only */
    s->drop_mac++;
    return false;
  }
  out->l3_off = (uint16_t)(out->l3_off + l2 - ETH_LEN);
  bool ok;
  bool chained = frame_meta(st->arena, out->frame)->flags & FRAME_MORE;
  uint32_t bytes = chained ? packet_bytes(st->arena, out->frame) : len;
  if (type == ETH_IP4) {
    ok = parse_ip4(st, p + l2, len - l2, bytes - l2, out);
  } else if (type == ETH_IP6) {
    ok = parse_ip6(st, p + l2, len - l2, bytes - l2, out);
  } else {
    if (type == ETH_ARP && l2 == ETH_LEN && l->answers_arp)
      neigh_arp_input(st, out->link, out->frame);
    else
      s->drop_ethertype++;
    return false;
  }
  if (!ok)
    return false;
  if (chained && !header_in_first_frame(st, out)) {
    s->drop_short++;
    return false;
  }
  s->ip_in++;
  if (out->proto == PROTO_ICMP6 && l->answers_arp) {
    neigh_nd_input(st, out);
    return false;
  }
  if (!ours) {
    s->drop_mac++;
    return false;
  }
  if (out->proto == PROTO_TCP && out->l4_len < TCP_LEN) {
    s->drop_tcp_header++;
    return false;
  }
  out->l4 = frame_base(st->arena, out->frame) + out->l4_off;
  return true;
}

bool packet_parse(struct stack *st, uint8_t link, uint32_t frame, struct packet *out) {
  const struct frame *f = frame_meta(st->arena, frame);
  uint8_t *p = frame_base(st->arena, frame) + f->off;
  out->frame = frame;
  out->link = link;
  out->l3_off = (uint16_t)(f->off + ETH_LEN);
  if (__builtin_expect(parse_plain(&st->links[link], p, f->len, out), 1))
    st->stats->ip_in++;
  else if (!parse_any(st, p, f->len, out))
    return false;
  if (__builtin_expect(out->proto == PROTO_TCP, 1)) {
    flow_key_ports(&out->key, out->l4);
    out->hash = flow_key_hash(&st->flows, &out->key);
  }
  return true;
}
