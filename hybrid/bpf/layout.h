/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps of the steering program: one layout for the program in the kernel
 * (steer.bpf.c) and for the loader beside it. Host byte order unless said
 * otherwise; nothing here leaves the host.
 *
 *   meta         ARRAY[1]           struct steer_meta      written at attach
 *   generations  ARRAY_OF_MAPS[1]   -> ARRAY[1] of struct steer_ruleset
 *   counters     PERCPU_ARRAY[1]    struct steer_counters  written by the program only
 *   xsks         XSKMAP[64]         AF_XDP socket of each receive queue
 *   ports        DEVMAP[2]          the veth of the interface's DPDK port, and the interface     since 1.1
 *   leases       XSKMAP[1]          whether a program has that port                              since 1.1
 *   state        ARRAY[1]           struct steer_state      written by the control plane         since 1.1
 *
 * A lease is an AF_XDP socket that moves nothing. The program that has the DPDK port holds its last
 * descriptor, so when that program ends, however it ends, the kernel empties the slot and frames for
 * the port pass: a veth would go on swallowing them.
 *
 * A change of rules fills a new ruleset and puts it into generations[0]. That is
 * one pointer store, so a frame sees the old rules or the new, and the system
 * call returns only when every run of the program that could hold the old one
 * has ended (an RCU grace period; map_update_elem of a map of maps).
 *
 * Counters only grow, and only the program writes them. Each rule owns a *slot*
 * and remembers what the slot stood at when it got it (`base`); a rule that
 * stays as it is keeps both from one generation to the next. There are twice as
 * many slots as rules, so a slot of the generation before is never handed out.
 */
#ifndef HYBRID_BPF_LAYOUT_H
#define HYBRID_BPF_LAYOUT_H

#include <linux/types.h>

enum {
  STEER_MAGIC = 0x48595354,
  /*
   * Of this layout. The same major can be shared between builds (a minor appends
   * to an enum or takes a reserved field); another major needs new maps.
   */
  STEER_MAJOR = 1,
  STEER_MINOR = 1, /* 1: ports, leases, state; steer_meta.fragments */

  STEER_RULES = 256,             /* in one generation */
  STEER_SLOTS = 2 * STEER_RULES, /* rule counters */
  STEER_REASONS_MAX = 32,        /* reason counters; those in use are below */
  STEER_QUEUES = 64,             /* receive queues of an interface */
  STEER_NAME_BYTES = 64,         /* a rule's name with its terminator */
  STEER_VLAN_TAGS = 2,           /* 802.1Q or 802.1ad, in any mix */
  STEER_EXT_HEADERS = 8,         /* IPv6 extension headers followed before giving up */
  STEER_PORT_ROCE = 4791,        /* RoCEv2: belongs to the host's RDMA device */
  STEER_IFNAME_BYTES = 16,
};

/*
 * Why a frame went where it went: X(symbol, name, help). Each frame counts under
 * exactly one. All but REDIRECTED, DPDK and RULE_DROP leave the frame to the kernel.
 */
#define STEER_REASONS(X)                                                                                     \
  X(REDIRECTED, "redirected", "a rule sent it to the AF_XDP socket of its queue")                            \
  X(RULE_KERNEL, "rule-kernel", "a rule left it to the kernel")                                              \
  X(RULE_DROP, "rule-drop", "a rule dropped it")                                                             \
  X(NO_SOCKET, "no-socket", "a rule matched, but its queue has no AF_XDP socket")                            \
  X(NO_MATCH, "no-match", "TCP or UDP that no rule names")                                                   \
  X(NO_RULES, "no-rules", "no rules have been loaded yet")                                                   \
  X(NOT_IP, "not-ip", "neither IPv4 nor IPv6 (ARP, for one)")                                                \
  X(VLAN_DEPTH, "vlan-depth", "more than two VLAN tags")                                                     \
  X(ICMP, "icmp", "ICMP, or ICMPv6 with its neighbour discovery: always the kernel's")                       \
  X(PROTOCOL, "protocol", "IP that is neither TCP nor UDP")                                                  \
  X(ROCE, "roce", "UDP to port 4791 (RoCEv2): always the kernel's")                                          \
  X(FRAGMENT, "fragment", "a fragment of an IP packet, the first included")                                  \
  X(ROUTING, "routing", "an IPv6 routing header with segments left")                                         \
  X(EXT_DEPTH, "ext-depth", "more IPv6 extension headers than are followed")                                 \
  X(TRUNCATED, "truncated", "the frame ends before its headers or lengths do")                               \
  X(MALFORMED, "malformed", "a header contradicts itself (version, length or offset)")                       \
  X(DPDK, "dpdk", "a rule sent it to the DPDK port of the interface")                                        \
  X(NO_PORT, "no-port", "a rule matched, but no program has the DPDK port")                                  \
  X(KERNEL_FLOW, "kernel-flow", "a rule with a fallback left it to the kernel, which has the connection")

enum steer_reason {
#define STEER_REASON_ENUM(symbol, name, help) STEER_##symbol,
  STEER_REASONS(STEER_REASON_ENUM)
#undef STEER_REASON_ENUM
      STEER_REASON_COUNT
};

enum steer_verdict {
  STEER_TO_AFXDP = 1,
  STEER_TO_KERNEL = 2,
  STEER_TO_DROP = 3,
  STEER_TO_DPDK = 4,
  STEER_TO_URING = 5, /* the loader's word; the program is given STEER_TO_KERNEL */
};

/* What ports holds. */
enum steer_port {
  STEER_PORT_DPDK = 0, /* the near end of the veth whose far end the DPDK port has */
  STEER_PORT_SELF = 1, /* the interface itself, for what comes back */
  STEER_PORTS = 2,
};

/* The socket map's name in the object that DPDK's net_af_xdp driver loads (steer_dpdk.bpf.c). */
#define STEER_DPDK_SOCKETS "xsks_map"

/* A frame has one of these bits, a rule the set of those that it accepts. */
enum steer_kind {
  STEER_TCP4 = 1,
  STEER_UDP4 = 2,
  STEER_TCP6 = 4,
  STEER_UDP6 = 8,
};

/*
 * What every frame is held against, eight to a cache line and highest priority
 * first. The prefixes are looked at only where this part matches.
 */
struct steer_head {
  __u16 port_lo;   /* a destination port p matches if p - port_lo <= port_span, modulo 65536 */
  __u16 port_span; /* 65535 with port_lo 0: any */
  __u8 kinds;      /* set of enum steer_kind */
  __u8 verdict;    /* enum steer_verdict */
  __u8 prefixed;   /* 1: the prefixes decide as well */
  __u8 fallback;   /* 1: connections that the kernel has stay its own, see struct steer_state; since 1.1 */
};

/*
 * Addresses as the first word(s) hold them when loaded from the packet: an IPv4
 * address is a 32-bit load widened into word 0, an IPv6 address two 64-bit loads.
 * Matches if (address ^ value) & mask is zero in both words.
 */
struct steer_prefix {
  __u64 source[2];
  __u64 source_mask[2];
  __u64 destination[2];
  __u64 destination_mask[2];
};

struct steer_count {
  __u64 packets;
  __u64 bytes; /* from the Ethernet header on, without the frame check sequence */
};

struct steer_rule_count {
  struct steer_count hit;       /* frames that the rule decided */
  struct steer_count no_socket; /* of these, left to the kernel for want of a socket */
};

/* What a rule asks for, as it was given: two rules are the same if name and match are. */
struct steer_match {
  __u8 protocol; /* 6, 17; 0: both */
  __u8 family;   /* of the prefixes: 4, 6; 0: there are none, both families */
  __u8 source_len;
  __u8 destination_len;
  __u16 port_lo; /* inclusive range; 0..65535: any */
  __u16 port_hi;
  __u8 source[16]; /* network byte order; IPv4 in the first four bytes; host bits zero */
  __u8 destination[16];
};

/* The loader's side of a rule; the program does not look at it. */
struct steer_rule {
  char name[STEER_NAME_BYTES]; /* UTF-8, ends with a zero */
  struct steer_match match;
  __s32 priority;
  __u8 verdict;
  __u8 fallback; /* enum hy_backend; since 1.1 */
  __u8 reserved[2];
  struct steer_rule_count base; /* the slot's counters when this rule was given it */
};

struct steer_ruleset {
  __u32 count; /* <= STEER_RULES */
  __u32 reserved;
  __u64 generation; /* 1 is the empty one made at attach */
  struct steer_head heads[STEER_RULES];
  __u16 slots[STEER_RULES]; /* each < STEER_SLOTS */
  struct steer_prefix prefixes[STEER_RULES];
  struct steer_rule rules[STEER_RULES];
};

struct steer_counters {
  struct steer_count reasons[STEER_REASONS_MAX];
  struct steer_rule_count slots[STEER_SLOTS];
};

/* Written once, before the program sees a frame. */
struct steer_meta {
  __u32 magic;
  __u16 major;
  __u16 minor;
  __u64 netns; /* inode number of the network namespace attached in */
  __u32 ifindex;
  __u8 requested; /* enum hy_xdp_mode */
  __u8 obtained;
  __u16 queues; /* receive queues when attached */
  char ifname[STEER_IFNAME_BYTES];
  char note[124]; /* why obtained is not what was preferred; empty if it is */
  __u8 fragments; /* 1: frames larger than a buffer are steered too */
  __u8 reserved[3];
};

/*
 * While the bypass of a listener was not there, the kernel has accepted connections in its place. They are
 * not to be torn down when it is back, so for as long as there may be some, the kernel is asked.
 */
struct steer_state {
  __u32 kernel_flows; /* 1: rules with a fallback look for a connection of the kernel's first */
  __u32 reserved[15];
};

/* What the second program of the object (steer_queues) writes over its input: the queue each socket is bound
 * to. */
enum { STEER_QUEUE_EMPTY = 0xffffffff };
struct steer_queues {
  __u32 bound_to[STEER_QUEUES];
  __u32 leased; /* STEER_QUEUE_EMPTY: no; since 1.1 */
};

#ifndef __cplusplus
#define STEER_ASSERT(condition) _Static_assert(condition, #condition)
STEER_ASSERT(sizeof(struct steer_head) == 8);
STEER_ASSERT(sizeof(struct steer_prefix) == 64);
STEER_ASSERT(sizeof(struct steer_match) == 40);
STEER_ASSERT(sizeof(struct steer_rule) == 144);
STEER_ASSERT(sizeof(struct steer_ruleset) == 16 + STEER_RULES * (8 + 2 + 64 + 144));
STEER_ASSERT(sizeof(struct steer_meta) == 168);
STEER_ASSERT(sizeof(struct steer_state) == 64);
STEER_ASSERT((int)STEER_REASON_COUNT <= (int)STEER_REASONS_MAX);
/* A per-CPU allocation may not exceed 32 KiB (PCPU_MIN_UNIT_SIZE). */
STEER_ASSERT(sizeof(struct steer_counters) <= 32768);
#endif

#endif
