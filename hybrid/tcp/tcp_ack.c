/* SPDX-License-Identifier: Apache-2.0 */
/* What an acknowledgement does: round-trip time, the transmit queue, windows, loss recovery. */
#include "tcp/tcp.h"

/* RFC 6298 section 2, in microseconds; srtt is kept times 8 and rttvar times 4. */
static void rtt_sample(struct tcp_conn *c, uint64_t rtt_ns) {
  if (rtt_ns > TCP_RTO_MAX_NS) /* we were stopped meanwhile; the scaled sums must not overflow */
    rtt_ns = TCP_RTO_MAX_NS;
  uint32_t rtt = (uint32_t)(rtt_ns / NS_PER_US);
  if (rtt == 0)
    rtt = 1;
  if (c->srtt_us == 0) {
    c->srtt_us = rtt * 8;
    c->rttvar_us = rtt * 2;
  } else {
    int32_t delta = (int32_t)(rtt - c->srtt_us / 8);
    c->srtt_us = (uint32_t)((int32_t)c->srtt_us + delta);
    uint32_t deviation = (uint32_t)(delta < 0 ? -delta : delta);
    c->rttvar_us += deviation - c->rttvar_us / 4;
  }
}

/* The time-out without back-off. Linux's bound is on the variance: srtt + max(4 rttvar, 200 ms). */
static uint32_t rto_base_us(const struct tcp_conn *c) {
  if (c->srtt_us == 0)
    return (uint32_t)(TCP_RTO_INITIAL_NS / NS_PER_US);
  uint32_t spread = c->rttvar_us;
  if (spread < TCP_RTO_MIN_NS / NS_PER_US)
    spread = (uint32_t)(TCP_RTO_MIN_NS / NS_PER_US);
  uint64_t rto = (uint64_t)c->srtt_us / 8 + spread;
  return rto > TCP_RTO_MAX_NS / NS_PER_US ? (uint32_t)(TCP_RTO_MAX_NS / NS_PER_US) : (uint32_t)rto;
}

/* Lets go of every piece that is acknowledged whole. */
static void release_acked(struct stack *st, struct tcp_conn *c) {
  while (c->tx_head != NODE_NONE) {
    uint32_t n = c->tx_head;
    struct tx_node *node = &st->tx_nodes[n];
    if (seq_gt(node->seq + node->len, c->snd_una))
      return;
    c->tx_head = node->next;
    if (c->tx_next == n)
      c->tx_next = node->next;
    frame_unref(st->arena, node->frame);
    if (node->token != TOKEN_NONE)
      conn_complete(st, c, node->token, 0);
    node->next = st->tx_node_free;
    st->tx_node_free = n;
  }
  c->tx_tail = NODE_NONE;
}

static void duplicate_ack(struct stack *st, struct tcp_conn *c) {
  if (c->dupacks < UINT8_MAX)
    c->dupacks++;
  if (c->flags & CONN_RECOVERY) {
    c->cwnd += c->mss; /* each says that a segment has left the network: RFC 5681 section 3.2 step 4 */
    conn_wants_output(st, c);
  } else if (c->dupacks == TCP_DUPACKS) {
    cc_enter_recovery(c);
    c->recover = c->snd_max;
    c->flags |= CONN_RECOVERY;
    st->stats->tcp_fast_retransmits++;
    tcp_resend(st, c);
  }
}

static void new_data_acked(struct stack *st, struct tcp_conn *c, uint32_t ack) {
  uint32_t bytes = ack - c->snd_una;
  c->snd_una = ack;
  if (seq_lt(c->snd_nxt, ack))
    c->snd_nxt = ack; /* it had been received before we went back */
  release_acked(st, c);
  while (c->tx_next != NODE_NONE &&
         seq_leq(st->tx_nodes[c->tx_next].seq + st->tx_nodes[c->tx_next].len, c->snd_nxt))
    c->tx_next = st->tx_nodes[c->tx_next].next;
  if ((c->flags & CONN_RTT) && seq_geq(ack, c->rtt_seq)) {
    c->flags &= (uint16_t)~CONN_RTT;
    rtt_sample(c, st->now - c->rtt_at);
  }
  c->rto_us = rto_base_us(c);
  c->retries = 0;
  c->dupacks = 0;
  if (c->flags & CONN_RECOVERY) {
    if (seq_geq(ack, c->recover)) {
      c->flags &= (uint16_t)~CONN_RECOVERY;
      c->cwnd = c->ssthresh;
    } else { /* a partial one: the next hole starts here (RFC 6582 section 3.2 step 3) */
      c->cwnd = c->cwnd > bytes ? c->cwnd - bytes : 0;
      c->cwnd += c->mss;
      tcp_resend(st, c);
    }
  } else {
    cc_acked(c, bytes);
  }
  if (c->snd_una == c->snd_max)
    c->rto_at = 0;
  else
    conn_set_rto(st, c);
  conn_wake_drains(st, c);
}

bool tcp_ack(struct stack *st, struct tcp_conn *c, uint32_t seq, uint32_t ack, uint32_t wnd, bool pure) {
  if (seq_gt(ack, c->snd_max))
    return false;
  /* RFC 5961 section 5.2: too old to be true is an attack. */
  if (seq_lt(ack, c->snd_una) && c->snd_una - ack > c->snd_wnd_max + c->mss)
    return false;
  wnd <<= c->snd_wscale;
  bool advanced = seq_gt(ack, c->snd_una);
  if (advanced)
    new_data_acked(st, c, ack);
  else if (ack == c->snd_una && pure && wnd == c->snd_wnd && c->snd_max != c->snd_una)
    duplicate_ack(st, c);
  if (advanced || seq_gt(seq, c->snd_wl1) || (seq == c->snd_wl1 && (wnd > c->snd_wnd || wnd == 0))) {
    if (seq_geq(ack, c->snd_una)) {
      c->snd_wl1 = seq;
      c->snd_wnd = wnd;
      if (wnd > c->snd_wnd_max)
        c->snd_wnd_max = wnd;
    }
  }
  if ((c->flags & CONN_PROBE) ||
      c->snd_wnd == 0) { /* the peer lives, its reader sleeps: as long as it answers */
    c->retries = 0;
    if (c->snd_wnd > 0)
      c->rto_us = rto_base_us(c);
  }
  if (c->write_seq != c->snd_nxt || (c->flags & CONN_SHUT))
    conn_wants_output(st, c);
  return true;
}
