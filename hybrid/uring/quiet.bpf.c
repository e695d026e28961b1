/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One question asked in two places: is this packet of a flow that the shard serves?
 *
 *     interface --> packet sockets --> tc ingress --> the kernel's stack
 *                   quiet_take         quiet_drop
 *                   yes: up to us      yes: dropped
 *
 * So each packet has exactly one reader. What cannot be parsed, tagged frames and fragments are no: the
 * kernel's.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "quiet_layout.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum { IP4_BYTES = 20, IP6_BYTES = 40, EVERYTHING = -1 };

struct quiet_set quiet_set;
/* Until when (CLOCK_MONOTONIC) the drops hold good: a shard that lives moves it on. */
__u64 quiet_until_ns;

struct quiet_packet {
  __u32 destination[4];
  __u16 port;
  __u8 protocol;
};

static __always_inline bool parse(struct __sk_buff *skb, struct quiet_packet *packet) {
  __u8 header[IP6_BYTES];
  __be16 ethertype, port;
  __u32 l4;
  if (bpf_skb_load_bytes(skb, 12, &ethertype, 2) < 0)
    return false;
  if (ethertype == bpf_htons(ETH_P_IP)) {
    if (bpf_skb_load_bytes(skb, ETH_HLEN, header, IP4_BYTES) < 0 || header[0] >> 4 != 4)
      return false;
    if ((header[6] & 0x3f) != 0 || header[7] != 0) /* more fragments, or an offset */
      return false;
    packet->destination[0] = packet->destination[1] = 0;
    packet->destination[2] = bpf_htonl(0xffff);
    __builtin_memcpy(&packet->destination[3], header + 16, 4);
    packet->protocol = header[9];
    l4 = ETH_HLEN + (header[0] & 15u) * 4;
  } else if (ethertype == bpf_htons(ETH_P_IPV6)) {
    if (bpf_skb_load_bytes(skb, ETH_HLEN, header, IP6_BYTES) < 0 || header[0] >> 4 != 6)
      return false;
    __builtin_memcpy(packet->destination, header + 24, 16);
    packet->protocol = header[6];
    l4 = ETH_HLEN + IP6_BYTES;
  } else {
    return false;
  }
  if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
    return false;
  if (bpf_skb_load_bytes(skb, l4 + 2, &port, 2) < 0)
    return false;
  packet->port = bpf_ntohs(port);
  return true;
}

static __always_inline bool ours(const struct quiet_packet *packet) {
  if (quiet_set.naddrs == 0)
    return true;
  for (__u32 i = 0; i < QUIET_ADDRS; i++) {
    const __u32 *a = quiet_set.addrs[i], *b = packet->destination;
    if (i < quiet_set.naddrs && a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3])
      return true;
  }
  return false;
}

static __always_inline bool served(struct __sk_buff *skb) {
  struct quiet_packet packet;
  if (skb->pkt_type != PACKET_HOST || skb->vlan_present || !parse(skb, &packet) || !ours(&packet))
    return false;
  for (__u32 i = 0; i < QUIET_FLOWS; i++) {
    const struct quiet_flow *flow = &quiet_set.flows[i];
    if (i < quiet_set.nflows && flow->protocol == packet.protocol && flow->port_lo <= packet.port &&
        packet.port <= flow->port_hi)
      return true;
  }
  return false;
}

SEC("socket")
int quiet_take(struct __sk_buff *skb) {
  return served(skb) ? EVERYTHING : 0;
}

SEC("tc")
int quiet_drop(struct __sk_buff *skb) {
  return bpf_ktime_get_ns() < quiet_until_ns && served(skb) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}
