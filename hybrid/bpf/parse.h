/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From a frame to what rules look at: for the steering program in the kernel (steer.bpf.c), and for the
 * DPDK plugin where the NIC is DPDK's whole (dpdk/match.c).
 *
 * The bytes are hostile. Lengths are checked twice, for two readers: against
 * what the headers claim, because a frame whose headers disagree is the kernel's
 * to judge, and against the end of the frame, which is what the verifier understands.
 */
#ifndef HYBRID_BPF_PARSE_H
#define HYBRID_BPF_PARSE_H

#include "layout.h"

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>

/* From the kernel's headers of IPv4 and IPv6, which have no uapi form. */
#define IPV4_FRAGMENT 0x3fff /* more fragments follow, or an offset */
#define IPV6_HOP_BY_HOP 0
#define IPV6_ROUTING 43
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION 60

/* Never a reason: parsing went through and the rules decide. */
#define PARSED (-1)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* What rules look at. Addresses are as in struct steer_prefix. */
struct key {
  __u64 source[2];
  __u64 destination[2];
  __u32 kind;      /* one bit of enum steer_kind */
  __u32 port;      /* destination */
  __be16 ports[2]; /* both, as in the packet; of TCP only */
};

struct vlan_tag {
  __be16 control;
  __be16 type;
};

/*
 * What hop-by-hop, routing and destination options have in common. An authentication header is not
 * followed: whether a packet passes IPsec is the kernel's to say.
 */
struct extension {
  __u8 next;
  __u8 length; /* in units and with an origin that depend on the header */
  __u8 routing_type;
  __u8 segments_left; /* of a routing header */
};

/* The transport header. length is what IP says there is of it with its payload. */
static __always_inline int parse_transport(void *at, void *end, __u32 length, __u8 protocol, __u32 tcp_kind,
                                           struct key *key) {
  if (protocol == IPPROTO_TCP) {
    struct tcphdr *tcp = at;
    if (unlikely(length < sizeof(*tcp)))
      return STEER_MALFORMED;
    if (unlikely((void *)(tcp + 1) > end))
      return STEER_TRUNCATED;
    __u32 header = tcp->doff * 4;
    if (unlikely(header < sizeof(*tcp) || header > length))
      return STEER_MALFORMED;
    key->port = (__u16)bpf_ntohs(tcp->dest);
    key->ports[0] = tcp->source;
    key->ports[1] = tcp->dest;
    key->kind = tcp_kind;
    return PARSED;
  }
  if (protocol == IPPROTO_UDP) {
    struct udphdr *udp = at;
    if (unlikely(length < sizeof(*udp)))
      return STEER_MALFORMED;
    if (unlikely((void *)(udp + 1) > end))
      return STEER_TRUNCATED;
    __u32 said = (__u16)bpf_ntohs(udp->len);
    if (unlikely(said < sizeof(*udp) || said > length))
      return STEER_MALFORMED;
    key->port = (__u16)bpf_ntohs(udp->dest);
    key->kind = tcp_kind << 1;
    return unlikely(key->port == STEER_PORT_ROCE) ? STEER_ROCE : PARSED;
  }
  return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? STEER_ICMP : STEER_PROTOCOL;
}

/* left: bytes of the frame from here on, wherever they lie. */
static __always_inline int parse_ipv4(void *at, void *end, __u64 left, struct key *key) {
  struct iphdr *ip = at;
  if (unlikely((void *)(ip + 1) > end))
    return STEER_TRUNCATED;
  __u32 header = ip->ihl * 4;
  __u32 total = (__u16)bpf_ntohs(ip->tot_len);
  if (unlikely(ip->version != 4 || header < sizeof(*ip) || total < header))
    return STEER_MALFORMED;
  if (unlikely(total > left))
    return STEER_TRUNCATED;
  /* Also the first fragment, which does have ports: the kernel must see all of them to reassemble. */
  if (unlikely(ip->frag_off & bpf_htons(IPV4_FRAGMENT)))
    return STEER_FRAGMENT;
  key->source[0] = ip->saddr;
  key->source[1] = 0;
  key->destination[0] = ip->daddr;
  key->destination[1] = 0;
  return parse_transport(at + header, end, total - header, ip->protocol, STEER_TCP4, key);
}

static __always_inline int parse_ipv6(void *at, void *end, __u64 left, struct key *key) {
  struct ipv6hdr *ip = at;
  if (unlikely((void *)(ip + 1) > end))
    return STEER_TRUNCATED;
  if (unlikely(ip->version != 6))
    return STEER_MALFORMED;
  __u32 length = (__u16)bpf_ntohs(ip->payload_len);
  if (unlikely(length + sizeof(*ip) > left))
    return STEER_TRUNCATED;
  const __u64 *addresses = (const __u64 *)&ip->saddr;
  key->source[0] = addresses[0];
  key->source[1] = addresses[1];
  key->destination[0] = addresses[2];
  key->destination[1] = addresses[3];

  __u8 next = ip->nexthdr;
  __u32 offset = sizeof(*ip);
  /* RFC 8200 section 4: a chain, each header naming the next. */
  for (int i = 0; i <= STEER_EXT_HEADERS; i++) {
    if (likely(next == IPPROTO_TCP || next == IPPROTO_UDP))
      return parse_transport(at + offset, end, length, next, STEER_TCP6, key);
    if (next == IPV6_FRAGMENT)
      return STEER_FRAGMENT; /* an atomic one (RFC 6946) as well */
    if (next != IPV6_HOP_BY_HOP && next != IPV6_ROUTING && next != IPV6_DESTINATION)
      return next == IPPROTO_ICMPV6 || next == IPPROTO_ICMP ? STEER_ICMP : STEER_PROTOCOL;
    if (i == STEER_EXT_HEADERS)
      break;
    /* Section 4.3: nowhere but right after the IPv6 header. */
    if (next == IPV6_HOP_BY_HOP && i > 0)
      return STEER_MALFORMED;
    if (length < 8)
      return STEER_MALFORMED;
    struct extension *ext = at + offset;
    if ((void *)ext + 8 > end)
      return STEER_TRUNCATED;
    /* With segments left this host is a waypoint, and forwarding is the kernel's. */
    if (next == IPV6_ROUTING && ext->segments_left > 0)
      return STEER_ROUTING;
    __u32 size = (ext->length + 1u) * 8;
    if (size > length)
      return STEER_MALFORMED;
    next = ext->next;
    offset += size;
    length -= size;
  }
  return STEER_EXT_DEPTH;
}

/* bytes: of the whole frame, of which [at, end) is the part that lies in one piece. */
static __always_inline int parse_frame(void *at, void *end, __u64 bytes, struct key *key) {
  struct ethhdr *ethernet = at;
  if (unlikely((void *)(ethernet + 1) > end))
    return STEER_TRUNCATED;
  __be16 type = ethernet->h_proto;
  at = ethernet + 1;
  bytes -= sizeof(*ethernet);
#ifdef __bpf__
#pragma unroll
#endif
  for (int i = 0; i < STEER_VLAN_TAGS; i++) {
    if (likely(type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD)))
      break;
    struct vlan_tag *tag = at;
    if (unlikely((void *)(tag + 1) > end))
      return STEER_TRUNCATED;
    type = tag->type;
    at = tag + 1;
    bytes -= sizeof(*tag);
  }
  if (type == bpf_htons(ETH_P_IP))
    return parse_ipv4(at, end, bytes, key);
  if (type == bpf_htons(ETH_P_IPV6))
    return parse_ipv6(at, end, bytes, key);
  return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD) ? STEER_VLAN_DEPTH : STEER_NOT_IP;
}

static __always_inline int prefix_match(const struct steer_prefix *prefix, const struct key *key) {
  /* First words first: they are all of an IPv4 address, and of an IPv6 address what mostly differs. */
  return !((key->source[0] ^ prefix->source[0]) & prefix->source_mask[0]) &&
         !((key->destination[0] ^ prefix->destination[0]) & prefix->destination_mask[0]) &&
         !((key->source[1] ^ prefix->source[1]) & prefix->source_mask[1]) &&
         !((key->destination[1] ^ prefix->destination[1]) & prefix->destination_mask[1]);
}

#endif
