/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common stack: Ethernet, IPv4, IPv6, UDP and TCP over any device.
 *
 * Sans-I/O. It is given a burst of frames and the time, and leaves behind frames
 * to send (in a queue per link) and completed tokens. It makes no system call,
 * reads no clock, allocates nothing after stack_init and draws randomness only
 * from the generator it was given. So the same code runs on a device, under a
 * fuzzer and in a simulation with virtual time.
 *
 *   stack_input(frames, n)     stack_tick(now)        transport_ops (api.c)
 *        |                          |                        |
 *   packet_parse              tcp_timer              push, pop, connect ...
 *        |                          |                        |
 *   tcp_input, udp_input            +-----------+------------+
 *        |                                      |
 *        +------> connection, `out` list -----> stack_output: tcp_output
 *                                               |
 *                                          link.tx: frames for the device
 */
#ifndef HYBRID_TCP_STACK_H
#define HYBRID_TCP_STACK_H

#include "core/arena.h"
#include "core/device.h"
#include "core/host.h"
#include "core/queue.h"
#include "core/rng.h"
#include "core/stats.h"
#include "core/transport.h"
#include "core/wheel.h"
#include "tcp/flow.h"
#include "tcp/neigh.h"

#define STACK_LINKS 16
#define CSUM_LEAVE_MIN 512 /* bytes of payload: fewer are summed sooner than a device is told to */
#define LINK_TX_FRAMES 512 /* frames that may wait for a link's device; a power of two */

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

struct tcp_conn;
struct tcp_listener;
struct udp_socket;
struct tx_node;
struct ooo_range;

/* One device queue as the stack sees it. */
struct link {
  struct hy_device *dev; /* NULL: the place is free */
  uint32_t ifindex;      /* 0 then */
  uint32_t mtu_bytes;    /* of IP packets; bounded by what a frame holds */
  uint8_t mac[6];
  bool known; /* the host table has a row for it */
  bool answers_arp;
  uint32_t tx_head, tx_tail; /* free-running; tail - head packets wait */
  uint32_t tx[LINK_TX_FRAMES];
};

/* A parsed packet; offsets from the start of its frame. */
struct packet {
  struct flow_key key;
  uint32_t hash;
  uint8_t *l4;        /* the transport header */
  uint64_t addresses; /* their sum, for the pseudo-header */
  uint32_t frame;
  uint16_t l3_off;
  uint16_t l4_off;
  uint16_t l4_len; /* transport header and payload, by the IP header */
  uint8_t proto;
  uint8_t link;
};

/* Who is bound to a local port: listeners and connections' explicit binds, or datagram sockets. */
#define PORT_NONE 0u

struct stack {
  struct transport transport;
  struct arena *arena;
  struct tokens *tokens;
  struct queues *queues;
  struct stats *stats;
  uint32_t *app_frames; /* frames that the application holds */
  uint64_t now;         /* ns; set by stack_tick */
  struct rng rng;
  struct host_view host;
  uint32_t nlinks;

  /* limits, from the configuration */
  uint32_t rcvbuf_bytes, sndbuf_bytes, app_frames_max;
  uint32_t frame_room;     /* payload of a fresh frame */
  uint32_t plain_max;      /* that of a segment in one frame with its checksum done here */
  uint32_t frames_reserve; /* free frames below which received data is no longer kept */
  uint16_t port_lo, port_hi;
  uint8_t rcv_wscale; /* what rcvbuf_bytes needs */

  /* TCP */
  struct flow_table flows;
  struct tcp_conn *conns;
  uint32_t nconns, conn_free, conns_used;
  uint32_t out_head, out_tail; /* connections that want tcp_output, in the order they came to want it */
  struct wheel wheel;          /* one timer per connection */
  struct tx_node *tx_nodes;
  uint32_t tx_node_free;
  struct ooo_range *ranges;
  uint32_t range_free;
  struct tcp_listener *listeners;
  uint32_t nlisteners, listener_free;
  uint32_t *tcp_ports;                     /* [65536]: first listener (index + 1) on the port */
  uint32_t time_wait_head, time_wait_tail; /* oldest first */
  uint8_t isn_key[16];
  uint64_t port_secret[2];
  uint32_t port_counter;

  /* UDP */
  struct udp_socket *udp;
  uint32_t nudp, udp_free;
  uint32_t *udp_ports;

  struct neigh_table neigh;
  int notice_fd;
  void (*notice)(void *ctx, const hy_notice *notice); /* tells the control plane; never waits */
  void *notice_ctx;
  uint32_t tx_waiting; /* frames in all links' queues */
  struct link links[STACK_LINKS];
};

struct stack_config {
  struct arena *arena;
  struct tokens *tokens;
  struct queues *queues;
  struct stats *stats;
  uint32_t *app_frames;
  const hy_config *limits;
  const uint8_t *seed; /* 32 bytes */
  uint64_t now;
  void (*notice)(void *ctx, const hy_notice *notice);
  void *notice_ctx;
};

extern const struct transport_ops stack_transport;

int stack_init(struct stack *st, const struct stack_config *config);
/* Gives every frame back; links' devices must be closed by the caller afterwards. */
void stack_fini(struct stack *st);

/* -ENOSPC. Returns the link's index. */
int stack_add_link(struct stack *st, struct hy_device *dev);
/* Frames that wait for it are dropped, connections over it fail with error (a negative errno). */
void stack_remove_link(struct stack *st, uint8_t link, int error);
/* Whether a route leads to `remote` over one of our links. */
bool stack_reaches(struct stack *st, const uint8_t remote[16]);
/* The host table has changed: links, next hops and waiting packets are looked at again. */
void stack_host_changed(struct stack *st);

/* Takes over one reference of each frame. */
void stack_input(struct stack *st, uint8_t link, const uint32_t *frames, unsigned n);
/* Sets the time and runs what is due. */
void stack_tick(struct stack *st, uint64_t now);
/* Builds frames for all that wants to be sent, as far as the links' queues have room. */
void stack_output(struct stack *st);
static inline bool stack_wants_output(const struct stack *st) {
  return st->out_head != UINT32_MAX;
}
/* When stack_tick wants to be called although nothing happens. */
uint64_t stack_next_deadline(struct stack *st);

/* ---- between the files of the stack -------------------------------------- */

static inline uint32_t link_tx_room(const struct link *link) {
  return LINK_TX_FRAMES - (link->tx_tail - link->tx_head);
}

/* Queues one packet (off and len of its frames set) and takes over a reference. The caller has seen to room.
 */
static inline void link_send(struct stack *st, struct link *link, uint32_t frame) {
  assert(link_tx_room(link) > 0);
  frame_meta(st->arena, frame)->flags |= FRAME_IN_DEVICE;
  st->tx_waiting++;
  link->tx[link->tx_tail++ & (LINK_TX_FRAMES - 1)] = frame;
}

/* False: dropped and counted. Fills in all of the packet; ports and hash where it is TCP. */
bool packet_parse(struct stack *st, uint8_t link, uint32_t frame, struct packet *out);

/* Where the packets of a flow go. */
struct path {
  uint32_t version; /* of the host view it was looked up in */
  uint32_t ifindex; /* whose neighbour the next hop is */
  uint32_t mtu_bytes;
  uint8_t nexthop[16];
  uint8_t mac[6];
  uint8_t link;
  bool resolved; /* mac is known */
};

/*
 * Finds the way to `remote`. prefer_link: the device that the flow's frames come in by, or
 * STACK_LINKS. -ENETUNREACH: no route; -EHOSTUNREACH: the route leaves by no link of ours.
 */
int path_lookup(struct stack *st, const uint8_t remote[16], uint8_t prefer_link, struct path *out,
                uint8_t source[16]);

static inline uint32_t paths_version(const struct stack *st) {
  return st->host.version + st->neigh.version;
}
/* Looked up since the host last changed, and resolved. */
static inline bool path_is_current(const struct stack *st, const struct path *path) {
  return path->resolved && path->version == paths_version(st);
}

#define VLAN_MAX 8 /* bytes of tags that are given back as they came */

/* What the headers in front of a transport segment say, but for its length. */
struct ip_ends {
  const uint8_t *src, *dst; /* 16 bytes each */
  const uint8_t *vlan;
  uint8_t vlan_len;
  uint8_t proto;
  bool is4; /* both are IPv4-mapped */
};

/*
 * Writes Ethernet and IP headers in front of a transport segment, of which l4_len bytes lie in the frame
 * at l4 and `rest` in the frames behind it, with its checksum done, and queues the packet, or lets it wait
 * for the neighbour. Takes over its references.
 */
void path_send(struct stack *st, const struct path *path, const struct ip_ends *ends, uint32_t frame,
               uint8_t *l4, uint32_t l4_len, uint32_t rest);

/* Pseudo-header sum for a transport segment between two mapped addresses. */
uint64_t pseudo_sum(const uint8_t src[16], const uint8_t dst[16], uint8_t proto, uint32_t l4_len);

static inline void addr_from_ip(hy_addr *out, const uint8_t ip[16], uint16_t port, bool is4) {
  memcpy(out->ip, ip, 16);
  out->port = port;
  out->family = is4 ? 4 : 6;
  out->reserved = 0;
}

/* Below this many free frames, data that a peer sends is dropped (it will be sent again). */
static inline bool frames_scarce(const struct stack *st) {
  return st->arena->free_count < st->frames_reserve;
}

void tcp_input(struct stack *st, struct packet *p);
void udp_input(struct stack *st, struct packet *p);
int tcp_init(struct stack *st, const hy_config *limits);
void tcp_fail_link(struct stack *st, uint8_t link, int error);
void tcp_fini(struct stack *st);
int udp_init(struct stack *st, const hy_config *limits);
void udp_fini(struct stack *st);

#endif
