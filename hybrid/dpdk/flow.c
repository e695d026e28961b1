/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules in the NIC (rte_flow). The port is isolated first, so that nothing arrives but what a rule names: the
 * rest stays with the kernel where the driver shares the NIC with it (mlx5), and is dropped by the NIC where
 * it doesn't, which is what the exception path is for. Every rule is validated before the first is created.
 *
 * A range of ports is cut into blocks that a mask describes, because few NICs know ranges:
 * 1000..1005 becomes 1000..1003 and 1004..1005.
 */
#include "dpdk/device.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <rte_flow.h>

enum { FLOWS_MAX = 1024, ITEMS = 4 };

struct pattern {
  struct rte_flow_item items[ITEMS];
  struct rte_flow_item_ipv4 ip4, ip4_mask;
  struct rte_flow_item_ipv6 ip6, ip6_mask;
  struct rte_flow_item_tcp tcp, tcp_mask;
  struct rte_flow_item_udp udp, udp_mask;
};

struct install {
  struct port *port;
  bool create; /* or validate only */
  unsigned made;
  char *detail;
};

static void prefix_fill(uint8_t *value, uint8_t *mask, const uint8_t *from, unsigned len, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) {
    unsigned bits = len > 8 * i ? len - 8 * i : 0;
    mask[i] = (uint8_t)(bits >= 8 ? 0xffu : 0xff00u >> bits);
    value[i] = from[i] & mask[i];
  }
}

static void fill_ip(struct pattern *p, const hy_steer_rule *rule, unsigned family) {
  if (family == 4) {
    p->items[1] = (struct rte_flow_item){RTE_FLOW_ITEM_TYPE_IPV4, &p->ip4, NULL, &p->ip4_mask};
    prefix_fill((uint8_t *)&p->ip4.hdr.src_addr, (uint8_t *)&p->ip4_mask.hdr.src_addr, rule->source,
                rule->source_len, 4);
    prefix_fill((uint8_t *)&p->ip4.hdr.dst_addr, (uint8_t *)&p->ip4_mask.hdr.dst_addr, rule->destination,
                rule->destination_len, 4);
    return;
  }
  p->items[1] = (struct rte_flow_item){RTE_FLOW_ITEM_TYPE_IPV6, &p->ip6, NULL, &p->ip6_mask};
  prefix_fill(p->ip6.hdr.src_addr, p->ip6_mask.hdr.src_addr, rule->source, rule->source_len, 16);
  prefix_fill(p->ip6.hdr.dst_addr, p->ip6_mask.hdr.dst_addr, rule->destination, rule->destination_len, 16);
}

static void fill_transport(struct pattern *p, unsigned protocol, uint16_t port, uint16_t mask) {
  if (protocol == IPPROTO_TCP) {
    p->items[2] = (struct rte_flow_item){RTE_FLOW_ITEM_TYPE_TCP, &p->tcp, NULL, &p->tcp_mask};
    p->tcp.hdr.dst_port = htons(port);
    p->tcp_mask.hdr.dst_port = htons(mask);
  } else {
    p->items[2] = (struct rte_flow_item){RTE_FLOW_ITEM_TYPE_UDP, &p->udp, NULL, &p->udp_mask};
    p->udp.hdr.dst_port = htons(port);
    p->udp_mask.hdr.dst_port = htons(mask);
  }
}

static int refuse(const struct install *in, const hy_steer_rule *rule, const char *why) {
  return dpdk_fail(in->detail, -EOPNOTSUPP,
                   "%s cannot put rule %s into the NIC (%s): steer by the exception path or by XDP instead",
                   in->port->info.driver_name, rule->name, why);
}

static int one(struct install *in, const hy_steer_rule *rule, struct pattern *pattern) {
  struct port *port = in->port;
  uint16_t queues[PORT_QUEUES_MAX];
  for (uint16_t q = 0; q < port->queues; q++)
    queues[q] = q;
  struct rte_flow_action_queue queue = {.index = 0};
  struct rte_flow_action_rss rss = {.types = port->rss, .queue_num = port->queues, .queue = queues};
  struct rte_flow_action actions[2] = {{RTE_FLOW_ACTION_TYPE_QUEUE, &queue},
                                       {RTE_FLOW_ACTION_TYPE_END, NULL}};
  if (rule->verdict == HY_STEER_DROP)
    actions[0] = (struct rte_flow_action){RTE_FLOW_ACTION_TYPE_DROP, NULL};
  else if (port->queues > 1)
    actions[0] = (struct rte_flow_action){RTE_FLOW_ACTION_TYPE_RSS, &rss};
  const struct rte_flow_attr attr = {.ingress = 1};
  struct rte_flow_error error = {0};
  if (in->made++ == FLOWS_MAX)
    return refuse(in, rule, "too many ranges of ports");
  bool done = in->create ? rte_flow_create(port->id, &attr, pattern->items, actions, &error) != NULL
                         : rte_flow_validate(port->id, &attr, pattern->items, actions, &error) == 0;
  return done ? 0 : refuse(in, rule, error.message != NULL ? error.message : "no reason given");
}

/* The rule's ports in blocks whose size is a power of two and whose start a multiple of it. */
static int each_block(struct install *in, const hy_steer_rule *rule, unsigned family, unsigned protocol) {
  uint32_t at = rule->port_lo, end = (uint32_t)rule->port_hi + 1;
  while (at < end) {
    uint32_t size = at == 0 ? 65536 : at & -at;
    while (size > end - at)
      size >>= 1;
    struct pattern pattern;
    memset(&pattern, 0, sizeof pattern);
    pattern.items[0].type = RTE_FLOW_ITEM_TYPE_ETH;
    fill_ip(&pattern, rule, family);
    fill_transport(&pattern, protocol, (uint16_t)at, (uint16_t) ~(size - 1));
    pattern.items[3].type = RTE_FLOW_ITEM_TYPE_END;
    int rc = one(in, rule, &pattern);
    if (rc < 0)
      return rc;
    at += size;
  }
  return 0;
}

static int each_rule(struct install *in) {
  static const unsigned families[] = {4, 6}, protocols[] = {IPPROTO_TCP, IPPROTO_UDP};
  for (uint32_t i = 0; i < in->port->nrules; i++) {
    const hy_steer_rule *rule = &in->port->rules[i];
    if (rule->verdict != HY_STEER_DPDK && rule->verdict != HY_STEER_DROP)
      return refuse(in, rule, "only `dpdk` and `drop` can be said there");
    for (unsigned f = 0; f < 2; f++)
      for (unsigned p = 0; p < 2; p++) {
        if ((rule->family != 0 && rule->family != families[f]) ||
            (rule->protocol != 0 && rule->protocol != protocols[p]))
          continue;
        int rc = each_block(in, rule, families[f], protocols[p]);
        if (rc < 0)
          return rc;
      }
  }
  return 0;
}

int flows_isolate(struct port *port, char *detail) {
  struct rte_flow_error error = {0};
  if (rte_flow_isolate(port->id, 1, &error) == 0)
    return 0;
  return dpdk_fail(
      detail, -EOPNOTSUPP,
      "%s takes in everything that arrives, whatever the rules in the NIC say (%s): steer by the "
      "exception path or by XDP instead",
      port->info.driver_name, error.message != NULL ? error.message : "it cannot be isolated");
}

int flows_install(struct port *port, char *detail) {
  struct install check = {.port = port, .create = false, .detail = detail};
  int rc = each_rule(&check);
  if (rc < 0)
    return rc;
  struct install make = {.port = port, .create = true, .detail = detail};
  rc = each_rule(&make);
  if (rc < 0) {
    struct rte_flow_error error;
    rte_flow_flush(port->id, &error);
    return rc;
  }
  port->flows = (uint16_t)make.made;
  return 0;
}
