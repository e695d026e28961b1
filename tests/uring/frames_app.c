/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frames-app: peer_app.c on a device that it opens itself, with a host table of its own:
 *
 *     frames-app PORT tap|own|shared INTERFACE MAC OFFLOAD ADDRESS/PREFIX ... [via ADDRESS MAC] ...
 *     frames-app PORT dpdk DEVARGS MAC OFFLOAD ADDRESS/PREFIX ...
 *
 * A DPDK port's MAC may be "-": its own. `via` is a neighbour, where the stack does not ask for it itself.
 * What was obtained is told in a line of JSON, a failure in another.
 */
#include "peer_app.h"

#include "bpf/steer.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRS = 4, NO_MAC = 0xff /* multicast: nobody's */, EPHEMERAL_LO = 40000, EPHEMERAL_HI = 49999 };

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

/* A list in an environment variable, words parted by blanks. */
static uint32_t words_of(const char *variable, char *text, size_t size, const char **words, uint32_t max) {
  uint32_t n = 0;
  snprintf(text, size, "%s", getenv(variable) != NULL ? getenv(variable) : "");
  for (char *save, *word = strtok_r(text, " ", &save); word != NULL && n < max;
       word = strtok_r(NULL, " ", &save))
    words[n++] = word;
  return n;
}

/*
 * DPDK_EAL: arguments of EAL. DPDK_EXCEPTION: the exception path's devargs; the port alone is ours then.
 * DPDK_FLOW: the rules go into the NIC. DPDK_INTERRUPT: enum hy_request. DPDK_FRAMES, DPDK_SIZE: of the
 * shard.
 */
static int dpdk_open(hy_shard *shard, const char *devargs, uint8_t checksum, bool kernel, hy_host_link *link,
                     uint16_t port) {
  struct hy_steer_rule rules[] = {
      {.name = "served", .verdict = HY_STEER_DPDK, .port_lo = port, .port_hi = port},
      {.name = "replies", .verdict = HY_STEER_DPDK, .port_lo = EPHEMERAL_LO, .port_hi = EPHEMERAL_HI},
  };
  char text[1024];
  const char *eal[32];
  hy_dpdk_config config = {.struct_size = sizeof config,
                           .ifindex = link->ifindex,
                           .port = devargs,
                           .checksum = checksum,
                           .exception = getenv("DPDK_EXCEPTION"),
                           .rules = rules,
                           .nrules = sizeof rules / sizeof *rules};
  config.neal = words_of("DPDK_EAL", text, sizeof text, eal, 32);
  config.eal = eal;
  config.flow = getenv("DPDK_FLOW") != NULL;
  config.interrupt =
      getenv("DPDK_INTERRUPT") != NULL ? (uint8_t)atoi(getenv("DPDK_INTERRUPT")) : HY_REQUEST_AUTO;
  hy_dpdk_obtained got;
  int rc = hy_dpdk_attach(shard, &config, &got);
  if (rc < 0)
    return rc;
  link->answers_arp = got.answers_arp && !kernel;
  if (link->mac[0] == NO_MAC)
    memcpy(link->mac, got.mac, 6);
  printf("{\"id\": \"obtained\", \"name\": \"%s\", \"driver\": \"%s\", \"version\": \"%s\", "
         "\"kernel_ifindex\": %u, "
         "\"answers_arp\": %d, \"interrupt\": %d, \"rx_checksum\": %d, \"tx_checksum\": %d, \"mtu\": %u}\n",
         got.name, got.driver, got.version, got.kernel_ifindex, got.answers_arp, got.interrupt,
         got.rx_checksum, got.tx_checksum, got.mtu_bytes);
  return 0;
}

static int open_all(int argc, char **argv, hy_shard **out) {
  hy_config config;
  hy_config_default(&config);
  config.port_lo = EPHEMERAL_LO;
  config.port_hi = EPHEMERAL_HI;
  uint16_t port = (uint16_t)strtoul(argv[-1], NULL, 10);
  bool dpdk = argc > 0 && strcmp(argv[0], "dpdk") == 0;
  if (dpdk) {
    config.frame_prefix_bytes = HY_DPDK_PREFIX;
    config.frames = getenv("DPDK_FRAMES") != NULL ? (uint32_t)strtoul(getenv("DPDK_FRAMES"), NULL, 10) : 0;
    config.frame_size = getenv("DPDK_SIZE") != NULL ? (uint32_t)strtoul(getenv("DPDK_SIZE"), NULL, 10) : 4096;
  }
  int rc = argc >= 5 ? hy_shard_open(&config, out) : -EINVAL;
  if (rc < 0)
    return rc;
  bool tap = strcmp(argv[0], "tap") == 0, shared = strcmp(argv[0], "shared") == 0;
  hy_host_link link = {.ifindex = 77, .mtu_bytes = 1500, .answers_arp = !shared};
  hy_addr own[ADDRS];
  unsigned nown = 0;
  if (dpdk && strcmp(argv[2], "-") == 0)
    link.mac[0] = NO_MAC;
  else if (mac_parse(argv[2], link.mac) < 0)
    return -EINVAL;
  if (dpdk)
    rc = dpdk_open(*out, argv[1], (uint8_t)strtoul(argv[3], NULL, 10),
                   argc > 7 && strcmp(argv[argc - 3], "via") == 0, &link, port);
  if (rc < 0)
    return rc;
  rc = table_fill(*out, &link, argc - 4, argv + 4, own, &nown);
  if (rc < 0 || dpdk)
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
