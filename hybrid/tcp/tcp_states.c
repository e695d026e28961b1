/* SPDX-License-Identifier: Apache-2.0 */
/* Every segment that header prediction doesn't take: RFC 9293 section 3.10.7, with RFC 5961 and RFC 7323. */
#include <errno.h>

#include "tcp/csum.h"
#include "tcp/tcp.h"

/*
 * RST to a segment that belongs to no connection (RFC 9293 section 3.10.7.1). Never to a RST. It
 * goes back the way the segment came: there is no state that could tell another.
 */
void tcp_reply_reset(struct stack *st, const struct packet *p, const struct segment *seg) {
  struct link *l = &st->links[p->link];
  if ((seg->flags & TCP_RST) || ip_is_multicast(p->key.remote) || link_tx_room(l) == 0)
    return;
  uint32_t frame = frame_alloc(st->arena);
  if (frame == FRAME_NONE)
    return;
  uint8_t *h = frame_data(st->arena, frame) - TCP_LEN;
  memset(h, 0, TCP_LEN);
  store16(h, p->key.local_port);
  store16(h + 2, p->key.remote_port);
  h[12] = TCP_LEN / 4 << 4;
  h[13] = TCP_RST;
  if (seg->flags & TCP_ACK) {
    store32(h + 4, seg->ack);
  } else {
    uint32_t len = seg->len + ((seg->flags & TCP_SYN) ? 1 : 0) + ((seg->flags & TCP_FIN) ? 1 : 0);
    store32(h + 8, seg->seq + len);
    h[13] |= TCP_ACK;
  }
  uint16_t sum = csum_fold(csum_add(pseudo_sum(p->key.local, p->key.remote, PROTO_TCP, TCP_LEN), h, TCP_LEN));
  memcpy(h + 16, &sum, 2);
  const struct frame *in = frame_meta(st->arena, p->frame);
  const uint8_t *eth = frame_base(st->arena, p->frame) + in->off;
  struct path back = {.link = p->link, .resolved = true};
  memcpy(back.mac, eth + 6, 6);
  st->stats->tcp_out++;
  st->stats->tcp_resets_out++;
  struct ip_ends ends = {.src = p->key.local,
                         .dst = p->key.remote,
                         .vlan = eth + 12,
                         .vlan_len = (uint8_t)(p->l3_off - in->off - ETH_LEN),
                         .proto = PROTO_TCP,
                         .is4 = ip_is_4(p->key.local)};
  path_send(st, &back, &ends, frame, h, TCP_LEN, 0);
}

void conn_challenge(struct stack *st, struct tcp_conn *c) {
  if (c->challenge_at != 0 && st->now - c->challenge_at < TCP_CHALLENGE_NS)
    return;
  c->challenge_at = st->now;
  st->stats->tcp_challenge_acks++;
  conn_ack_now(st, c);
}

static void reset_received(struct stack *st, struct tcp_conn *c) {
  st->stats->tcp_resets_in++;
  if (c->flags & CONN_HALF_OPEN)
    conn_free(st, c); /* the listener goes on listening */
  else
    conn_fail(st, c, c->state == TCP_SYN_SENT || c->state == TCP_SYN_RCVD ? -ECONNREFUSED : -ECONNRESET);
}

static bool ack_segment(struct stack *st, struct tcp_conn *c, const struct segment *seg) {
  bool pure = seg->len == 0 && !(seg->flags & (TCP_SYN | TCP_FIN));
  return tcp_ack(st, c, seg->seq, seg->ack, seg->wnd, pure);
}

static void syn_sent_input(struct stack *st, struct tcp_conn *c, struct packet *p, struct segment *seg) {
  bool acks = seg->flags & TCP_ACK;
  if (acks && (seq_leq(seg->ack, c->iss) || seq_gt(seg->ack, c->snd_max))) {
    tcp_reply_reset(st, p, seg);
    return;
  }
  if (seg->flags & TCP_RST) {
    if (acks)
      reset_received(st, c);
    else
      st->stats->drop_state++;
    return;
  }
  if (!(seg->flags & TCP_SYN)) {
    st->stats->drop_state++;
    return;
  }
  c->rcv_nxt = c->rcv_acked = seg->seq + 1;
  c->rcv_adv = c->rcv_nxt + (st->rcvbuf_bytes < 65535 ? st->rcvbuf_bytes : 65535);
  conn_agree(st, c, seg);
  uint8_t wscale = c->snd_wscale;
  c->snd_wl1 = seg->seq - 1; /* so that this window is taken, and unscaled (RFC 7323 section 2.2) */
  c->snd_wscale = 0;
  if (acks) {
    ack_segment(st, c, seg);
    c->snd_wscale = wscale;
    conn_established(st, c);
    conn_predict(c);
    conn_ack_now(st, c);
  } else { /* simultaneous open: our SYN goes again, now with an ACK */
    c->snd_wscale = wscale;
    c->snd_wnd = c->snd_wnd_max = seg->wnd;
    c->snd_wl1 = seg->seq;
    c->state = TCP_SYN_RCVD;
    c->snd_nxt = c->iss;
    conn_wants_output(st, c);
  }
}

/* RFC 9293 section 3.10.7.4, first step, as Linux reads it: partly inside is enough. */
static bool acceptable(const struct tcp_conn *c, const struct segment *seg) {
  uint32_t end = seg->seq + seg->len + ((seg->flags & TCP_SYN) ? 1 : 0) + ((seg->flags & TCP_FIN) ? 1 : 0);
  return seq_geq(end, c->rcv_nxt) && seq_leq(seg->seq, c->rcv_adv);
}

/* False: dropped. */
static bool check_paws(struct stack *st, struct tcp_conn *c, const struct segment *seg) {
  if (!(c->flags & CONN_TS) || !seg->has_ts || (seg->flags & TCP_RST))
    return true;
  if ((int32_t)(seg->tsval - c->ts_recent) >= 0 || st->now - c->ts_recent_at > TCP_PAWS_IDLE_NS)
    return true;
  st->stats->drop_paws++;
  conn_challenge(st, c);
  return false;
}

/* TIME_WAIT gives way to a SYN that can't be an old one (RFC 6191, RFC 9293 section 3.6.1). True: taken. */
static bool reopen(struct stack *st, struct tcp_conn *c, struct packet *p, struct segment *seg) {
  if (c->state != TCP_TIME_WAIT || (seg->flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
    return false;
  bool newer = seq_gt(seg->seq, c->rcv_nxt) ||
               ((c->flags & CONN_TS) && seg->has_ts && (int32_t)(seg->tsval - c->ts_recent) > 0);
  struct tcp_listener *l = listener_find(st, &c->key);
  if (!newer || !l || c->queue != QUEUE_NONE)
    return false;
  conn_free(st, c);
  listener_input(st, l, p, seg);
  return true;
}

/* The peer's FIN has become in order. */
static void fin_received(struct stack *st, struct tcp_conn *c) {
  c->rcv_nxt++;
  if (seq_lt(c->rcv_adv, c->rcv_nxt))
    c->rcv_adv = c->rcv_nxt;
  c->flags |= CONN_RCV_FIN;
  conn_ack_now(st, c);
  switch (c->state) {
  case TCP_ESTABLISHED:
    c->state = TCP_CLOSE_WAIT;
    break;
  case TCP_FIN_WAIT_1:
    c->state = TCP_CLOSING;
    break;
  case TCP_FIN_WAIT_2:
    conn_time_wait(st, c);
    break;
  default:
    assert(!"a FIN is taken in three states only");
  }
  conn_wake_reader(st, c);
}

/*
 * Hands on the bytes [seq, seq + len) of a segment's payload, a frame at a time. Takes over the packet.
 * False: nothing of it was kept in order.
 */
static bool keep_payload(struct stack *st, struct tcp_conn *c, uint32_t frame, const struct segment *seg,
                         uint32_t seq, uint32_t len) {
  uint32_t at = seg->seq; /* of the payload in this frame */
  uint8_t *payload = seg->payload;
  bool kept = false;
  for (bool more = true; more;) {
    struct frame *f = frame_meta(st->arena, frame);
    uint32_t next = f->more, here = (uint32_t)(frame_data(st->arena, frame) + f->len - payload);
    more = f->flags & FRAME_MORE;
    f->flags &= (uint8_t)~FRAME_MORE;
    uint32_t from = seq_lt(at, seq) ? seq : at;
    uint32_t to = seq_gt(at + here, seq + len) ? seq + len : at + here;
    if (!seq_lt(from, to))
      frame_unref(st->arena, frame);
    else if (from == c->rcv_nxt)
      kept |= reass_in_order(st, c, frame, payload + (from - at), to - from);
    else
      reass_out_of_order(st, c, frame, payload + (from - at), from, to - from);
    at += here;
    frame = next;
    if (more)
      payload = frame_data(st->arena, frame);
  }
  return kept;
}

/* Payload and FIN of an acceptable segment. Takes over the packet. */
static void text_received(struct stack *st, struct tcp_conn *c, struct packet *p, struct segment *seg) {
  uint32_t seq = seg->seq, len = seg->len;
  if (seg->flags & TCP_FIN) {
    uint32_t at = seq + len;
    if (seq_leq(at, c->rcv_adv)) {
      c->fin_seen = true;
      c->fin_seq = at;
    }
  }
  bool had_gap = c->ooo != RANGE_NONE;
  if (seq_lt(seq, c->rcv_nxt)) { /* the front is known */
    uint32_t known = c->rcv_nxt - seq;
    if (known >= len) {
      if (len > 0) {
        st->stats->drop_duplicate++;
        c->quickacks = TCP_QUICKACKS;
        conn_ack_now(st, c);
      }
      len = 0;
    } else {
      len -= known;
    }
    seq = c->rcv_nxt;
  }
  if (len > 0 && seq_gt(seq + len, c->rcv_adv)) { /* the back is beyond the window */
    len = seq_lt(seq, c->rcv_adv) ? c->rcv_adv - seq : 0;
    st->stats->drop_window += len == 0;
    conn_ack_now(st, c);
  }
  if (len == 0) {
    packet_drop(st->arena, p->frame);
  } else if (seq == c->rcv_nxt) {
    if (keep_payload(st, c, p->frame, seg, seq, len))
      conn_wake_reader(st, c);
    /* RFC 5681 section 4.2: filling a gap is acknowledged at once. */
    if (had_gap || c->quickacks > 0 || c->rcv_nxt - c->rcv_acked >= 2u * c->mss) {
      if (c->quickacks > 0)
        c->quickacks--;
      conn_ack_now(st, c);
    } else {
      tcp_delay_ack(st, c);
    }
  } else {
    keep_payload(st, c, p->frame, seg, seq, len);
    c->quickacks = TCP_QUICKACKS;
    conn_ack_now(st, c);
  }
  if (c->fin_seen && c->fin_seq == c->rcv_nxt)
    fin_received(st, c);
}

void tcp_input_states(struct stack *st, struct tcp_conn *c, struct packet *p, struct segment *seg) {
  bool keep_frame = false;
  segment_parse_options(seg);
  if (c->state == TCP_SYN_SENT) {
    syn_sent_input(st, c, p, seg);
    goto out;
  }
  if (reopen(st, c, p, seg))
    goto out;
  if (!check_paws(st, c, seg))
    goto out;
  if (!acceptable(c, seg)) {
    st->stats->drop_window++;
    if (seg->flags & TCP_RST)
      goto out;
    if (seg->len > 0 || (seg->flags & (TCP_SYN | TCP_FIN))) {
      c->quickacks = TCP_QUICKACKS;
      if (c->state == TCP_SYN_RCVD && (seg->flags & TCP_SYN))
        c->snd_nxt = c->iss; /* our SYN-ACK was lost */
      conn_ack_now(st, c);
    } else {
      conn_challenge(st, c);
    }
    goto out;
  }
  if (c->state == TCP_SYN_RCVD && (seg->flags & TCP_SYN) && !(seg->flags & TCP_RST) &&
      seg->seq + 1 == c->rcv_nxt) { /* the SYN again, or the other half of a simultaneous open */
    if (!(seg->flags & TCP_ACK)) {
      c->snd_nxt = c->iss;
      conn_wants_output(st, c);
      goto out;
    }
    seg->len = 0; /* data beside a SYN is left for its retransmission */
  } else if (seg->flags & TCP_RST) {
    if (c->state == TCP_TIME_WAIT) { /* RFC 1337: a RST must not cut TIME_WAIT short */
      st->stats->drop_state++;
    } else if (seg->seq == c->rcv_nxt) {
      reset_received(st, c);
    } else { /* RFC 5961 section 3.2: in the window is not enough */
      conn_challenge(st, c);
    }
    goto out;
  } else if (seg->flags & TCP_SYN) { /* RFC 5961 section 4.2 */
    conn_challenge(st, c);
    goto out;
  }
  if (!(seg->flags & TCP_ACK)) {
    st->stats->drop_state++;
    goto out;
  }
  if (c->state == TCP_SYN_RCVD) {
    if (seq_leq(seg->ack, c->snd_una) || seq_gt(seg->ack, c->snd_max)) {
      tcp_reply_reset(st, p, seg);
      goto out;
    }
    ack_segment(st, c, seg);
    conn_established(st, c);
  } else if (!ack_segment(st, c, seg)) {
    st->stats->drop_state++;
    conn_challenge(st, c);
    goto out;
  }
  if (c->flags & CONN_TS && seg->has_ts && seq_leq(seg->seq, c->rcv_acked)) {
    c->ts_recent = seg->tsval;
    c->ts_recent_at = st->now;
  }
  bool fin_acked = (c->flags & CONN_SHUT) && c->snd_una == c->write_seq + 1;
  switch (c->state) {
  case TCP_FIN_WAIT_1:
    if (fin_acked) {
      c->state = TCP_FIN_WAIT_2;
      if (c->queue == QUEUE_NONE)
        c->close_at = st->now + TCP_FIN_WAIT2_NS;
    }
    break;
  case TCP_CLOSING:
    if (fin_acked)
      conn_time_wait(st, c);
    goto arm;
  case TCP_LAST_ACK:
    if (fin_acked) {
      conn_fail(st, c, 0);
      goto out;
    }
    goto arm;
  case TCP_TIME_WAIT:
    if (seg->flags & TCP_FIN) { /* our last ACK was lost */
      c->close_at = st->now + TCP_TIME_WAIT_NS;
      conn_ack_now(st, c);
    }
    goto arm;
  default:
    break;
  }
  if (conn_readable_state(c) && (seg->len > 0 || (seg->flags & TCP_FIN))) {
    if (c->queue == QUEUE_NONE && !conn_unaccepted(c) && seg->len > 0 &&
        seq_gt(seg->seq + seg->len, c->rcv_nxt)) {
      /* Nobody will ever read it: the peer has to know (RFC 2525 section 2.17). */
      st->stats->tcp_resets_out++;
      tcp_send_control(st, c, TCP_RST | TCP_ACK, c->snd_max);
      conn_fail(st, c, -ECONNRESET);
      goto out;
    }
    keep_frame = true;
    text_received(st, c, p, seg);
  }
arm:
  conn_predict(c);
  conn_arm(st, c);
out:
  if (!keep_frame)
    packet_drop(st->arena, p->frame);
}
