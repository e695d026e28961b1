/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to send, and building it.
 *
 * A pushed piece whose headroom is free leaves as it lies: headers are written in
 * front of it in its own frame (zero copy). Everything else (small pieces that
 * share a segment, parts of a piece, a frame that a device is still reading) is
 * copied into a fresh frame and counted. A segment that no frame holds is a chain of
 * them (chain.h).
 */
#include <errno.h>

#include "tcp/chain.h"
#include "tcp/csum.h"
#include "tcp/emit.h"
#include "tcp/tcp.h"

static uint32_t min32(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

bool conn_path(struct stack *st, struct tcp_conn *c) {
  if (__builtin_expect(path_is_current(st, &c->path), 1))
    return true;
  return path_lookup(st, c->key.remote, c->path.link, &c->path, NULL) == 0;
}

uint32_t conn_window_edge(const struct stack *st, const struct tcp_conn *c) {
  uint32_t space = c->rcv_limit > c->rxq_bytes ? c->rcv_limit - c->rxq_bytes : 0;
  space = min32(space, 65535u << c->rcv_wscale); /* more can't be said */
  /* Receiver's silly window avoidance (RFC 9293 section 3.8.6.2.2): no news of less than a segment. */
  uint32_t news = min32(c->mss, st->rcvbuf_bytes / 2);
  if ((int32_t)(space - (c->rcv_adv - c->rcv_nxt)) < (int32_t)news)
    return c->rcv_adv;
  /* When frames run short all connections get less: each free frame may hold one small segment. */
  uint32_t keep = st->frames_reserve / 2; /* the application stops at twice that: it can't close the window */
  uint32_t spare = st->arena->free_count > keep ? st->arena->free_count - keep : 0;
  if (spare < space / 512)
    space = spare * 512;
  uint32_t edge = c->rcv_nxt + space;
  return seq_lt(edge, c->rcv_adv + news) ? c->rcv_adv : edge; /* what was promised is never taken back */
}

void conn_window_widen(struct stack *st, struct tcp_conn *c) {
  uint32_t known = c->rcv_adv - c->rcv_nxt;
  if (!conn_readable_state(c))
    return;
  uint32_t now = conn_window_edge(st, c) - c->rcv_nxt;
  if (now > known && now >= 2 * known) /* Linux: __tcp_cleanup_rbuf */
    conn_ack_now(st, c);
}

/* Options of a segment without SYN where there is no gap to tell of, ending at p; adds them to the sum. */
static inline uint32_t put_usual_options(const struct stack *st, const struct tcp_conn *c, uint8_t *p,
                                         uint64_t *sum) {
  if (!(c->flags & CONN_TS))
    return 0;
  uint32_t now = conn_ts_now(st, c);
  store32(p - 12, TCP_TS_WORD);
  store32(p - 8, now);
  store32(p - 4, c->ts_recent);
  *sum += csum_word(TCP_TS_WORD) + csum_word(now) + csum_word(c->ts_recent);
  return TCP_TS_LEN;
}

static __attribute__((noinline, cold)) uint32_t put_unusual_options(struct stack *st,
                                                                    const struct tcp_conn *c, uint8_t flags,
                                                                    uint8_t *p, uint32_t payload,
                                                                    uint64_t *sum) {
  uint8_t options[40];
  uint32_t room = payload < c->mss ? c->mss - payload : 0;
  uint32_t len = flags & TCP_SYN ? options_write_syn(st, c, options, !(flags & TCP_ACK))
                                 : options_write(st, c, options, room);
  memcpy(p - len, options, len);
  *sum = csum_add(*sum, options, len);
  return len;
}

/* What the window field will say; notes how far the window has been opened with it. */
static inline uint32_t advertise(const struct stack *st, struct tcp_conn *c, uint8_t flags) {
  if (__builtin_expect(flags & TCP_SYN, 0)) {
    uint32_t window = min32(st->rcvbuf_bytes, 65535);
    c->rcv_adv = c->rcv_nxt + window;
    return window;
  }
  uint32_t space = conn_window_edge(st, c) - c->rcv_nxt;
  uint32_t window = min32((space + (1u << c->rcv_wscale) - 1) >> c->rcv_wscale, 65535);
  uint32_t edge = c->rcv_nxt + (window << c->rcv_wscale);
  if (seq_gt(edge, c->rcv_adv))
    c->rcv_adv = edge;
  return window;
}

/*
 * The header, its options and checksum in front of the payload, of which len bytes lie in the frame and
 * `rest`, which sum to rest_sum, in the frames behind it; then on to IP. Takes the packet. The header is
 * summed as its words are written, the connection's constant part of it (wire_sum) once for all: to read back
 * what has just been written in smaller pieces would stall.
 */
static inline __attribute__((always_inline)) void
finish_segment(struct stack *st, struct tcp_conn *c, uint32_t frame, uint8_t *payload, uint32_t len,
               uint32_t seq, uint8_t flags, uint32_t rest, uint64_t rest_sum, bool leave) {
  uint64_t sum = c->wire_sum;
  bool usual = !(flags & TCP_SYN) && c->ooo == RANGE_NONE;
  uint32_t optlen = __builtin_expect(usual, 1) ? put_usual_options(st, c, payload, &sum)
                                               : put_unusual_options(st, c, flags, payload, len + rest, &sum);
  uint32_t header_len = TCP_LEN + optlen, window = advertise(st, c, flags);
  uint32_t ack = flags & TCP_ACK ? c->rcv_nxt : 0;
  uint32_t word = header_len << 26 | (uint32_t)flags << 16 | window; /* header_len / 4 in the top four bits */
  uint8_t *p = payload - header_len;
  memcpy(p, &c->wire_ports, 4);
  store32(p + 4, seq);
  store32(p + 8, ack);
  store32(p + 12, word);
  sum =
      csum_carry(sum, csum_word(seq) + csum_word(ack) + csum_word(word) + csum_word(header_len + len + rest));
  uint16_t check;
  if (leave) /* to the device */
    check = packet_leave_checksum(
        st, frame, p, pseudo_sum(c->key.local, c->key.remote, PROTO_TCP, header_len + len + rest), 16);
  else
    check = csum_fold(csum_carry(csum_add(sum, payload, len), rest_sum));
  memcpy(p + 16, &check, 2);
  store16(p + 18, 0);
  if (flags & TCP_ACK) {
    /* A full segment has no room for SACK, which a peer whose data was lost waits for: an ACK follows. */
    bool sack_untold = !usual && len + rest > 0 && (c->flags & CONN_SACK) &&
                       optlen == (c->flags & CONN_TS ? (uint32_t)TCP_TS_LEN : 0);
    c->flags &= (uint16_t) ~(sack_untold ? CONN_ACK_LATER : CONN_ACK_NOW | CONN_ACK_LATER);
    c->delack_at = 0;
    c->rcv_acked = c->rcv_nxt;
  }
  st->stats->tcp_out++;
  struct ip_ends ends = {.src = c->key.local,
                         .dst = c->key.remote,
                         .vlan = c->vlan,
                         .vlan_len = c->vlan_len,
                         .proto = PROTO_TCP,
                         .is4 = c->flags & CONN_IP4};
  path_emit(st, &c->path, &ends, frame, p, header_len + len, rest);
}

static inline bool ready_to_send(struct stack *st, struct tcp_conn *c) {
  return conn_path(st, c) && link_tx_room(&st->links[c->path.link]) > 0;
}

bool tcp_send_control(struct stack *st, struct tcp_conn *c, uint8_t flags, uint32_t seq) {
  if (!ready_to_send(st, c))
    return false;
  uint32_t frame = frame_alloc(st->arena);
  if (frame == FRAME_NONE) {
    st->stats->tcp_blocked_no_frames++;
    return false;
  }
  finish_segment(st, c, frame, frame_data(st->arena, frame), 0, seq, flags, 0, 0, false);
  return true;
}

/* Whether the piece can leave in its own frame: nobody else reads it, and the bytes before it are nobody's.
 */
static bool headers_fit(const struct stack *st, const struct tcp_conn *c, const struct tx_node *node) {
  const struct frame *f = frame_meta(st->arena, node->frame);
  uint32_t ip = c->flags & CONN_IP4 ? IP4_LEN : IP6_LEN;
  uint32_t headers = FRAME_TX_ROOM + ETH_LEN + c->vlan_len + ip + TCP_LEN + 40;
  return f->head == node->off && node->off >= headers && !(f->flags & FRAME_IN_DEVICE);
}

/* As a segment that takes nothing but its headers. */
static bool leaves_in_place(const struct stack *st, const struct tcp_conn *c, const struct tx_node *node) {
  return node->len <= st->plain_max && headers_fit(st, c, node);
}

/* Large enough to be a segment of its own, and free to be one. */
static bool worth_in_place(const struct stack *st, const struct tcp_conn *c, const struct tx_node *node) {
  return 2 * node->len >= c->mss && node->len <= c->mss && headers_fit(st, c, node);
}

/*
 * A fresh frame with up to *len bytes from seq on, which lies in `node`. It ends early where a piece
 * begins that can leave in place: a copy that took some of it would have every later one copied too.
 */
static __attribute__((noinline)) uint32_t gather(struct stack *st, const struct tcp_conn *c,
                                                 const struct tx_node *node, uint32_t seq, uint32_t *len) {
  uint32_t frame = frame_alloc(st->arena);
  if (frame == FRAME_NONE) {
    st->stats->tcp_blocked_no_frames++;
    return FRAME_NONE;
  }
  uint8_t *to = frame_data(st->arena, frame);
  uint32_t copied = 0;
  for (;;) {
    uint32_t from = seq + copied - node->seq;
    uint32_t some = min32(node->len - from, *len - copied);
    memcpy(to + copied, frame_base(st->arena, node->frame) + node->off + from, some);
    copied += some;
    if (copied == *len)
      break;
    node = &st->tx_nodes[node->next];
    if (worth_in_place(st, c, node))
      break;
  }
  st->stats->tcp_out_copied_bytes += copied;
  *len = copied;
  return frame;
}

/* What every segment with payload says and notes, whatever frames it is in; returns its flags. */
static inline uint8_t note_data(struct stack *st, struct tcp_conn *c, uint32_t seq, uint32_t end,
                                uint8_t flags) {
  if (end == c->write_seq) {
    flags |= TCP_PSH;
    if (c->flags & CONN_SHUT)
      flags |= TCP_FIN;
  }
  if (seq_lt(seq, c->snd_max)) {
    st->stats->tcp_retransmits++;
    c->flags &= (uint16_t)~CONN_RTT; /* Karn: no telling which of the two is acknowledged */
  } else if (!(c->flags & CONN_RTT)) {
    c->flags |= CONN_RTT;
    c->rtt_seq = end;
    c->rtt_at = st->now;
  }
  return flags;
}

/* What the path takes in one segment: a route that has changed may take less than was agreed on. */
static uint32_t path_mss(const struct tcp_conn *c) {
  uint32_t headers = (c->flags & CONN_IP4 ? IP4_LEN : IP6_LEN) + TCP_LEN;
  return c->path.mtu_bytes - headers - (c->flags & CONN_TS ? TCP_TS_LEN : 0);
}

/* Adds pieces from `node` on, until the payload that starts at seq has len bytes or there is no room. */
static void chain_pieces(struct stack *st, struct chain *chain, const struct tx_node *node, uint32_t seq,
                         uint32_t len) {
  while (chain->bytes < len) {
    uint32_t from = seq + chain->bytes - node->seq, some = min32(node->len - from, len - chain->bytes);
    /* Half a piece would have its other half copied, as its frame is then being read. */
    if (some < node->len - from && chain->bytes >= len / 4 * 3)
      return;
    if (chain_add(st, chain, node->frame, node->off + from, some, true) < some || node->next == NODE_NONE)
      return;
    node = &st->tx_nodes[node->next];
  }
}

/*
 * A segment beyond what send_data() does in a straight line: of more bytes than a frame holds, or with a
 * checksum that the device completes. Where the first piece is whole and may leave in place, headers are
 * written in front of it.
 */
static __attribute__((noinline)) uint32_t send_large(struct stack *st, struct tcp_conn *c,
                                                     const struct tx_node *node, uint32_t seq, uint32_t len,
                                                     uint8_t flags) {
  struct arena *arena = st->arena;
  const struct link *link = &st->links[c->path.link];
  len = min32(len, path_mss(c));
  uint32_t head;
  bool whole = seq == node->seq && node->len <= len && headers_fit(st, c, node);
  if (whole && (node->next == NODE_NONE || 2 * node->len >= c->mss || len > st->frame_room)) {
    head = node->frame;
    frame_ref(arena, head);
    frame_meta(arena, head)->off = node->off;
    frame_meta(arena, head)->len = (uint16_t)node->len;
    st->stats->tcp_out_in_place++;
  } else {
    uint32_t copied = len <= st->frame_room ? len : 0;
    head = copied > 0 ? gather(st, c, node, seq, &copied) : frame_alloc(arena);
    if (head == FRAME_NONE) {
      st->stats->tcp_blocked_no_frames += copied == 0;
      return 0;
    }
    frame_meta(arena, head)->len = (uint16_t)copied;
    whole = false;
  }
  uint8_t *payload = frame_data(arena, head);
  uint32_t here = frame_meta(arena, head)->len;
  frame_meta(arena, head)->flags |= FRAME_IN_DEVICE; /* the next piece may be in the same frame */
  struct chain chain;
  chain_begin(st, &chain, link, head);
  if (len > st->frame_room && (!whole || node->next != NODE_NONE))
    chain_pieces(st, &chain, whole ? &st->tx_nodes[node->next] : node, seq, len);
  if (chain.bytes == 0) {
    st->stats->tcp_blocked_no_frames++;
    packet_drop(arena, head);
    return 0;
  }
  len = chain.bytes;
  st->stats->tcp_out_chained += chain.frames > 1;
  flags = note_data(st, c, seq, seq + len, flags);
  finish_segment(st, c, head, payload, here, seq, flags, len - here, chain.sum, link_completes(link));
  return len;
}

/*
 * Sends payload from seq on, which lies in node n: as much as `len` allows and one segment holds.
 * Returns the bytes sent, 0 where there was no frame or room.
 */
static uint32_t send_data(struct stack *st, struct tcp_conn *c, uint32_t n, uint32_t seq, uint32_t len,
                          uint8_t flags) {
  if (!ready_to_send(st, c))
    return 0;
  const struct tx_node *node = &st->tx_nodes[n];
  uint32_t frame;
  uint8_t *payload;
  bool last = node->next == NODE_NONE;
  if (seq == node->seq && node->len <= len && (last || 2 * node->len >= c->mss) &&
      leaves_in_place(st, c, node)) {
    len = node->len;
    frame = node->frame;
    payload = frame_base(st->arena, frame) + node->off;
    frame_ref(st->arena, frame);
    st->stats->tcp_out_in_place++;
  } else if (__builtin_expect(len > st->plain_max, 0)) {
    return send_large(st, c, node, seq, len, flags);
  } else {
    frame = gather(st, c, node, seq, &len);
    if (frame == FRAME_NONE)
      return 0;
    payload = frame_data(st->arena, frame);
  }
  flags = note_data(st, c, seq, seq + len, flags);
  finish_segment(st, c, frame, payload, len, seq, flags, 0, 0, false);
  return len;
}

bool tcp_resend(struct stack *st, struct tcp_conn *c) {
  uint32_t n = c->tx_head;
  if (n == NODE_NONE) /* only the FIN is unacknowledged */
    return (c->flags & CONN_SHUT) && tcp_send_control(st, c, TCP_FIN | TCP_ACK, c->snd_una);
  uint32_t len = min32(c->mss, c->write_seq - c->snd_una);
  len = min32(len, c->snd_max - c->snd_una);
  return send_data(st, c, n, c->snd_una, len, TCP_ACK) > 0;
}

bool tcp_send_syn(struct stack *st, struct tcp_conn *c) {
  uint8_t flags = c->state == TCP_SYN_SENT ? TCP_SYN : TCP_SYN | TCP_ACK;
  if (!tcp_send_control(st, c, flags, c->iss))
    return false;
  if (c->retries == 0 && !(c->flags & CONN_RTT) && c->snd_max == c->iss) {
    c->flags |= CONN_RTT;
    c->rtt_seq = c->iss + 1;
    c->rtt_at = st->now;
  }
  c->snd_nxt = c->iss + 1;
  if (seq_lt(c->snd_max, c->snd_nxt))
    c->snd_max = c->snd_nxt;
  conn_set_rto(st, c);
  return true;
}

static bool may_send_data(const struct tcp_conn *c) {
  return c->state >= TCP_ESTABLISHED && c->state != TCP_FIN_WAIT_2 && c->state != TCP_TIME_WAIT;
}

static uint32_t usable_window(const struct tcp_conn *c) {
  uint32_t window = min32(c->snd_wnd, c->cwnd), flight = c->snd_nxt - c->snd_una;
  return window > flight ? window - flight : 0;
}

/*
 * Sends what windows allow; returns false if it stopped for want of a frame or room (try again).
 * override: the persist timer has waited long enough for a window worth a segment
 * (RFC 9293 section 3.8.6.2.1), any is good now.
 */
static inline bool send_window(struct stack *st, struct tcp_conn *c, bool override) {
  uint32_t end = c->write_seq; /* of data; the FIN is at write_seq */
  while (seq_lt(c->snd_nxt, end)) {
    uint32_t unsent = end - c->snd_nxt;
    uint32_t len = min32(min32(unsent, usable_window(c)), c->mss);
    bool again = seq_lt(c->snd_nxt, c->snd_max);
    /* What had been sent goes again after a time-out, though the window has been closed since. */
    if (len == 0 && again && c->snd_nxt == c->snd_una)
      len = min32(min32(unsent, c->snd_max - c->snd_nxt), c->mss);
    /* Sender's silly window avoidance (RFC 9293 section 3.8.6.2.1), of new data only: nothing else would
     * ever fill the gap. */
    if (len == 0 || (len < unsent && len < c->mss && len < c->snd_wnd_max / 2 && !override && !again))
      return true;
    uint32_t sent = send_data(st, c, c->tx_next, c->snd_nxt, len, TCP_ACK);
    if (sent == 0)
      return false;
    c->snd_nxt += sent;
    if (c->snd_nxt == end && (c->flags & CONN_SHUT))
      c->snd_nxt++; /* the FIN went along */
    while (c->tx_next != NODE_NONE &&
           seq_leq(st->tx_nodes[c->tx_next].seq + st->tx_nodes[c->tx_next].len, c->snd_nxt))
      c->tx_next = st->tx_nodes[c->tx_next].next;
    if (seq_lt(c->snd_max, c->snd_nxt))
      c->snd_max = c->snd_nxt;
    if (c->rto_at == 0 || (c->flags & CONN_PROBE))
      conn_set_rto(st, c);
  }
  if ((c->flags & CONN_SHUT) && c->snd_nxt == end &&
      (usable_window(c) > 0 || seq_lt(c->snd_nxt, c->snd_max))) {
    if (!tcp_send_control(st, c, TCP_FIN | TCP_ACK, end))
      return false;
    c->snd_nxt++;
    if (seq_lt(c->snd_max, c->snd_nxt))
      c->snd_max = c->snd_nxt;
    conn_set_rto(st, c);
  }
  return true;
}

void tcp_probe(struct stack *st, struct tcp_conn *c) {
  st->stats->tcp_probes++;
  if (c->snd_wnd > 0)
    send_window(st, c, true);
  else /* as Linux does: an old sequence number, which must be answered with an ACK and the window */
    tcp_send_control(st, c, TCP_ACK, c->snd_una - 1);
}

/* There is no route at present: not a reason to try in every pass, but at the pace of retransmissions. */
static void postpone(struct stack *st, struct tcp_conn *c) {
  uint32_t end = c->write_seq + ((c->flags & CONN_SHUT) ? 1 : 0);
  bool waiting = c->state < TCP_ESTABLISHED || c->snd_una != end;
  if (waiting && c->rto_at == 0 && c->state != TCP_TIME_WAIT)
    conn_set_rto(st, c);
  conn_output_done(st, c);
  conn_arm(st, c);
}

void tcp_output(struct stack *st, struct tcp_conn *c) {
  bool done = true;
  if (!conn_path(st, c)) {
    postpone(st, c);
    return;
  }
  if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RCVD) {
    if (c->snd_nxt == c->iss)
      done = tcp_send_syn(st, c);
  } else if (may_send_data(c)) {
    done = send_window(st, c, false);
    /* Something to say, nothing in flight that would bring an ACK: the window is closed. Probe it. */
    if (done && c->snd_una == c->snd_max && c->snd_nxt != c->write_seq + ((c->flags & CONN_SHUT) ? 1 : 0) &&
        c->rto_at == 0) {
      conn_set_rto(st, c);
      c->flags |= CONN_PROBE;
    }
  }
  /*
   * From snd_max, not snd_nxt: a peer that has what we went back over would find it too old and
   * not look at what it acknowledges; if both had gone back, for ever.
   */
  if (done && (c->flags & CONN_ACK_NOW) && c->state != TCP_CLOSED && c->state != TCP_SYN_SENT)
    done = tcp_send_control(st, c, TCP_ACK, c->snd_max);
  if (!done)
    conn_wants_output(st, c); /* at the end, behind those that haven't had their turn */
}
