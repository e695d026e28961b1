/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: found their connection, and the common case done at once. Header
 * prediction (after Van Jacobson) asks by a few compares whether a segment is what
 * a connection in its steady state expects next: no flags but ACK and PSH, the
 * timestamp option in its usual place and no other, the sequence number next in
 * line. What makes a connection steady is folded into one value (`predicted`)
 * whenever it changes, so that a segment costs one compare for all of it.
 */
#include <errno.h>

#include "tcp/chain.h"
#include "tcp/csum.h"
#include "tcp/tcp.h"

void tcp_delay_ack(struct stack *st, struct tcp_conn *c) {
  if (c->flags & CONN_ACK_LATER)
    return;
  c->flags |= CONN_ACK_LATER;
  c->delack_at = st->now + TCP_DELACK_NS;
  conn_arm_at(st, c, c->delack_at);
}

void conn_predict(struct tcp_conn *c) {
  bool steady = c->state == TCP_ESTABLISHED && c->ooo == RANGE_NONE && !c->fin_seen &&
                (c->queue != QUEUE_NONE || conn_unaccepted(c));
  uint32_t words = (c->flags & CONN_TS ? TCP_LEN + TCP_TS_LEN : TCP_LEN) / 4u;
  c->predicted = steady ? (uint16_t)(words << 12 | TCP_ACK) : 0;
}

/* The next segment in line, of a connection in its steady state. Takes over the frame. */
static void fast_path(struct stack *st, struct tcp_conn *c, uint32_t frame, const uint8_t *h, uint32_t seq,
                      uint32_t ack, uint8_t *payload, uint32_t len) {
  uint32_t wnd = load16(h + 14);
  st->stats->tcp_in_fast++;
  if (ack != c->snd_una || len == 0 || wnd << c->snd_wscale != c->snd_wnd)
    tcp_ack(st, c, seq, ack, wnd, len == 0);
  if (len == 0) {
    frame_unref(st->arena, frame);
    return;
  }
  if (__builtin_expect(c->rxq_head == FRAME_NONE && !reass_refuses(st), 1))
    reass_first(st, c, frame, payload, len);
  else
    reass_in_order(st, c, frame, payload, len);
  conn_wake_reader(st, c);
  if (c->quickacks > 0) {
    c->quickacks--;
    conn_ack_now(st, c);
  } else if (c->rcv_nxt - c->rcv_acked >= 2u * c->mss) { /* RFC 5681 section 4.2 */
    conn_ack_now(st, c);
  } else {
    tcp_delay_ack(st, c);
  }
}

/* Timestamps in the usual layout (the length is part of the prediction), and not old; takes note of them. */
static bool usual_timestamps(struct stack *st, struct tcp_conn *c, const uint8_t *h, uint32_t seq) {
  uint32_t tsval = load32(h + TCP_LEN + 4);
  if (load32(h + TCP_LEN) != TCP_TS_WORD || (int32_t)(tsval - c->ts_recent) < 0)
    return false;
  if (seq_leq(seq, c->rcv_acked)) {
    c->ts_recent = tsval;
    c->ts_recent_at = st->now;
  }
  return true;
}

static inline bool checksum_good(const struct packet *p) {
  uint64_t pseudo = csum_carry(p->addresses, csum_protocol(PROTO_TCP, p->l4_len));
  return csum_fold(csum_add(pseudo, p->l4, p->l4_len)) == 0;
}

static inline struct tcp_conn *conn_find(const struct stack *st, const struct packet *p) {
  const struct flow_table *t = &st->flows;
  for (uint32_t i = p->hash & t->mask; t->entries[i].conn != FLOW_NONE; i = (i + 1) & t->mask) {
    struct tcp_conn *c = conn_at(st, t->entries[i].conn);
    if (t->entries[i].hash == p->hash && flow_key_equal(&c->key, &p->key))
      return c;
  }
  return NULL;
}

/* What header prediction leaves. Takes over the frame. */
static __attribute__((noinline)) void input_unpredicted(struct stack *st, struct tcp_conn *c,
                                                        struct packet *p) {
  uint8_t *h = p->l4;
  uint32_t header_len = (uint32_t)(h[12] >> 4) * 4;
  struct segment seg = {
      .seq = load32(h + 4),
      .ack = load32(h + 8),
      .wnd = load16(h + 14),
      .len = p->l4_len - header_len,
      .payload = h + header_len,
      .header = h,
      .flags = h[13],
  };
  if (c) {
    tcp_input_states(st, c, p, &seg); /* takes over the frame */
    return;
  }
  if (!host_is_local(&st->host, p->key.local)) {
    st->stats->drop_not_local++;
    goto drop;
  }
  segment_parse_options(&seg);
  struct tcp_listener *l = listener_find(st, &p->key);
  if (l) {
    listener_input(st, l, p, &seg);
  } else {
    st->stats->drop_no_socket++;
    tcp_reply_reset(st, p, &seg);
  }
drop:
  packet_drop(st->arena, p->frame);
}

/* A segment in several frames. What lies behind its end is cut off, so that all that is left is payload. */
static __attribute__((noinline)) void input_chain(struct stack *st, struct packet *p) {
  struct frame *f = frame_meta(st->arena, p->frame);
  uint32_t header_len = (uint32_t)(p->l4[12] >> 4) * 4;
  packet_cut(st->arena, p->frame, (uint32_t)(p->l4_off - f->off) + p->l4_len);
  if (p->l4_off + header_len > (uint32_t)f->off + f->len) {
    st->stats->drop_tcp_header++;
    packet_drop(st->arena, p->frame);
    return;
  }
  uint64_t pseudo = csum_carry(p->addresses, csum_protocol(PROTO_TCP, p->l4_len));
  if (!(f->flags & FRAME_CSUM_GOOD) && csum_fold(csum_carry(pseudo, chain_sum(st, p, p->l4_len))) != 0) {
    st->stats->drop_checksum++;
    packet_drop(st->arena, p->frame);
    return;
  }
  input_unpredicted(st, conn_find(st, p), p);
}

void tcp_input(struct stack *st, struct packet *p) {
  uint8_t *h = p->l4;
  uint32_t word = load16(h + 12); /* data offset, reserved bits, flags */
  uint32_t header_len = (word >> 12) * 4;
  st->stats->tcp_in++;
  if (header_len < TCP_LEN || header_len > p->l4_len) {
    st->stats->drop_tcp_header++;
    goto drop;
  }
  uint8_t flags = frame_meta(st->arena, p->frame)->flags;
  if (__builtin_expect(flags & (FRAME_CSUM_GOOD | FRAME_MORE), 0)) { /* one test for both */
    if (flags & FRAME_MORE) {
      input_chain(st, p);
      return;
    }
  } else if (!checksum_good(p)) {
    st->stats->drop_checksum++;
    goto drop;
  }
  uint32_t seq = load32(h + 4), ack = load32(h + 8), len = p->l4_len - header_len;
  struct tcp_conn *c = conn_find(st, p);
  if (__builtin_expect(c && (word & ~(uint32_t)TCP_PSH) == c->predicted && seq == c->rcv_nxt &&
                           len <= c->rcv_adv - c->rcv_nxt && ack - c->snd_una <= c->snd_max - c->snd_una &&
                           (!(c->flags & CONN_TS) || usual_timestamps(st, c, h, seq)),
                       1))
    fast_path(st, c, p->frame, h, seq, ack, h + header_len, len);
  else
    input_unpredicted(st, c, p);
  return;
drop:
  packet_drop(st->arena, p->frame);
}
