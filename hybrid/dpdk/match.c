/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules held against a frame, as the steering program does it in the kernel: with its own parser, so that a
 * rule means here what it means there.
 */
#include "dpdk/match.h"

#include <string.h>

#include "bpf/parse.h"

static bool within(const uint8_t *address, const uint8_t *prefix, unsigned len) {
  if (memcmp(address, prefix, len / 8) != 0)
    return false;
  unsigned bits = len % 8;
  return bits == 0 || ((address[len / 8] ^ prefix[len / 8]) & (0xff00u >> bits) & 0xff) == 0;
}

static bool matches(const hy_steer_rule *rule, const struct key *key) {
  bool four = (key->kind & (STEER_TCP4 | STEER_UDP4)) != 0,
       tcp = (key->kind & (STEER_TCP4 | STEER_TCP6)) != 0;
  if ((rule->family != 0 && rule->family != (four ? 4 : 6)) ||
      (rule->protocol != 0 && rule->protocol != (tcp ? IPPROTO_TCP : IPPROTO_UDP)))
    return false;
  return key->port >= rule->port_lo && key->port <= rule->port_hi &&
         within((const uint8_t *)key->source, rule->source, rule->source_len) &&
         within((const uint8_t *)key->destination, rule->destination, rule->destination_len);
}

uint8_t match_frame(const hy_steer_rule *rules, uint32_t count, uint8_t *frame, uint32_t len_bytes) {
  struct key key;
  if (parse_frame(frame, frame + len_bytes, len_bytes, &key) != PARSED)
    return HY_STEER_KERNEL;
  for (uint32_t i = 0; i < count; i++)
    if (matches(&rules[i], &key))
      return rules[i].verdict;
  return HY_STEER_KERNEL;
}
