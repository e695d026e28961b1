/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The steering program: sends the frames that a rule names to the AF_XDP socket
 * of the receive queue they arrived on, and leaves every other frame to the
 * kernel. It fails open: whatever it can't parse to the end passes.
 *
 *   frame -> parse: Ethernet, <= 2 VLAN tags, IPv4 | IPv6 + extensions, TCP | UDP
 *         -> match: rules of the current generation, highest priority first
 *         -> XDP_REDIRECT | XDP_PASS | XDP_DROP, counted under one reason
 *
 * The bytes are hostile. Lengths are checked twice, for two readers: against
 * what the headers claim, because a frame whose headers disagree is the kernel's
 * to judge, and against data_end, which is what the verifier understands.
 */
#include "layout.h"

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

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

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct steer_meta);
} meta SEC(".maps");

struct steer_generation {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(key_size, sizeof(__u32));
  __uint(value_size, sizeof(struct steer_ruleset));
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 1);
  __type(key, __u32);
  __array(values, struct steer_generation);
} generations SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct steer_counters);
} counters SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, STEER_QUEUES);
  __type(key, __u32);
  __type(value, __u32);
} xsks SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_DEVMAP);
  __uint(max_entries, STEER_PORTS);
  __type(key, __u32);
  __type(value, __u32);
} ports SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u32);
} leases SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct steer_state);
} state SEC(".maps");

/* 1: loaded with BPF_F_XDP_HAS_FRAGS. Before the load it is decided; the verifier removes what is not so. */
const volatile __u32 has_fragments = 1;

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
    key->port = bpf_ntohs(tcp->dest);
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
    __u32 said = bpf_ntohs(udp->len);
    if (unlikely(said < sizeof(*udp) || said > length))
      return STEER_MALFORMED;
    key->port = bpf_ntohs(udp->dest);
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
  __u32 total = bpf_ntohs(ip->tot_len);
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
  __u32 length = bpf_ntohs(ip->payload_len);
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
    __u32 size = (ext->length + 1) * 8;
    if (size > length)
      return STEER_MALFORMED;
    next = ext->next;
    offset += size;
    length -= size;
  }
  return STEER_EXT_DEPTH;
}

static __always_inline int parse_frame(void *at, void *end, __u64 bytes, struct key *key) {
  struct ethhdr *ethernet = at;
  if (unlikely((void *)(ethernet + 1) > end))
    return STEER_TRUNCATED;
  __be16 type = ethernet->h_proto;
  at = ethernet + 1;
  bytes -= sizeof(*ethernet);
#pragma unroll
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

/*
 * Whether the kernel has this connection. Only asked where it may: the look-up costs several times what
 * the rest of the program does.
 */
static __noinline int kernel_has(struct xdp_md *ctx, const struct key *key) {
  __u32 zero = 0;
  struct bpf_sock_tuple tuple = {};
  struct steer_state *now = bpf_map_lookup_elem(&state, &zero);
  if (!key || !now || !now->kernel_flows || !(key->kind & (STEER_TCP4 | STEER_TCP6)))
    return 0;
  __u32 size = sizeof(tuple.ipv4);
  if (key->kind == STEER_TCP4) {
    tuple.ipv4.saddr = (__u32)key->source[0];
    tuple.ipv4.daddr = (__u32)key->destination[0];
    tuple.ipv4.sport = key->ports[0];
    tuple.ipv4.dport = key->ports[1];
  } else {
    __builtin_memcpy(tuple.ipv6.saddr, key->source, sizeof(key->source));
    __builtin_memcpy(tuple.ipv6.daddr, key->destination, sizeof(key->destination));
    tuple.ipv6.sport = key->ports[0];
    tuple.ipv6.dport = key->ports[1];
    size = sizeof(tuple.ipv6);
  }
  struct bpf_sock *found = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
  if (!found)
    return 0;
  int connected = found->state != BPF_TCP_LISTEN;
  bpf_sk_release(found);
  return connected;
}

static __always_inline void count(struct steer_count *counter, __u64 bytes) {
  /* Per CPU, and the program is not interrupted by itself: no atomics. */
  counter->packets++;
  counter->bytes += bytes;
}

SEC("xdp")
int hybrid_steer(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data;
  void *end = (void *)(long)ctx->data_end;
  __u64 bytes = has_fragments ? bpf_xdp_get_buff_len(ctx) : (__u64)(end - data);
  __u32 zero = 0;
  struct key key;

  struct steer_counters *counted = bpf_map_lookup_elem(&counters, &zero);
  if (!counted)
    return XDP_PASS;

  int reason = parse_frame(data, end, bytes, &key);
  if (reason != PARSED) {
    count(&counted->reasons[reason & (STEER_REASONS_MAX - 1)], bytes);
    return XDP_PASS;
  }

  void *generation = bpf_map_lookup_elem(&generations, &zero);
  struct steer_ruleset *rules = generation ? bpf_map_lookup_elem(generation, &zero) : 0;
  if (!rules) {
    count(&counted->reasons[STEER_NO_RULES], bytes);
    return XDP_PASS;
  }

  __u32 rule_count = rules->count;
  if (rule_count > STEER_RULES)
    rule_count = STEER_RULES;
  __u32 slot = 0, verdict = 0, fallback = 0;
  for (__u32 i = 0; i < rule_count; i++) {
    const struct steer_head *head = &rules->heads[i];
    if (!(head->kinds & key.kind))
      continue;
    if ((__u16)(key.port - head->port_lo) > head->port_span)
      continue;
    if (head->prefixed && !prefix_match(&rules->prefixes[i], &key))
      continue;

    /* Out of the loop, so that the verifier walks the rest once and not once for each rule. */
    slot = rules->slots[i] & (STEER_SLOTS - 1);
    verdict = head->verdict;
    fallback = head->fallback;
    break;
  }
  if (!verdict) {
    count(&counted->reasons[STEER_NO_MATCH], bytes);
    return XDP_PASS;
  }

  struct steer_rule_count *rule = &counted->slots[slot];
  count(&rule->hit, bytes);
  if (fallback && kernel_has(ctx, &key)) {
    count(&counted->reasons[STEER_KERNEL_FLOW], bytes);
    return XDP_PASS;
  }
  if (verdict == STEER_TO_AFXDP) {
    __u32 queue = ctx->rx_queue_index;
    /* The kernel takes a socket out of the map when its last descriptor is closed. */
    if (likely(bpf_redirect_map(&xsks, queue, XDP_PASS) == XDP_REDIRECT)) {
      count(&counted->reasons[STEER_REDIRECTED], bytes);
      return XDP_REDIRECT;
    }
    count(&rule->no_socket, bytes);
    count(&counted->reasons[STEER_NO_SOCKET], bytes);
    return XDP_PASS;
  }
  if (verdict == STEER_TO_DPDK) {
    /* The kernel empties the lease with the program that holds it, and the port with the veth. */
    if (likely(bpf_map_lookup_elem(&leases, &zero) &&
               bpf_redirect_map(&ports, STEER_PORT_DPDK, XDP_PASS) == XDP_REDIRECT)) {
      count(&counted->reasons[STEER_DPDK], bytes);
      return XDP_REDIRECT;
    }
    count(&rule->no_socket, bytes);
    count(&counted->reasons[STEER_NO_PORT], bytes);
    return XDP_PASS;
  }
  if (verdict == STEER_TO_DROP) {
    count(&counted->reasons[STEER_RULE_DROP], bytes);
    return XDP_DROP;
  }
  count(&counted->reasons[STEER_RULE_KERNEL], bytes);
  return XDP_PASS;
}

/* On the near end of a DPDK port's veth: what the port sends leaves by the interface. */
SEC("xdp")
int hybrid_return(struct xdp_md *ctx) {
  (void)ctx;
  return (int)bpf_redirect_map(&ports, STEER_PORT_SELF, XDP_DROP);
}

/*
 * Run by the loader over a buffer of its own (BPF_PROG_TEST_RUN), never
 * attached: an XSKMAP can't be read by a system call, but it can from here.
 */
SEC("xdp")
int hybrid_queues(struct xdp_md *ctx) {
  struct steer_queues *queues = (void *)(long)ctx->data;
  if ((void *)(queues + 1) > (void *)(long)ctx->data_end)
    return XDP_ABORTED;
  for (__u32 i = 0; i < STEER_QUEUES; i++) {
    __u32 index = i;
    struct bpf_xdp_sock *socket = bpf_map_lookup_elem(&xsks, &index);
    queues->bound_to[i] = socket ? socket->queue_id : STEER_QUEUE_EMPTY;
  }
  __u32 zero = 0;
  queues->leased = bpf_map_lookup_elem(&leases, &zero) ? 1 : STEER_QUEUE_EMPTY;
  return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
