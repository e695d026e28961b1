/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard's own view of the host (host.h): rows are checked once, when they are
 * taken over, and arranged for looking up: routes sorted so that the first match is the
 * best, addresses and neighbours in open-addressed hash tables that are half
 * empty at most.
 */
#include "core/host.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  /* RFC 791 section 3.2: the least that every link must carry. IPv6 minds its own 1280. */
  MTU_MIN_BYTES = 68,
  MTU_MAX_BYTES = 65535,
};

/* ---- addresses ---- */

static struct host_bits bits_of(const uint8_t ip[16]) {
  uint64_t hi, lo;
  memcpy(&hi, ip, 8);
  memcpy(&lo, ip + 8, 8);
  return (struct host_bits){.hi = be64toh(hi), .lo = be64toh(lo)};
}

static struct host_bits mask_of(uint32_t len) {
  struct host_bits mask = {0, 0};
  if (len > 0)
    mask.hi = ~0ull << (len < 64 ? 64 - len : 0);
  if (len > 64)
    mask.lo = ~0ull << (128 - len);
  return mask;
}

static bool bits_match(struct host_bits a, struct host_bits b, struct host_bits mask) {
  return (((a.hi ^ b.hi) & mask.hi) | ((a.lo ^ b.lo) & mask.lo)) == 0;
}

static uint8_t family_of(struct host_bits bits) {
  return bits.hi == 0 && bits.lo >> 32 == 0xffff ? 4 : 6;
}

/* Length of a prefix of its family as one of sixteen bytes. */
static uint32_t mapped_len(uint8_t family, uint32_t len) {
  return family == 4 ? 96 + len : len;
}

/* fe80::/10, RFC 4291 section 2.5.6. */
static bool is_link_local_v6(struct host_bits bits) {
  return bits.hi >> 54 == 0xfe80 >> 6;
}

static uint32_t slot_of(struct host_bits bits, uint32_t ifindex, uint32_t slots) {
  uint64_t x = (bits.hi + ifindex) * 0x9e3779b97f4a7c15u ^ bits.lo;
  x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
  return (uint32_t)(x >> 40) & (slots - 1);
}

/* ---- which rows make sense ---- */

static bool addr_valid(const hy_addr *addr) {
  return (addr->family == 4 || addr->family == 6) && family_of(bits_of(addr->ip)) == addr->family;
}

static bool prefix_valid(const hy_addr *addr, uint32_t prefix_len) {
  return addr_valid(addr) && prefix_len <= (addr->family == 4 ? 32u : 128u);
}

static bool link_valid(const hy_host_link *row) {
  return row->ifindex != 0 && row->mtu_bytes >= MTU_MIN_BYTES && row->answers_arp <= 1;
}

static bool host_addr_valid(const hy_host_addr *row) {
  static const uint8_t unspecified[16];
  return row->ifindex != 0 && prefix_valid(&row->addr, row->prefix_len) &&
         memcmp(row->addr.ip, unspecified, 16) != 0;
}

static bool route_valid(const hy_host_route *row) {
  return row->ifindex != 0 && prefix_valid(&row->dst, row->prefix_len) &&
         (row->gateway.family == 0 || addr_valid(&row->gateway)) &&
         (row->source.family == 0 || (addr_valid(&row->source) && row->source.family == row->dst.family)) &&
         (row->mtu_bytes == 0 || row->mtu_bytes >= MTU_MIN_BYTES);
}

/* A neighbour is one station: neither a group address nor none (IEEE 802-2014 section 8.2). */
static bool neigh_valid(const hy_host_neigh *row) {
  static const uint8_t none[6];
  return row->ifindex != 0 && addr_valid(&row->addr) && (row->mac[0] & 1) == 0 &&
         memcmp(row->mac, none, 6) != 0;
}

/* ---- taking over ---- */

static void links_adopt(struct host_view *view) {
  struct host_rows *to = &view->rows;
  to->nlinks = 0;
  for (uint32_t i = 0; i < view->scratch->nlinks; i++) {
    const hy_host_link *row = &view->scratch->links[i];
    if (!link_valid(row))
      continue;
    to->links[to->nlinks] = *row;
    if (row->mtu_bytes > MTU_MAX_BYTES) /* the loopback says 65536 */
      to->links[to->nlinks].mtu_bytes = MTU_MAX_BYTES;
    to->nlinks++;
  }
}

static void addrs_adopt(struct host_view *view) {
  struct host_rows *to = &view->rows;
  to->naddrs = 0;
  memset(view->addr_slots, 0, sizeof view->addr_slots);
  for (uint32_t i = 0; i < view->scratch->naddrs; i++) {
    const hy_host_addr *row = &view->scratch->addrs[i];
    if (!host_addr_valid(row))
      continue;
    uint32_t slot = slot_of(bits_of(row->addr.ip), 0, HOST_ADDR_SLOTS);
    while (view->addr_slots[slot] != 0)
      slot = (slot + 1) % HOST_ADDR_SLOTS;
    to->addrs[to->naddrs++] = *row;
    view->addr_slots[slot] = (uint16_t)to->naddrs;
  }
}

static int prefix_order(const void *left, const void *right) {
  const struct host_prefix *a = left, *b = right;
  if (a->len != b->len)
    return a->len > b->len ? -1 : 1;
  if (a->metric != b->metric)
    return a->metric < b->metric ? -1 : 1;
  return a->row < b->row ? -1 : a->row > b->row;
}

static void routes_adopt(struct host_view *view) {
  struct host_rows *to = &view->rows;
  to->nroutes = 0;
  for (uint32_t i = 0; i < view->scratch->nroutes; i++) {
    const hy_host_route *row = &view->scratch->routes[i];
    if (!route_valid(row))
      continue;
    uint32_t len = mapped_len(row->dst.family, row->prefix_len);
    view->prefixes[to->nroutes] = (struct host_prefix){
        .bits = bits_of(row->dst.ip),
        .mask = mask_of(len),
        .row = to->nroutes,
        .metric = row->metric,
        .len = (uint16_t)len,
        .family = row->dst.family,
    };
    to->routes[to->nroutes++] = *row;
  }
  qsort(view->prefixes, to->nroutes, sizeof *view->prefixes, prefix_order);
}

static void neighs_adopt(struct host_view *view) {
  struct host_rows *to = &view->rows;
  to->nneighs = 0;
  memset(view->neigh_slots, 0, sizeof view->neigh_slots);
  for (uint32_t i = 0; i < view->scratch->nneighs; i++) {
    const hy_host_neigh *row = &view->scratch->neighs[i];
    if (!neigh_valid(row))
      continue;
    uint32_t slot = slot_of(bits_of(row->addr.ip), row->ifindex, HOST_NEIGH_SLOTS);
    while (view->neigh_slots[slot] != 0)
      slot = (slot + 1) % HOST_NEIGH_SLOTS;
    to->neighs[to->nneighs++] = *row;
    view->neigh_slots[slot] = (uint16_t)to->nneighs;
  }
}

void host_view_adopt(struct host_view *view) {
  links_adopt(view);
  addrs_adopt(view);
  routes_adopt(view);
  neighs_adopt(view);
  view->version++;
}

int host_view_init(struct host_view *view) {
  memset(view, 0, sizeof *view);
  view->scratch = calloc(1, sizeof *view->scratch);
  host_view_forget(view);
  return view->scratch == NULL ? -ENOMEM : 0;
}

void host_view_fini(struct host_view *view) {
  free(view->scratch);
  view->scratch = NULL;
}

/* An odd number is never that of a state which may be taken. */
void host_view_forget(struct host_view *view) {
  view->seq = UINT32_MAX;
}

/* ---- looking up ---- */

const hy_host_link *host_link(const struct host_view *view, uint32_t ifindex) {
  for (uint32_t i = 0; i < view->rows.nlinks; i++)
    if (view->rows.links[i].ifindex == ifindex)
      return &view->rows.links[i];
  return NULL;
}

bool host_is_local(const struct host_view *view, const uint8_t ip[16]) {
  uint32_t slot = slot_of(bits_of(ip), 0, HOST_ADDR_SLOTS);
  for (uint16_t row; (row = view->addr_slots[slot]) != 0; slot = (slot + 1) % HOST_ADDR_SLOTS)
    if (memcmp(view->rows.addrs[row - 1].addr.ip, ip, 16) == 0)
      return true;
  return false;
}

const uint8_t *host_neigh(const struct host_view *view, uint32_t ifindex, const uint8_t ip[16]) {
  uint32_t slot = slot_of(bits_of(ip), ifindex, HOST_NEIGH_SLOTS);
  for (uint16_t row; (row = view->neigh_slots[slot]) != 0; slot = (slot + 1) % HOST_NEIGH_SLOTS) {
    const hy_host_neigh *neigh = &view->rows.neighs[row - 1];
    if (neigh->ifindex == ifindex && memcmp(neigh->addr.ip, ip, 16) == 0)
      return neigh->mac;
  }
  return NULL;
}

/*
 * The address to send from: of the route's link before another's, of the scope of the
 * destination before another scope (RFC 6724 section 5, rule 2), of the next hop's own
 * prefix before another, the longer the better. An IPv6 link-local address is good
 * on its own link only.
 */
static void source_choose(const struct host_view *view, struct host_bits dst, uint32_t ifindex,
                          struct host_bits nexthop, uint8_t source[16]) {
  uint8_t family = family_of(dst);
  bool local_scope = family == 6 && is_link_local_v6(dst);
  uint32_t best = 0;
  memset(source, 0, 16);
  for (uint32_t i = 0; i < view->rows.naddrs; i++) {
    const hy_host_addr *row = &view->rows.addrs[i];
    struct host_bits bits = bits_of(row->addr.ip);
    if (row->addr.family != family)
      continue;
    bool on_link = row->ifindex == ifindex;
    bool link_local = family == 6 && is_link_local_v6(bits);
    if (link_local && !on_link)
      continue;
    uint32_t len = mapped_len(family, row->prefix_len);
    uint32_t score = 1 + (on_link ? 1024u : 0u) + (link_local == local_scope ? 512u : 0u);
    if (bits_match(bits, nexthop, mask_of(len)))
      score += 1 + len;
    if (score > best) {
      best = score;
      memcpy(source, row->addr.ip, 16);
    }
  }
}

bool host_route(const struct host_view *view, const uint8_t dst[16], struct host_hop *out) {
  struct host_bits bits = bits_of(dst);
  uint8_t family = family_of(bits);
  const hy_host_route *route = NULL;
  for (uint32_t i = 0; i < view->rows.nroutes && route == NULL; i++) {
    const struct host_prefix *prefix = &view->prefixes[i];
    /* Every mapped address lies in ::/0, so the family is compared as well. */
    if (prefix->family == family && bits_match(bits, prefix->bits, prefix->mask))
      route = &view->rows.routes[prefix->row];
  }
  const hy_host_link *link = route == NULL ? NULL : host_link(view, route->ifindex);
  if (link == NULL)
    return false;
  out->ifindex = route->ifindex;
  memcpy(out->nexthop, route->gateway.family == 0 ? dst : route->gateway.ip, 16);
  out->mtu_bytes = link->mtu_bytes;
  if (route->mtu_bytes != 0 && route->mtu_bytes < link->mtu_bytes)
    out->mtu_bytes = route->mtu_bytes;
  if (route->source.family != 0)
    memcpy(out->source, route->source.ip, 16);
  else
    source_choose(view, bits, route->ifindex, bits_of(out->nexthop), out->source);
  return true;
}
