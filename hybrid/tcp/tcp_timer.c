/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection's timers. Each kind is a deadline in the connection, and the wheel
 * holds one timer for the earliest, whose time is kept in the connection too
 * (timer_at). Moving a deadline later (which every ACK does) or clearing it only
 * stores it: the wheel's timer fires at the old time, sees that nothing is due, and
 * is armed again.
 */
#include <errno.h>

#include "tcp/tcp.h"

void conn_arm_wheel(struct stack *st, struct tcp_conn *c, uint64_t at) {
  c->timer_at = at;
  wheel_arm(&st->wheel, conn_index(st, c), at);
}

void conn_disarm(struct stack *st, struct tcp_conn *c) {
  c->timer_at = UINT64_MAX;
  wheel_cancel(&st->wheel, conn_index(st, c));
}

void conn_arm(struct stack *st, struct tcp_conn *c) {
  uint64_t at = UINT64_MAX;
  if (c->rto_at && c->rto_at < at)
    at = c->rto_at;
  if (c->delack_at && c->delack_at < at)
    at = c->delack_at;
  if (c->close_at && c->close_at < at)
    at = c->close_at;
  conn_arm_at(st, c, at); /* nothing due: a timer that is still armed will find that out */
}

static void back_off(struct stack *st, struct tcp_conn *c) {
  uint32_t most = (uint32_t)(TCP_RTO_MAX_NS / NS_PER_US);
  c->rto_us = c->rto_us < most / 2 ? c->rto_us * 2 : most;
  c->rto_at = st->now + (uint64_t)c->rto_us * NS_PER_US;
}

static unsigned retries_max(const struct tcp_conn *c) {
  if (c->state == TCP_SYN_SENT)
    return TCP_SYN_RETRIES;
  if (c->state == TCP_SYN_RCVD)
    return TCP_SYNACK_RETRIES;
  return c->queue == QUEUE_NONE ? TCP_ORPHAN_RETRIES : TCP_RETRIES;
}

/* Nobody holds it any more, and its peer answers, for minutes now, that it has no room: Linux,
 * tcp_probe_timer. */
static bool refused_orphan(const struct tcp_conn *c) {
  return c->queue == QUEUE_NONE && !conn_unaccepted(c) && c->snd_wnd == 0 &&
         c->rto_us >= TCP_RTO_MAX_NS / NS_PER_US;
}

static void retransmission_timeout(struct stack *st, struct tcp_conn *c) {
  if (c->retries >= retries_max(c) || refused_orphan(c)) {
    st->stats->tcp_timed_out++;
    if (c->flags & CONN_HALF_OPEN)
      conn_free(st, c);
    else
      conn_fail(st, c, -ETIMEDOUT);
    return;
  }
  c->retries++;
  back_off(st, c);
  if (c->flags & CONN_PROBE) {
    tcp_probe(st, c);
    conn_arm(st, c);
    return;
  }
  st->stats->tcp_rto++;
  if (c->state >= TCP_ESTABLISHED)
    cc_timeout(c);
  c->flags &= (uint16_t) ~(CONN_RTT | CONN_RECOVERY);
  c->dupacks = 0;
  c->snd_nxt = c->snd_una; /* go back and let slow start bring out the rest */
  c->tx_next = c->tx_head;
  if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RCVD)
    c->snd_nxt = c->iss;
  conn_wants_output(st, c);
  conn_arm(st, c);
}

void tcp_timer(struct stack *st, struct tcp_conn *c) {
  c->timer_at = UINT64_MAX; /* the wheel has let go of it */
  if (c->close_at && c->close_at <= st->now) {
    if (c->queue == QUEUE_NONE)
      conn_free(st, c);
    else
      conn_fail(st, c, 0); /* TIME_WAIT is over but the application still holds the qd */
    return;
  }
  if (c->delack_at && c->delack_at <= st->now) {
    c->delack_at = 0;
    conn_ack_now(st, c);
  }
  if (c->rto_at && c->rto_at <= st->now)
    retransmission_timeout(st, c);
  else
    conn_arm(st, c);
}
