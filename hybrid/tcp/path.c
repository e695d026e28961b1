/* SPDX-License-Identifier: Apache-2.0 */
/* Where a packet goes, and the headers in front of it. */
#include <errno.h>

#include "tcp/csum.h"
#include "tcp/emit.h"
#include "tcp/wire.h"

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
    if (link == st->nlinks && prefer_link < st->nlinks && st->links[prefer_link].dev)
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

void path_send(struct stack *st, const struct path *path, const struct ip_ends *ends, uint32_t frame,
               uint8_t *l4, uint32_t l4_len, uint32_t rest) {
  path_emit(st, path, ends, frame, l4, l4_len, rest);
}
