/* SPDX-License-Identifier: Apache-2.0 */
/* Backends by name; see backend.h. */
#include "bench/backend.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW = 1 }; /* of the host table: the one link there is */

struct spec {
  char name[16];
  char device[128];
  hy_addr address;
  uint32_t prefix_len;
};

/* What of the link is known once the device is there; mac: ours. */
struct attached {
  uint8_t mac[6];
  uint32_t mtu_bytes;
};

/* False: it makes no sense. */
static bool spec_parse(const char *text, struct spec *out) {
  *out = (struct spec){0};
  const char *equals = strchr(text, '='), *at = strrchr(text, '@');
  const char *end = at != NULL ? at : text + strlen(text);
  size_t name = (size_t)((equals != NULL && equals < end ? equals : end) - text);
  size_t device = equals != NULL && equals < end ? (size_t)(end - equals - 1) : 0;
  if (name == 0 || name >= sizeof out->name || device >= sizeof out->device)
    return false;
  memcpy(out->name, text, name);
  memcpy(out->device, text + name + (device > 0), device);
  if (at == NULL)
    return true;
  const char *slash = strchr(at, '/');
  char address[HY_ADDR_STRLEN] = {0}, *behind;
  if (slash == NULL || (size_t)(slash - at) > sizeof address)
    return false;
  memcpy(address, at + 1, (size_t)(slash - at - 1));
  unsigned long prefix_len = strtoul(slash + 1, &behind, 10);
  out->prefix_len = (uint32_t)prefix_len;
  return hy_addr_parse(address, &out->address) == 0 && *behind == '\0' && behind != slash + 1 &&
         prefix_len <= (out->address.family == 4 ? 32 : 128);
}

/* A locally administered one, always the same for an address: a neighbour may remember it from the last run.
 */
static void own_mac(const struct spec *spec, uint8_t mac[6]) {
  mac[0] = 0x02;
  mac[1] = 'h';
  memcpy(mac + 2, spec->address.ip + 12, 4);
}

/* Kernel sockets: no link, no address of our own. */
static int attach_uring(hy_shard *shard, const struct spec *spec, struct attached *out) {
  hy_uring_config config = {.struct_size = sizeof config, .sqpoll = strcmp(spec->device, "sqpoll") == 0};
  return hy_uring_attach(shard, &config, NULL);
}

/* Whatever the port has behind it: the address is one that nobody else answers for. */
static int attach_dpdk(hy_shard *shard, const struct spec *spec, struct attached *out) {
  hy_dpdk_config config = {.struct_size = sizeof config, .ifindex = ROW, .port = spec->device};
  hy_dpdk_obtained obtained;
  int rc = hy_dpdk_attach(shard, &config, &obtained);
  if (rc == 0) {
    memcpy(out->mac, obtained.mac, sizeof out->mac);
    out->mtu_bytes = obtained.mtu_bytes;
  }
  return rc;
}

static int attach_packet(hy_shard *shard, const struct spec *spec, struct attached *out) {
  hy_packet_config config = {.struct_size = sizeof config,
                             .interface = if_nametoindex(spec->device),
                             .ifindex = ROW,
                             .packet_fd = -1,
                             .mode = HY_PACKET_OWN};
  hy_packet_obtained obtained;
  own_mac(spec, config.mac);
  int rc = hy_packet_attach(shard, &config, &obtained);
  if (rc == 0) {
    memcpy(out->mac, obtained.mac, sizeof out->mac);
    out->mtu_bytes = obtained.mtu_bytes;
  }
  return rc;
}

static int attach_tap(hy_shard *shard, const struct spec *spec, struct attached *out) {
  hy_tap_config config = {.struct_size = sizeof config, .ifindex = ROW, .tap_fd = -1};
  hy_tap_obtained obtained;
  if (strlen(spec->device) >= sizeof config.name)
    return -EINVAL;
  memcpy(config.name, spec->device, strlen(spec->device) + 1);
  int rc = hy_tap_attach(shard, &config, &obtained);
  if (rc == 0) {
    own_mac(spec, out->mac);
    out->mtu_bytes = obtained.mtu_bytes;
  }
  return rc;
}

/* The link with its one address. Nothing else is known: the stack asks for neighbours itself. */
static int set_host(hy_shard *shard, const struct spec *spec, const struct attached *attached) {
  hy_host_link link = {.ifindex = ROW, .mtu_bytes = attached->mtu_bytes, .answers_arp = 1};
  hy_host_addr addr = {.addr = spec->address, .ifindex = ROW, .prefix_len = spec->prefix_len};
  hy_host_route route = {.dst = spec->address, .prefix_len = spec->prefix_len, .ifindex = ROW};
  hy_host *host;
  memcpy(link.mac, attached->mac, sizeof link.mac);
  int rc = hy_host_create(&host);
  if (rc < 0)
    return rc;
  rc = hy_host_update(host, &link, 1, &addr, 1, &route, 1, NULL, 0);
  if (rc == 0)
    rc = hy_shard_set_host(shard, host);
  hy_host_close(host); /* the shard keeps its own mapping */
  return rc;
}

static const struct {
  const char *name;
  int (*attach)(hy_shard *shard, const struct spec *spec, struct attached *out);
  uint32_t frame_prefix_bytes;
} backends[] = {
    {"dpdk", attach_dpdk, HY_DPDK_PREFIX},
    {"packet", attach_packet, 0},
    {"tap", attach_tap, 0},
    {"uring", attach_uring, 0},
};

static bool senseless; /* the last spec */

int backend_open(const char *text, hy_config *config, hy_shard **out) {
  if (text == NULL)
    return hy_shard_open_served(config, out);
  struct spec spec;
  size_t i = 0, n = sizeof backends / sizeof backends[0];
  bool sense = spec_parse(text, &spec);
  while (sense && i < n && strcmp(backends[i].name, spec.name) != 0)
    i++;
  if (!sense || i == n) {
    senseless = true;
    return -EINVAL;
  }
  struct attached attached = {0};
  config->frame_prefix_bytes = backends[i].frame_prefix_bytes;
  int rc = hy_shard_open(config, out);
  if (rc == 0)
    rc = backends[i].attach(*out, &spec, &attached);
  if (rc == 0 && attached.mtu_bytes > 0)
    rc = set_host(*out, &spec, &attached);
  if (rc < 0) {
    hy_shard_close(*out);
    *out = NULL;
  }
  return rc;
}

const char *backend_error(int error) {
  const char *detail = hy_error_detail();
  if (senseless)
    return "--backend takes NAME[=DEVICE][@ADDRESS/PREFIX], with the name of a backend that there is";
  return *detail ? detail : hy_strerror(error);
}
