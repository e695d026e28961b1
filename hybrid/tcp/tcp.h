/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP (RFC 9293), split by what it does:
 *
 *   tcp_input.c    segments of an established connection; header prediction
 *   tcp_states.c   the other states: handshake, closing, resets
 *   tcp_listen.c   listeners: SYN to accepted
 *   tcp_option.c   options, both ways
 *   tcp_reass.c    received data: in order, ahead of a gap
 *   tcp_output.c   what to send, and building it
 *   tcp_ack.c      acknowledgements: round-trip time, queue, recovery
 *   tcp_cc.c       congestion control (RFC 5681; others take its place)
 *   tcp_timer.c    retransmission, probes, delayed ACK, TIME_WAIT
 *   tcp_conn.c     a connection's birth and death
 *   tcp_ops.c      what the application asks for
 *
 * Send side, sequence numbers growing to the right:
 *
 *      snd_una          snd_nxt        snd_max          write_seq
 *         | in flight ----|--(resending)--|  not sent yet  |
 *   tx_head node     tx_next node                     tx_tail node
 *
 * Receive side:
 *
 *      rx queue (app)  | rcv_nxt   gap  [range] gap [range]   | rcv_adv
 *      rxq_bytes       |                out of order          | advertised edge
 */
#ifndef HYBRID_TCP_TCP_H
#define HYBRID_TCP_TCP_H

#include "tcp/stack.h"
#include "tcp/wire.h"

#define CONN_NONE UINT32_MAX
#define NODE_NONE UINT32_MAX
#define RANGE_NONE UINT32_MAX

#define TCP_RCV_INITIAL 65535              /* receive window before the reader has read anything */
#define SEND_SHARE 16                      /* of the free frames, one in so many */
#define SEND_LIMIT_MIN (64u << 10)         /* bytes */
#define TCP_INITIAL_WINDOW 10              /* segments, RFC 6928 */
#define TCP_RTO_INITIAL_NS (1 * NS_PER_S)  /* RFC 6298 section 2.1 */
#define TCP_RTO_MIN_NS (200 * NS_PER_MS)   /* Linux: TCP_RTO_MIN */
#define TCP_RTO_MAX_NS (120 * NS_PER_S)    /* Linux: TCP_RTO_MAX */
#define TCP_DELACK_NS (40 * NS_PER_MS)     /* Linux: TCP_DELACK_MIN */
#define TCP_QUICKACKS 16                   /* segments acknowledged at once after the start or a gap */
#define TCP_SYN_RETRIES 6                  /* Linux: net.ipv4.tcp_syn_retries */
#define TCP_SYNACK_RETRIES 5               /* Linux: net.ipv4.tcp_synack_retries */
#define TCP_RETRIES 15                     /* Linux: net.ipv4.tcp_retries2 */
#define TCP_ORPHAN_RETRIES 8               /* Linux: net.ipv4.tcp_orphan_retries' effect */
#define TCP_TIME_WAIT_NS (60 * NS_PER_S)   /* Linux: TCP_TIMEWAIT_LEN */
#define TCP_FIN_WAIT2_NS (60 * NS_PER_S)   /* Linux: net.ipv4.tcp_fin_timeout */
#define TCP_CHALLENGE_NS (500 * NS_PER_MS) /* per connection; Linux: net.ipv4.tcp_invalid_ratelimit */
#define TCP_PAWS_IDLE_NS (24ull * 24 * 3600 * NS_PER_S) /* RFC 7323 section 5.5 */
#define TCP_OOO_RANGES 32                               /* gaps kept per connection */
#define TCP_DUPACKS 3
#define TCP_MSS_DEFAULT 536 /* RFC 9293 section 3.7.1; IPv6: 1220 */
#define TCP_MSS_DEFAULT6 1220
#define TCP_MSS_MIN 48         /* Linux: TCP_MIN_SND_MSS, against tiny-segment attacks */
#define TCP_COALESCE_BYTES 512 /* smaller segments are merged into the frame before */
#define TCP_SACK_BLOCKS 3      /* that fit beside timestamps */

enum tcp_state {
  TCP_CLOSED = 0,
  TCP_SYN_SENT,
  TCP_SYN_RCVD,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT_1,
  TCP_FIN_WAIT_2,
  TCP_CLOSE_WAIT,
  TCP_CLOSING,
  TCP_LAST_ACK,
  TCP_TIME_WAIT,
  /* LISTEN, the eleventh, is struct tcp_listener. */
};

enum tcp_conn_flags {
  CONN_IP4 = 1 << 0,
  CONN_TS = 1 << 1,         /* timestamps agreed on */
  CONN_SACK = 1 << 2,       /* SACK agreed on */
  CONN_WSCALE = 1 << 3,     /* window scaling agreed on */
  CONN_ACK_NOW = 1 << 4,    /* an ACK must leave at the next output */
  CONN_ACK_LATER = 1 << 5,  /* delayed ACK pending */
  CONN_SHUT = 1 << 6,       /* FIN queued behind what is written */
  CONN_RCV_FIN = 1 << 7,    /* the peer's FIN is in rcv_nxt */
  CONN_RECOVERY = 1 << 8,   /* NewReno (RFC 6582): until snd_una passes `recover` */
  CONN_OUT = 1 << 9,        /* in the list of those that want output */
  CONN_IN_ACCEPT = 1 << 10, /* in its listener's accept queue */
  CONN_HALF_OPEN = 1 << 11, /* in its listener's half-open queue */
  CONN_RTT = 1 << 12,       /* a segment is being timed (rtt_seq, rtt_at) */
  CONN_POP_READY = 1 << 13, /* a pop has completed and not been handed out */
  CONN_PROBE = 1 << 14,     /* rto_at is the persist timer */
  CONN_FLOW = 1 << 15,      /* in the flow table */
};

/* One piece of pushed data, from push until it is acknowledged whole. */
struct tx_node {
  uint32_t next;
  uint32_t seq; /* of its first byte */
  uint32_t len;
  uint32_t frame; /* one reference */
  uint32_t token; /* completed when this piece is acknowledged; TOKEN_NONE */
  uint16_t off;   /* of the first byte in the frame */
  uint16_t reserved[5];
};
static_assert(sizeof(struct tx_node) == 32, "two per cache line");

/* Consecutive out-of-order data: a chain of frames. */
struct ooo_range {
  uint32_t start, end;
  uint32_t head, tail; /* frames */
  uint32_t next;       /* range; ascending */
};

struct tcp_conn {
  /* -- line 0: who, and receiving -- */
  struct flow_key key;
  uint32_t rcv_nxt;
  uint32_t rcv_adv;   /* right edge of the window last advertised */
  uint32_t rcv_acked; /* acknowledgement number last sent */
  uint32_t ts_recent;
  uint32_t rxq_head;
  uint16_t predicted; /* header bytes 12 and 13 of the next segment, but for PSH; 0: none is predicted */
  uint16_t reserved;
  uint8_t state; /* enum tcp_state */
  uint8_t snd_wscale;
  uint8_t rcv_wscale;
  uint8_t quickacks;
  /* -- line 1: sending, and the reader -- */
  uint32_t snd_una, snd_nxt, snd_max;
  uint32_t snd_wnd; /* bytes */
  uint32_t write_seq;
  uint32_t tx_head, tx_next, tx_tail;
  uint32_t rxq_tail;
  uint32_t rxq_bytes;
  uint32_t queue; /* QUEUE_NONE: orphaned, or not accepted yet */
  uint32_t cwnd;
  uint16_t mss;    /* payload per segment, options subtracted */
  uint16_t flags;  /* enum tcp_conn_flags */
  uint32_t ooo;    /* first range */
  uint64_t rto_at; /* 0: off */
  /* -- colder -- */
  uint64_t timer_at;  /* when the wheel will call; UINT64_MAX: not armed */
  uint64_t delack_at; /* 0: off */
  uint64_t close_at;  /* TIME_WAIT or FIN_WAIT_2 ends; 0: off */
  uint64_t rtt_at;
  uint64_t ts_recent_at;
  uint64_t challenge_at;
  uint32_t rtt_seq;
  uint32_t srtt_us, rttvar_us; /* RFC 6298, scaled by 8 and 4 */
  uint32_t rto_us;
  uint32_t ssthresh;
  uint32_t recover;
  uint32_t snd_wl1;
  uint32_t snd_wnd_max;
  uint32_t iss;
  uint32_t ts_offset;
  uint32_t hash;
  uint32_t wire_ports; /* both, as they lie in a header that we send */
  uint32_t wire_sum;   /* of them and the pseudo-header but for the length */
  uint32_t out_next, out_prev;
  uint32_t listener;   /* index, until accepted */
  uint32_t next, prev; /* free list, accept or half-open queue, TIME_WAIT list */
  uint32_t connect_token;
  int32_t error; /* negative errno that the reader is told after the data; 0: none */
  uint32_t nranges;
  uint32_t rcv_limit; /* bytes that may wait for the reader: grows as it reads, to rcvbuf_bytes */
  uint32_t fin_seq;   /* where the peer's FIN is, once fin_seen */
  uint16_t advertised_mss;
  uint8_t retries; /* of the segment at snd_una, or probes unanswered */
  uint8_t dupacks;
  bool fin_seen; /* perhaps ahead of a gap */
  uint8_t vlan_len;
  uint8_t vlan[VLAN_MAX];
  struct path path;
} __attribute__((aligned(64)));
static_assert(offsetof(struct tcp_conn, snd_una) == 64, "receive state is the first cache line");
static_assert(offsetof(struct tcp_conn, timer_at) == 128, "hot state is two cache lines");
static_assert(sizeof(struct tcp_conn) <= 384, "an idle connection's share of the 1 KiB budget");

struct tcp_listener {
  uint32_t queue; /* QUEUE_NONE: free */
  uint32_t next;  /* same port (index + 1), or free list */
  uint32_t backlog;
  uint32_t pending;              /* half-open and unaccepted */
  uint32_t half_head, half_tail; /* oldest first */
  uint32_t accept_head, accept_tail;
  hy_addr local;
};

/* A segment as parsed. */
struct segment {
  uint32_t seq, ack;
  uint32_t wnd; /* as on the wire */
  uint32_t len; /* payload */
  uint8_t *payload;
  const uint8_t *header;
  uint8_t flags;
  bool has_ts, sack_ok, has_wscale;
  uint8_t wscale;
  uint16_t mss; /* 0: none */
  uint32_t tsval, tsecr;
};

static inline struct tcp_conn *conn_at(const struct stack *st, uint32_t index) {
  return &st->conns[index];
}
static inline uint32_t conn_index(const struct stack *st, const struct tcp_conn *c) {
  return (uint32_t)(c - st->conns);
}
/* Opened by a peer and not accepted yet: its data has a reader to come. */
static inline bool conn_unaccepted(const struct tcp_conn *c) {
  return c->flags & (CONN_HALF_OPEN | CONN_IN_ACCEPT);
}
static inline void conn_wants_output(struct stack *st, struct tcp_conn *c) {
  if (c->flags & CONN_OUT)
    return;
  uint32_t index = conn_index(st, c);
  c->flags |= CONN_OUT;
  c->out_next = CONN_NONE;
  c->out_prev = st->out_tail;
  if (st->out_tail == CONN_NONE)
    st->out_head = index;
  else
    conn_at(st, st->out_tail)->out_next = index;
  st->out_tail = index;
}
/* Takes the first one out of the list. */
static inline struct tcp_conn *conn_take_output(struct stack *st, uint32_t index) {
  struct tcp_conn *c = conn_at(st, index);
  assert(st->out_head == index && (c->flags & CONN_OUT));
  c->flags &= (uint16_t)~CONN_OUT;
  st->out_head = c->out_next;
  if (c->out_next == CONN_NONE)
    st->out_tail = CONN_NONE;
  else
    conn_at(st, c->out_next)->out_prev = CONN_NONE;
  return c;
}
static inline void conn_output_done(struct stack *st, struct tcp_conn *c) {
  if (!(c->flags & CONN_OUT))
    return;
  c->flags &= (uint16_t)~CONN_OUT;
  if (c->out_prev == CONN_NONE)
    st->out_head = c->out_next;
  else
    conn_at(st, c->out_prev)->out_next = c->out_next;
  if (c->out_next == CONN_NONE)
    st->out_tail = c->out_prev;
  else
    conn_at(st, c->out_next)->out_prev = c->out_prev;
}
static inline void conn_ack_now(struct stack *st, struct tcp_conn *c) {
  c->flags |= CONN_ACK_NOW;
  conn_wants_output(st, c);
}
static inline bool conn_readable_state(const struct tcp_conn *c) {
  return c->state == TCP_ESTABLISHED || c->state == TCP_FIN_WAIT_1 || c->state == TCP_FIN_WAIT_2;
}
/* 1 kHz, as Linux's, from a secret offset per connection (RFC 7323 section 7.1). */
static inline uint32_t conn_ts_now(const struct stack *st, const struct tcp_conn *c) {
  return (uint32_t)(st->now / NS_PER_MS) + c->ts_offset;
}

/* tcp_option.c */
void segment_parse_options(struct segment *seg);
/* Writes options of an ordinary segment; returns their length. room: bytes that its payload leaves for SACK.
 */
uint32_t options_write(struct stack *st, const struct tcp_conn *c, uint8_t *p, uint32_t room);
uint32_t options_write_syn(struct stack *st, const struct tcp_conn *c, uint8_t *p, bool offer_all);

/* tcp_conn.c */
struct tcp_conn *conn_new(struct stack *st, const struct flow_key *key, bool is4);
/* Forgets everything about it. The queue, if any, must have been told. */
void conn_free(struct stack *st, struct tcp_conn *c);
/* To CLOSED with an error (or 0): completes what waits; frees it if nobody holds a qd. */
void conn_fail(struct stack *st, struct tcp_conn *c, int error);
void conn_time_wait(struct stack *st, struct tcp_conn *c);
void conn_established(struct stack *st, struct tcp_conn *c);
void conn_drop_tx(struct stack *st, struct tcp_conn *c, int status);
void conn_drop_rx(struct stack *st, struct tcp_conn *c);
/* Initial sequence number (RFC 6528) and timestamp offset from the four-tuple and the time. */
void conn_choose_iss(struct stack *st, struct tcp_conn *c);
/* Completes pops and drains that can be. */
void conn_wake_reader_now(struct stack *st, struct tcp_conn *c);
static inline void conn_wake_reader(struct stack *st, struct tcp_conn *c) {
  if (c->rxq_head != FRAME_NONE || (c->flags & CONN_RCV_FIN) || c->error != 0)
    conn_wake_reader_now(st, c);
}
void conn_wake_drains(struct stack *st, struct tcp_conn *c);
/*
 * Bytes that a connection may have queued: sndbuf_bytes, and when frames run short a share of those that are
 * free (Choudhury and Hahne's dynamic thresholds), so that peers who don't read leave room for the others.
 */
uint32_t conn_send_limit(const struct stack *st);
/* mss and window scale from the peer's SYN and our side. */
void conn_agree(struct stack *st, struct tcp_conn *c, const struct segment *seg);
struct token *conn_token(struct stack *st, uint32_t index);
void conn_complete(struct stack *st, struct tcp_conn *c, uint32_t token, int status);

/* tcp_listen.c */
struct tcp_listener *listener_find(struct stack *st, const struct flow_key *key);
void listener_input(struct stack *st, struct tcp_listener *l, struct packet *p, const struct segment *seg);
void listener_promote(struct stack *st, struct tcp_conn *c);
void listener_forget(struct stack *st, struct tcp_conn *c);
int listener_open(struct stack *st, struct queue *q, int backlog);
void listener_close(struct stack *st, uint32_t index);
uint32_t listener_take_accepted(struct stack *st, uint32_t index);
bool port_taken(const struct stack *st, const hy_addr *local);

/* tcp_input.c */
/* To be called when anything changes that header prediction rests on. */
void conn_predict(struct tcp_conn *c);
void tcp_delay_ack(struct stack *st, struct tcp_conn *c);

/* tcp_states.c: takes over the packet's frame */
void tcp_input_states(struct stack *st, struct tcp_conn *c, struct packet *p, struct segment *seg);
void tcp_reply_reset(struct stack *st, const struct packet *p, const struct segment *seg);
void conn_challenge(struct stack *st, struct tcp_conn *c);

/* tcp_reass.c */
/* Makes the payload a frame's valid bytes. */
static inline void frame_trim(struct stack *st, uint32_t frame, const uint8_t *payload, uint32_t len,
                              uint32_t seq) {
  struct frame *f = frame_meta(st->arena, frame);
  f->off = f->head = (uint16_t)(payload - frame_base(st->arena, frame));
  f->len = (uint16_t)len;
  f->seq = seq;
  f->next = FRAME_NONE;
}
/* Data of a reader who has read all that came before, with nothing ahead of it. Takes over the frame. */
static inline void reass_first(struct stack *st, struct tcp_conn *c, uint32_t frame, uint8_t *payload,
                               uint32_t len) {
  frame_trim(st, frame, payload, len, c->rcv_nxt);
  c->rxq_head = c->rxq_tail = frame;
  c->rxq_bytes = len;
  c->rcv_nxt += len;
}
/* Too few free frames to keep even what is in order. */
static inline bool reass_refuses(const struct stack *st) {
  return st->arena->free_count < st->frames_reserve / 2;
}
/* Both take over the packet's frame. Return false if nothing was kept. */
bool reass_in_order(struct stack *st, struct tcp_conn *c, uint32_t frame, uint8_t *payload, uint32_t len);
bool reass_out_of_order(struct stack *st, struct tcp_conn *c, uint32_t frame, uint8_t *payload, uint32_t seq,
                        uint32_t len);
void reass_drop(struct stack *st, struct tcp_conn *c);

/*
 * tcp_ack.c. wnd: as in the header; pure: no data, SYN or FIN, so that it may count as a duplicate.
 * False: the segment acknowledges what was never sent, or what is long past.
 */
bool tcp_ack(struct stack *st, struct tcp_conn *c, uint32_t seq, uint32_t ack, uint32_t wnd, bool pure);

/* tcp_cc.c */
void cc_init(struct tcp_conn *c);
void cc_acked(struct tcp_conn *c, uint32_t bytes);
void cc_enter_recovery(struct tcp_conn *c);
void cc_timeout(struct tcp_conn *c);

/* tcp_output.c */
/* The connection's turn: it has been taken out of the list, and goes to its end if there was no room or
 * frame. */
void tcp_output(struct stack *st, struct tcp_conn *c);
/* The persist timer has fired: asks for the window, or uses what there is of it. */
void tcp_probe(struct stack *st, struct tcp_conn *c);
/* Sends the segment at snd_una again; false where there was no frame or room. */
bool tcp_resend(struct stack *st, struct tcp_conn *c);
bool tcp_send_control(struct stack *st, struct tcp_conn *c, uint8_t flags, uint32_t seq);
bool tcp_send_syn(struct stack *st, struct tcp_conn *c);
bool conn_path(struct stack *st, struct tcp_conn *c);
/* How far the window may open now; never less than has been advertised. */
uint32_t conn_window_edge(const struct stack *st, const struct tcp_conn *c);
/* The application has read: tells the peer where the window has at least doubled. */
void conn_window_widen(struct stack *st, struct tcp_conn *c);
static inline void conn_window_update(struct stack *st, struct tcp_conn *c) {
  if (c->rcv_adv - c->rcv_nxt <= c->rcv_limit / 2) /* it can double still */
    conn_window_widen(st, c);
}

/* tcp_timer.c */
/* The wheel has to call at `at` or earlier; nearly always it will anyway. */
void conn_arm_wheel(struct stack *st, struct tcp_conn *c, uint64_t at);
static inline void conn_arm_at(struct stack *st, struct tcp_conn *c, uint64_t at) {
  if (__builtin_expect(at < c->timer_at, 0))
    conn_arm_wheel(st, c, at);
}
/* For the earliest of all its deadlines. */
void conn_arm(struct stack *st, struct tcp_conn *c);
void conn_disarm(struct stack *st, struct tcp_conn *c);
static inline void conn_set_rto(struct stack *st, struct tcp_conn *c) {
  c->flags &= (uint16_t)~CONN_PROBE;
  c->rto_at = st->now + (uint64_t)c->rto_us * NS_PER_US;
  conn_arm_at(st, c, c->rto_at);
}
void tcp_timer(struct stack *st, struct tcp_conn *c);

#endif
