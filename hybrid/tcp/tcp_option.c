/* SPDX-License-Identifier: Apache-2.0 */
/* TCP options. What we don't know is skipped; a malformed one ends the list, not the segment. */
#include "tcp/tcp.h"

void segment_parse_options(struct segment *seg) {
  const uint8_t *p = seg->header + TCP_LEN;
  const uint8_t *end = seg->header + (seg->header[12] >> 4) * 4u;
  while (p < end && *p != TCPOPT_END) {
    if (*p == TCPOPT_NOP) {
      p++;
      continue;
    }
    if (end - p < 2 || p[1] < 2 || p[1] > end - p)
      return;
    switch (*p) {
    case TCPOPT_MSS:
      if (p[1] == 4)
        seg->mss = load16(p + 2);
      break;
    case TCPOPT_WSCALE:
      if (p[1] == 3) {
        seg->has_wscale = true;
        seg->wscale = p[2] > 14 ? 14 : p[2]; /* RFC 7323 section 2.3 */
      }
      break;
    case TCPOPT_SACK_OK:
      if (p[1] == 2)
        seg->sack_ok = true;
      break;
    case TCPOPT_TS:
      if (p[1] == 10) {
        seg->has_ts = true;
        seg->tsval = load32(p + 2);
        seg->tsecr = load32(p + 6);
      }
      break;
    default:
      break;
    }
    p += p[1];
  }
}

static uint32_t write_timestamps(const struct stack *st, const struct tcp_conn *c, uint8_t *p) {
  store32(p, TCP_TS_WORD);
  store32(p + 4, conn_ts_now(st, c));
  store32(p + 8, c->ts_recent);
  return TCP_TS_LEN;
}

uint32_t options_write(struct stack *st, const struct tcp_conn *c, uint8_t *p, uint32_t room) {
  uint32_t len = 0;
  if (c->flags & CONN_TS)
    len = write_timestamps(st, c, p);
  if (__builtin_expect(c->ooo == RANGE_NONE || !(c->flags & CONN_SACK), 1) || room < 4 + 8)
    return len;
  uint32_t most = (room - 4) / 8 < TCP_SACK_BLOCKS ? (room - 4) / 8 : TCP_SACK_BLOCKS;
  /* RFC 2018 section 4: blocks of data held ahead of the gap. */
  uint8_t *head = p + len;
  uint32_t blocks = 0;
  for (uint32_t r = c->ooo; r != RANGE_NONE && blocks < most; r = st->ranges[r].next, blocks++) {
    store32(head + 4 + blocks * 8, st->ranges[r].start);
    store32(head + 8 + blocks * 8, st->ranges[r].end);
  }
  head[0] = head[1] = TCPOPT_NOP;
  head[2] = TCPOPT_SACK;
  head[3] = (uint8_t)(2 + blocks * 8);
  return len + 4 + blocks * 8;
}

/*
 * Linux's order, which middleboxes and fingerprints expect: mss, sackOK, TS, nop, wscale, with what
 * is missing filled by nops. A SYN-ACK (offer_all false) answers only what the SYN offered.
 */
uint32_t options_write_syn(struct stack *st, const struct tcp_conn *c, uint8_t *p, bool offer_all) {
  bool sack = offer_all || (c->flags & CONN_SACK), ts = offer_all || (c->flags & CONN_TS);
  bool wscale = offer_all || (c->flags & CONN_WSCALE);
  uint32_t at = 4;
  p[0] = TCPOPT_MSS;
  p[1] = 4;
  store16(p + 2, c->advertised_mss);
  if (ts) {
    write_timestamps(st, c, p + at);
    if (sack) { /* sackOK takes the place of the two nops */
      p[at] = TCPOPT_SACK_OK;
      p[at + 1] = 2;
    }
    at += TCP_TS_LEN;
  } else if (sack) {
    p[at] = p[at + 1] = TCPOPT_NOP;
    p[at + 2] = TCPOPT_SACK_OK;
    p[at + 3] = 2;
    at += 4;
  }
  if (wscale) {
    p[at] = TCPOPT_NOP;
    p[at + 1] = TCPOPT_WSCALE;
    p[at + 2] = 3;
    p[at + 3] = st->rcv_wscale;
    at += 4;
  }
  return at;
}
