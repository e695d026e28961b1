/* SPDX-License-Identifier: Apache-2.0 */
/* The Ethernet and IP headers in front of a transport segment: path_send(), see stack.h. */
#ifndef HYBRID_TCP_EMIT_H
#define HYBRID_TCP_EMIT_H

#include "tcp/csum.h"
#include "tcp/stack.h"
#include "tcp/wire.h"

#define IP_TTL 64 /* net.ipv4.ip_default_ttl */

static inline uint8_t *put_ip4(uint8_t *p, const uint8_t src[4], const uint8_t dst[4], uint8_t proto,
                               uint32_t l4_len) {
  uint32_t source, destination;
  memcpy(&source, src, 4);
  memcpy(&destination, dst, 4);
  uint32_t version_length = 0x45000000 | (l4_len + IP4_LEN);
  uint32_t ttl_proto = IP_TTL << 24 | (uint32_t)proto << 16;
  const uint32_t id_flags = 0x00004000; /* identification 0 with DF: RFC 6864 section 4.1 */
  /* From registers: bytes that have just been written in small pieces are slow to read in large ones. */
  uint16_t sum = csum_fold(csum_word(version_length) + csum_word(id_flags) + csum_word(ttl_proto) + source +
                           destination);
  p -= IP4_LEN;
  store32(p, version_length);
  store32(p + 4, id_flags);
  store32(p + 8, ttl_proto);
  memcpy(p + 10, &sum, 2);
  memcpy(p + 12, &source, 4);
  memcpy(p + 16, &destination, 4);
  return p;
}

static inline uint8_t *put_ip6(uint8_t *p, const uint8_t src[16], const uint8_t dst[16], uint8_t proto,
                               uint32_t l4_len) {
  p -= IP6_LEN;
  store32(p, 0x60000000);
  store16(p + 4, (uint16_t)l4_len);
  p[6] = proto;
  p[7] = IP_TTL;
  memcpy(p + 8, src, 16);
  memcpy(p + 24, dst, 16);
  return p;
}

/* path_send(), for the one caller that is worth having it inline. */
static inline void path_emit(struct stack *st, const struct path *path, const struct ip_ends *ends,
                             uint32_t frame, uint8_t *l4, uint32_t l4_len, uint32_t rest) {
  struct link *l = &st->links[path->link];
  struct frame *f = frame_meta(st->arena, frame);
  uint8_t *p = ends->is4 ? put_ip4(l4, ends->src + 12, ends->dst + 12, ends->proto, l4_len + rest)
                         : put_ip6(l4, ends->src, ends->dst, ends->proto, l4_len + rest);
  p -= 2;
  store16(p, ends->is4 ? ETH_IP4 : ETH_IP6);
  if (__builtin_expect(ends->vlan_len > 0, 0)) {
    p -= ends->vlan_len;
    memcpy(p, ends->vlan, ends->vlan_len);
  }
  p -= 12;
  memcpy(p, path->mac, 6);
  memcpy(p + 6, l->mac, 6);
  f->len = (uint16_t)(l4 + l4_len - p);
  f->off = (uint16_t)(p - frame_base(st->arena, frame));
  if (__builtin_expect(path->resolved, 1))
    link_send(st, l, frame);
  else
    neigh_wait(st, path, frame);
}

#endif
