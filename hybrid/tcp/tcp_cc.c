/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Congestion control: slow start, congestion avoidance and the multiplicative
 * decrease of RFC 5681, with NewReno's recovery (RFC 6582, in tcp_ack.c). This
 * file is where another algorithm takes its place.
 */
#include "tcp/tcp.h"

#define CWND_MAX (1u << 30)

void cc_init(struct tcp_conn *c) {
  c->cwnd = TCP_INITIAL_WINDOW * c->mss;
  c->ssthresh = CWND_MAX;
}

static uint32_t half_of_flight(const struct tcp_conn *c) {
  uint32_t half = (c->snd_max - c->snd_una) / 2;
  return half > 2u * c->mss ? half : 2u * c->mss;
}

void cc_acked(struct tcp_conn *c, uint32_t bytes) {
  uint32_t step;
  if (c->cwnd < c->ssthresh) {
    step = bytes < 2u * c->mss ? bytes : 2u * c->mss; /* RFC 3465, L = 2 */
  } else {
    step = (uint32_t)((uint64_t)c->mss * c->mss / c->cwnd);
    if (step == 0)
      step = 1;
  }
  c->cwnd = c->cwnd + step < CWND_MAX ? c->cwnd + step : CWND_MAX;
}

void cc_enter_recovery(struct tcp_conn *c) {
  c->ssthresh = half_of_flight(c);
  c->cwnd = c->ssthresh + TCP_DUPACKS * c->mss;
}

void cc_timeout(struct tcp_conn *c) {
  if (c->retries == 1) /* RFC 5681 section 3.1: once per loss, not per repeated time-out */
    c->ssthresh = half_of_flight(c);
  c->cwnd = c->mss;
}
