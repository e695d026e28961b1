/* SPDX-License-Identifier: Apache-2.0 */
/* Where a packet goes, and the headers in front of it. */
#include <errno.h>

#include "tcp/csum.h"
#include "tcp/stack.h"
#include "tcp/wire.h"

#define TTL 64 /* net.ipv4.ip_default_ttl */

static uint32_t paths_version(const struct stack *st) {
  return st->host.version + st->neigh.version;
}

bool path_is_current(const struct stack *st, const struct path *path) {
  return path->resolved && path->version == paths_version(st);
}

int path_lookup(struct stack *st, const uint8_t remote[16], uint8_t prefer_link, struct path *out,
                uint8_t source[16]) {
  struct host_hop hop;
  if (!host_route(&st->host, remote, &hop)) {
    st->stats->drop_no_route++;
    return -ENETUNREACH;
  }
  uint32_t link = prefer_link;
  if (prefer_link >= st->nlinks || st->links[prefer_link].ifindex != hop.ifindex) {
    for (link = 0; link < st->nlinks; link++)
      if (st->links[link].ifindex == hop.ifindex)
        break;
    /* Frames with VLAN tags come in by the parent of the interface that the route names. */
    if (link == st->nlinks && prefer_link < st->nlinks)
      link = prefer_link;
    if (link == st->nlinks) {
      st->stats->drop_no_route++;
      return -EHOSTUNREACH;
    }
  }
  const struct link *l = &st->links[link];
  out->version = paths_version(st);
  out->link = (uint8_t)link;
  out->mtu_bytes = hop.mtu_bytes && hop.mtu_bytes < l->mtu_bytes ? hop.mtu_bytes : l->mtu_bytes;
  memcpy(out->nexthop, hop.nexthop, 16);
  out->ifindex = hop.ifindex;
  const uint8_t *mac = neigh_find(st, out->link, hop.ifindex, hop.nexthop);
  out->resolved = mac != NULL;
  if (mac)
    memcpy(out->mac, mac, 6);
  if (source)
    memcpy(source, hop.source, 16);
  return 0;
}

uint64_t pseudo_sum(const uint8_t src[16], const uint8_t dst[16], uint8_t proto, uint32_t l4_len) {
  uint8_t both[32];
  if (ip_is_4(dst)) {
    memcpy(both, src + 12, 4);
    memcpy(both + 4, dst + 12, 4);
    return csum_pseudo4(both, proto, l4_len);
  }
  memcpy(both, src, 16);
  memcpy(both + 16, dst, 16);
  return csum_pseudo6(both, proto, l4_len);
}

void path_send(struct stack *st, const struct path *path, const uint8_t src[16], const uint8_t dst[16],
               uint8_t proto, const uint8_t *vlan, uint8_t vlan_len, uint32_t frame) {
  struct link *l = &st->links[path->link];
  struct frame *f = frame_meta(st->arena, frame);
  uint8_t *p = frame_data(st->arena, frame);
  uint16_t l4_len = f->len;
  uint16_t type;
  if (ip_is_4(dst)) {
    p -= IP4_LEN;
    p[0] = 0x45;
    p[1] = 0;
    store16(p + 2, (uint16_t)(l4_len + IP4_LEN));
    store32(p + 4, 0x00004000); /* identification 0 with DF: RFC 6864 section 4.1 */
    p[8] = TTL;
    p[9] = proto;
    store16(p + 10, 0);
    memcpy(p + 12, src + 12, 4);
    memcpy(p + 16, dst + 12, 4);
    uint16_t sum = csum_fold(csum_ip4(p));
    memcpy(p + 10, &sum, 2);
    type = ETH_IP4;
    f->len = (uint16_t)(f->len + IP4_LEN);
  } else {
    p -= IP6_LEN;
    store32(p, 0x60000000);
    store16(p + 4, l4_len);
    p[6] = proto;
    p[7] = TTL;
    memcpy(p + 8, src, 16);
    memcpy(p + 24, dst, 16);
    type = ETH_IP6;
    f->len = (uint16_t)(f->len + IP6_LEN);
  }
  p -= 2;
  store16(p, type);
  p -= vlan_len;
  if (vlan_len > 0)
    if (vlan_len > 0)
      memcpy(p, vlan, vlan_len);
  p -= 12;
  memcpy(p, path->mac, 6);
  memcpy(p + 6, l->mac, 6);
  f->len = (uint16_t)(f->len + ETH_LEN + vlan_len);
  f->off = (uint16_t)(p - frame_base(st->arena, frame));
  if (path->resolved)
    link_send(st, l, frame);
  else
    neigh_wait(st, path, frame);
}
