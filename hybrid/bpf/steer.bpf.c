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
 * How a frame is parsed is in parse.h.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "parse.h"

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

#ifdef STEER_FOR_DPDK
#define xsks xsks_map /* STEER_DPDK_SOCKETS: what net_af_xdp looks for */
enum { TO_OWN_SOCKET = STEER_TO_DPDK };
#else
enum { TO_OWN_SOCKET = STEER_TO_AFXDP };
#endif

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
  if (verdict == TO_OWN_SOCKET) {
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
