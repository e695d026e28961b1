/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backends, one row each: the name that --attach takes and the function that attaches it to a
 * shard. A backend whose cable lies inside the process is attached to both shards at once.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SAID = 512 };

/* The value of KEY in "KEY=VALUE,KEY=VALUE"; NULL if it is not there. Ends at a comma or at the end. */
static const char *value_of(const char *settings, const char *key) {
  size_t len = strlen(key);
  while (settings != NULL && *settings != '\0') {
    if (strncmp(settings, key, len) == 0 && settings[len] == '=')
      return settings + len + 1;
    settings = strchr(settings, ',');
    if (settings != NULL)
      settings++;
  }
  return NULL;
}

static long number_of(const char *settings, const char *key, long otherwise) {
  const char *value = value_of(settings, key);
  return value == NULL ? otherwise : strtol(value, NULL, 10);
}

static int attach_memory(struct agent *a, struct agent *other, const char *settings, char *said) {
  uint32_t ifindex = (uint32_t)number_of(settings, "ifindex", 1);
  return other == NULL ? -EINVAL : hy_memory_attach(a->shard, ifindex, other->shard, ifindex);
}

static int attach_afxdp(struct agent *a, struct agent *other, const char *settings, char *said) {
  hy_afxdp_config config = {
      .struct_size = sizeof config,
      .ifindex = (uint32_t)number_of(settings, "ifindex", 0),
      .queue = (uint32_t)number_of(settings, "queue", 0),
      .xsk_fd = (int32_t)number_of(settings, "xsk_fd", -1),
      .map_fd = (int32_t)number_of(settings, "map_fd", -1),
      .ring_size = (uint32_t)number_of(settings, "ring_size", 0),
  };
  hy_afxdp_obtained got;
  int rc = hy_afxdp_attach(a->shard, &config, &got);
  if (rc == 0)
    snprintf(said, SAID, "{\"zerocopy\": %d, \"ring_size\": %u}", got.zerocopy, got.ring_size);
  return rc;
}

/* The value of a key as a string of its own. */
static void text_of(const char *settings, const char *key, char *out, size_t capacity) {
  const char *value = value_of(settings, key);
  snprintf(out, capacity, "%.*s", value == NULL ? 0 : (int)strcspn(value, ","), value == NULL ? "" : value);
}

static int attach_tap(struct agent *a, struct agent *other, const char *settings, char *said) {
  hy_tap_config config = {
      .struct_size = sizeof config,
      .ifindex = (uint32_t)number_of(settings, "ifindex", 0),
      .tap_fd = -1,
  };
  hy_tap_obtained got;
  text_of(settings, "name", config.name, sizeof config.name);
  int rc = hy_tap_attach(a->shard, &config, &got);
  if (rc == 0)
    snprintf(said, SAID, "{\"offload\": %d, \"registered\": %d}", got.offload, got.registered);
  return rc;
}

static int attach_packet(struct agent *a, struct agent *other, const char *settings, char *said) {
  hy_packet_config config = {
      .struct_size = sizeof config,
      .interface = (uint32_t)number_of(settings, "ifindex", 0),
      .packet_fd = -1,
      .mode = HY_PACKET_OWN,
  };
  hy_packet_obtained got;
  const char *mac = value_of(settings, "mac");
  int rc = mac == NULL ? 0 : mac_parse(mac, config.mac);
  if (rc == 0)
    rc = hy_packet_attach(a->shard, &config, &got);
  if (rc == 0)
    snprintf(said, SAID, "{\"offload\": %d}", got.offload);
  return rc;
}

static int attach_uring(struct agent *a, struct agent *other, const char *settings, char *said) {
  hy_uring_config config = {
      .struct_size = sizeof config,
      .buffers = (uint32_t)number_of(settings, "buffers", 0),
  };
  hy_uring_obtained got;
  int rc = hy_uring_attach(a->shard, &config, &got);
  if (rc == 0)
    snprintf(said, SAID, "{\"buffers\": %u, \"bundles\": %d, \"zerocopy\": %d}", got.buffers, got.bundles,
             got.zerocopy);
  return rc;
}

/* The port comes last, as DPDK writes it: its own commas are no end. */
static int attach_dpdk(struct agent *a, struct agent *other, const char *settings, char *said) {
  hy_dpdk_config config = {
      .struct_size = sizeof config,
      .ifindex = (uint32_t)number_of(settings, "ifindex", 0),
      .rx_desc = (uint16_t)number_of(settings, "rx_desc", 0),
      .port = value_of(settings, "port"),
  };
  hy_dpdk_obtained got;
  int rc = config.port == NULL ? -EINVAL : hy_dpdk_attach(a->shard, &config, &got);
  if (rc == 0)
    snprintf(said, SAID, "{\"driver\": \"%s\", \"interrupt\": %d, \"rx_desc\": %u}", got.driver,
             got.interrupt, got.rx_desc);
  return rc;
}

static const struct backend {
  const char *name;
  int (*attach)(struct agent *a, struct agent *other, const char *settings, char *said);
} backends[] = {
    {"memory", attach_memory}, {"afxdp", attach_afxdp}, {"uring", attach_uring},
    {"dpdk", attach_dpdk},     {"tap", attach_tap},     {"packet", attach_packet},
};

static int attach_one(struct agent *a, struct agent *other, const char *text, char *said) {
  size_t len = strcspn(text, ",");
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
    if (strlen(backends[i].name) == len && strncmp(backends[i].name, text, len) == 0)
      return backends[i].attach(a, other, text[len] == ',' ? text + len + 1 : "", said);
  return -ENOPROTOOPT;
}

int attach_all(struct agent *agents, unsigned n, char *said, size_t capacity) {
  size_t at = 0;
  said[0] = '\0';
  for (unsigned i = 0; i < n; i++)
    for (unsigned j = 0; j < agents[i].spec->nattaches; j++) {
      const char *text = agents[i].spec->attaches[j];
      char one[SAID] = "{}";
      int rc = attach_one(&agents[i], i + 1 < n ? &agents[i + 1] : NULL, text, one);
      if (rc < 0) {
        snprintf(said, capacity, "\"%.*s\": {}", (int)strcspn(text, ","), text);
        return rc;
      }
      at += (size_t)snprintf(said + at, capacity - at, "%s\"%.*s\": %s", at > 0 ? ", " : "",
                             (int)strcspn(text, ","), text, one);
      if (at >= capacity)
        return -E2BIG;
    }
  return 0;
}
