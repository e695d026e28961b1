/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frames-app: peer_app.c on a device that it opens itself, with a host table of its own:
 *
 *     frames-app PORT tap|own|shared INTERFACE MAC OFFLOAD ADDRESS/PREFIX ... [via ADDRESS MAC] ...
 *
 * `via` is a neighbour, where the stack does not ask for it itself. What was obtained is told in a
 * line of JSON, a failure in another.
 */
#include "peer_app.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRS = 4, EPHEMERAL_LO = 40000, EPHEMERAL_HI = 49999 };

static int mac_parse(const char *text, uint8_t mac[6]) {
  return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) == 6
             ? 0
             : -EINVAL;
}

static int table_fill(hy_shard *shard, hy_host_link *link, int argc, char **argv, hy_addr *own,
                      unsigned *nown) {
  hy_host_addr addrs[ADDRS];
  hy_host_route routes[ADDRS];
  hy_host_neigh neighs[ADDRS];
  unsigned naddrs = 0, nneighs = 0;
  for (int i = 0; i < argc && naddrs < ADDRS && nneighs < ADDRS; i++) {
    if (strcmp(argv[i], "via") == 0 && i + 2 < argc) {
      hy_host_neigh *neigh = &neighs[nneighs++];
      *neigh = (hy_host_neigh){.ifindex = link->ifindex};
      if (hy_addr_parse(argv[i + 1], &neigh->addr) < 0 || mac_parse(argv[i + 2], neigh->mac) < 0)
        return -EINVAL;
      i += 2;
      continue;
    }
    char *slash = strchr(argv[i], '/');
    if (slash == NULL)
      return -EINVAL;
    *slash = '\0';
    hy_addr addr;
    if (hy_addr_parse(argv[i], &addr) < 0)
      return -EINVAL;
    uint32_t prefix = (uint32_t)strtoul(slash + 1, NULL, 10);
    addrs[naddrs] = (hy_host_addr){.addr = addr, .ifindex = link->ifindex, .prefix_len = prefix};
    own[naddrs] = addr;
    /* The network: whole bytes of prefix are all that the tests use. */
    uint32_t keep = addr.family == 4 ? 12 + prefix / 8 : prefix / 8;
    memset(addr.ip + keep, 0, 16 - keep);
    routes[naddrs++] = (hy_host_route){.dst = addr, .prefix_len = prefix, .ifindex = link->ifindex};
  }
  *nown = naddrs;
  hy_host *host;
  int rc = hy_host_create(&host);
  if (rc < 0)
    return rc;
  rc = hy_host_update(host, link, 1, addrs, naddrs, routes, naddrs, neighs, nneighs);
  if (rc == 0)
    rc = hy_shard_set_host(shard, host);
  hy_host_close(host);
  return rc;
}

static int tap_open(hy_shard *shard, const char *name, uint8_t offload, hy_host_link *link) {
  hy_tap_config config = {
      .struct_size = sizeof config, .ifindex = link->ifindex, .tap_fd = -1, .offload = offload};
  snprintf(config.name, sizeof config.name, "%s", name);
  hy_tap_obtained obtained;
  int rc = hy_tap_attach(shard, &config, &obtained);
  if (rc == 0)
    printf(
        "{\"id\": \"obtained\", \"name\": \"%s\", \"offload\": %d, \"registered\": %d, \"deferred\": %d}\n",
        obtained.name, obtained.offload, obtained.registered, obtained.deferred);
  return rc;
}

static int packet_open(hy_shard *shard, const char *name, bool shared, const hy_addr *own, unsigned nown,
                       hy_host_link *link, uint16_t port) {
  hy_packet_config config = {
      .struct_size = sizeof config,
      .interface = if_nametoindex(name),
      .ifindex = link->ifindex,
      .packet_fd = -1,
      .mode = shared ? HY_PACKET_SHARED : HY_PACKET_OWN,
      .naddrs = (uint8_t)nown,
      .nflows = 4,
      .flows = {{.protocol = 6, .port_lo = port, .port_hi = port},
                {.protocol = 17, .port_lo = port, .port_hi = port},
                {.protocol = 6, .port_lo = EPHEMERAL_LO, .port_hi = EPHEMERAL_HI},
                {.protocol = 17, .port_lo = EPHEMERAL_LO, .port_hi = EPHEMERAL_HI}},
  };
  memcpy(config.addrs, own, nown * sizeof own[0]);
  if (!shared)
    memcpy(config.mac, link->mac, 6);
  hy_packet_obtained obtained;
  int rc = hy_packet_attach(shard, &config, &obtained);
  if (rc == 0)
    printf("{\"id\": \"obtained\", \"offload\": %d, \"quiet\": %d, \"deferred\": %d, \"mtu\": %u}\n",
           obtained.offload, obtained.quiet, obtained.deferred, obtained.mtu_bytes);
  return rc;
}

static int open_all(int argc, char **argv, hy_shard **out) {
  hy_config config;
  hy_config_default(&config);
  config.port_lo = EPHEMERAL_LO;
  config.port_hi = EPHEMERAL_HI;
  uint16_t port = (uint16_t)strtoul(argv[-1], NULL, 10);
  int rc = argc >= 5 ? hy_shard_open(&config, out) : -EINVAL;
  if (rc < 0)
    return rc;
  bool tap = strcmp(argv[0], "tap") == 0, shared = strcmp(argv[0], "shared") == 0;
  hy_host_link link = {.ifindex = 77, .mtu_bytes = 1500, .answers_arp = !shared};
  hy_addr own[ADDRS];
  unsigned nown = 0;
  if (mac_parse(argv[2], link.mac) < 0)
    return -EINVAL;
  rc = table_fill(*out, &link, argc - 4, argv + 4, own, &nown);
  if (rc < 0)
    return rc;
  return tap ? tap_open(*out, argv[1], (uint8_t)strtoul(argv[3], NULL, 10), &link)
             : packet_open(*out, argv[1], shared, own, nown, &link, port);
}

int peer_app_shard(int argc, char **argv, hy_shard **out) {
  int rc = open_all(argc, argv, out);
  if (rc < 0)
    printf("{\"id\": \"obtained\", \"status\": %d, \"detail\": \"%s\"}\n", rc, hy_error_detail());
  return rc;
}
