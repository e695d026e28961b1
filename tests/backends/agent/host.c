/* SPDX-License-Identifier: Apache-2.0 */
/* What the arguments say of the host, as the table that a shard follows. */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* "aa:bb:cc:dd:ee:ff" up to the end or a comma. */
int mac_parse(const char *text, uint8_t mac[6]) {
  for (int i = 0; i < 6; i++) {
    char *end;
    unsigned long byte = strtoul(text, &end, 16);
    if (end == text || byte > 255 || (i < 5 && *end != ':'))
      return -EINVAL;
    mac[i] = (uint8_t)byte;
    text = end + 1;
  }
  return 0;
}

/* IFINDEX,MTU,ANSWERS_ARP,MAC */
int host_link_parse(struct spec *spec, const char *text) {
  if (spec->nlinks == HY_HOST_LINKS)
    return -EINVAL;
  hy_host_link *link = &spec->links[spec->nlinks++];
  char *end;
  link->ifindex = (uint32_t)strtoul(text, &end, 10);
  link->mtu_bytes = *end == ',' ? (uint32_t)strtoul(end + 1, &end, 10) : 0;
  link->answers_arp = *end == ',' && strtoul(end + 1, &end, 10) == 1;
  return *end == ',' ? mac_parse(end + 1, link->mac) : -EINVAL;
}

/* IFINDEX,PREFIX_LEN,ADDRESS */
int host_addr_parse(struct spec *spec, const char *text) {
  if (spec->naddrs == HY_HOST_ADDRS)
    return -EINVAL;
  hy_host_addr *addr = &spec->addrs[spec->naddrs++];
  char *end;
  addr->ifindex = (uint32_t)strtoul(text, &end, 10);
  addr->prefix_len = *end == ',' ? (uint32_t)strtoul(end + 1, &end, 10) : 0;
  return *end == ',' ? hy_addr_parse(end + 1, &addr->addr) : -EINVAL;
}

/* IFINDEX,MAC,ADDRESS */
int host_neigh_parse(struct spec *spec, const char *text) {
  if (spec->nneighs == HY_HOST_NEIGHS)
    return -EINVAL;
  hy_host_neigh *neigh = &spec->neighs[spec->nneighs++];
  char *end;
  neigh->ifindex = (uint32_t)strtoul(text, &end, 10);
  const char *address = *end == ',' ? strchr(end + 1, ',') : NULL;
  if (address == NULL || mac_parse(end + 1, neigh->mac) < 0)
    return -EINVAL;
  return hy_addr_parse(address + 1, &neigh->addr);
}

/* Each address has its network on its link. */
int host_give(const struct spec *spec, hy_shard *shard) {
  hy_host_route routes[HY_HOST_ADDRS] = {0};
  for (unsigned i = 0; i < spec->naddrs; i++) {
    const hy_host_addr *addr = &spec->addrs[i];
    hy_host_route *route = &routes[i];
    route->dst = addr->addr;
    route->prefix_len = addr->prefix_len;
    route->ifindex = addr->ifindex;
    unsigned bits = addr->prefix_len + (addr->addr.family == 4 ? 96 : 0);
    for (unsigned bit = bits; bit < 128; bit++)
      route->dst.ip[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
  }
  hy_host *host;
  int rc = hy_host_create(&host);
  if (rc < 0)
    return rc;
  rc = hy_host_update(host, spec->links, spec->nlinks, spec->addrs, spec->naddrs, routes, spec->naddrs,
                      spec->neighs, spec->nneighs);
  if (rc == 0)
    rc = hy_shard_set_host(shard, host);
  hy_host_close(host); /* the shard has its own mapping */
  return rc;
}
