/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: found their connection, and the common case done at once. Header
 * prediction (after Van Jacobson) asks by a few compares whether a segment is what
 * an established connection expects next: no flags but ACK and PSH, the timestamp
 * option in its usual place and no other, the sequence number next in line.
 */
#include <errno.h>

#include "tcp/csum.h"
#include "tcp/tcp.h"

void tcp_delay_ack(struct stack *st, struct tcp_conn *c) {
  if (c->flags & CONN_ACK_LATER)
    return;
  c->flags |= CONN_ACK_LATER;
  c->delack_at = st->now + TCP_DELACK_NS;
  conn_arm(st, c);
}

/* Options exactly as agreed, with nothing unusual: fills in the timestamps. */
static bool usual_options(const struct tcp_conn *c, struct segment *seg, uint32_t header_len) {
  if (!(c->flags & CONN_TS))
    return header_len == TCP_LEN;
  if (header_len != TCP_LEN + TCP_TS_LEN || load32(seg->header + TCP_LEN) != TCP_TS_WORD)
    return false;
  seg->tsval = load32(seg->header + TCP_LEN + 4);
  return (int32_t)(seg->tsval - c->ts_recent) >= 0;
}

static bool predicted(const struct tcp_conn *c, const struct segment *seg) {
  return c->state == TCP_ESTABLISHED && seg->seq == c->rcv_nxt &&
         (seg->flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_URG | TCP_ACK)) == TCP_ACK &&
         c->ooo == RANGE_NONE && !c->fin_seen && seg->len <= c->rcv_adv - c->rcv_nxt &&
         seq_geq(seg->ack, c->snd_una) && seq_leq(seg->ack, c->snd_max) &&
         (c->queue != QUEUE_NONE || (c->flags & CONN_PASSIVE));
}

static void fast_path(struct stack *st, struct tcp_conn *c, const struct packet *p,
                      const struct segment *seg) {
  st->stats->tcp_in_fast++;
  if ((c->flags & CONN_TS) && seq_leq(seg->seq, c->rcv_acked)) {
    c->ts_recent = seg->tsval;
    c->ts_recent_at = st->now;
  }
  if (seg->ack != c->snd_una || seg->len == 0 || seg->wnd << c->snd_wscale != c->snd_wnd)
    tcp_ack(st, c, seg);
  if (seg->len == 0) {
    frame_unref(st->arena, p->frame);
    return;
  }
  if (reass_in_order(st, c, p->frame, seg->payload, seg->len))
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

void tcp_input(struct stack *st, struct packet *p) {
  const uint8_t *base = frame_base(st->arena, p->frame);
  uint8_t *h = frame_base(st->arena, p->frame) + p->l4_off;
  uint32_t header_len = (h[12] >> 4) * 4u;
  st->stats->tcp_in++;
  if (header_len < TCP_LEN || header_len > p->l4_len) {
    st->stats->drop_tcp_header++;
    goto drop;
  }
  if (!(frame_meta(st->arena, p->frame)->flags & FRAME_CSUM_GOOD)) {
    const uint8_t *l3 = base + p->l3_off;
    uint64_t pseudo = l3[0] >> 4 == 4 ? csum_pseudo4(l3 + 12, PROTO_TCP, p->l4_len)
                                      : csum_pseudo6(l3 + 8, PROTO_TCP, p->l4_len);
    if (csum_fold(csum_add(pseudo, h, p->l4_len)) != 0) {
      st->stats->drop_checksum++;
      goto drop;
    }
  }
  struct segment seg = {
      .seq = load32(h + 4),
      .ack = load32(h + 8),
      .wnd = load16(h + 14),
      .len = p->l4_len - header_len,
      .payload = h + header_len,
      .header = h,
      .flags = h[13],
  };
  for (uint32_t i = p->hash & st->flows.mask; st->flows.entries[i].conn != FLOW_NONE;
       i = (i + 1) & st->flows.mask) {
    if (st->flows.entries[i].hash != p->hash)
      continue;
    struct tcp_conn *c = conn_at(st, st->flows.entries[i].conn);
    if (!flow_key_equal(&c->key, &p->key))
      continue;
    if (__builtin_expect(predicted(c, &seg) && usual_options(c, &seg, header_len), 1))
      fast_path(st, c, p, &seg);
    else
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
  frame_unref(st->arena, p->frame);
}
