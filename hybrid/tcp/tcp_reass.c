/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Received data. In order, frames are chained as they are to the reader's queue
 * (a small segment is merged into the frame before it, so that a sender of tiny
 * segments can't tie up a frame for each). Ahead of a gap, they are kept as
 * ranges: chains of consecutive data, sorted, at most TCP_OOO_RANGES of them, so
 * that the work and memory a hostile sender can cause are bounded.
 *
 *   rcv_nxt    gap     range 1              gap    range 2
 *     |.................|[frame][frame]|...........|[frame]|
 */
#include "tcp/tcp.h"

/* Appends len bytes to a frame if they fit behind what it holds and nobody else refers to it. */
static bool merge(struct stack *st, uint32_t into, const uint8_t *payload, uint32_t len) {
  struct frame *f = frame_meta(st->arena, into);
  if (len > TCP_COALESCE_BYTES || f->refs != 1 || f->off + f->len + len > st->arena->frame_size)
    return false;
  memcpy(frame_data(st->arena, into) + f->len, payload, len);
  f->len = (uint16_t)(f->len + len);
  f->segs++;
  st->stats->tcp_in_copied_bytes += len;
  return true;
}

/* Makes the frame's valid bytes the payload. */
static void trim_to(struct stack *st, uint32_t frame, const uint8_t *payload, uint32_t len, uint32_t seq) {
  struct frame *f = frame_meta(st->arena, frame);
  f->off = f->head = (uint16_t)(payload - frame_base(st->arena, frame));
  f->len = (uint16_t)len;
  f->seq = seq;
  f->next = FRAME_NONE;
}

static void append(struct stack *st, struct tcp_conn *c, uint32_t frame, uint32_t len) {
  if (c->rxq_head == FRAME_NONE)
    c->rxq_head = frame;
  else
    frame_meta(st->arena, c->rxq_tail)->next = frame;
  c->rxq_tail = frame;
  c->rxq_bytes += len;
  c->rcv_nxt += len;
}

static void range_release(struct stack *st, uint32_t r) {
  st->ranges[r].next = st->range_free;
  st->range_free = r;
}

static void range_drop(struct stack *st, uint32_t r) {
  for (uint32_t frame = st->ranges[r].head; frame != FRAME_NONE;) {
    uint32_t next = frame_meta(st->arena, frame)->next;
    frame_unref(st->arena, frame);
    frame = next;
  }
  range_release(st, r);
}

void reass_drop(struct stack *st, struct tcp_conn *c) {
  while (c->ooo != RANGE_NONE) {
    uint32_t r = c->ooo;
    c->ooo = st->ranges[r].next;
    range_drop(st, r);
  }
  c->nranges = 0;
}

/* Moves to the reader what has become in order; cuts off what overlaps. */
static void close_gap(struct stack *st, struct tcp_conn *c) {
  while (c->ooo != RANGE_NONE && seq_leq(st->ranges[c->ooo].start, c->rcv_nxt)) {
    uint32_t r = c->ooo;
    c->ooo = st->ranges[r].next;
    c->nranges--;
    for (uint32_t frame = st->ranges[r].head; frame != FRAME_NONE;) {
      struct frame *f = frame_meta(st->arena, frame);
      uint32_t next = f->next;
      uint32_t known = c->rcv_nxt - f->seq; /* bytes of it that we have: frames start at or before rcv_nxt */
      if (known >= f->len) {
        frame_unref(st->arena, frame);
      } else {
        trim_to(st, frame, frame_data(st->arena, frame) + known, f->len - known, c->rcv_nxt);
        append(st, c, frame, f->len);
      }
      frame = next;
    }
    range_release(st, r);
  }
}

bool reass_in_order(struct stack *st, struct tcp_conn *c, uint32_t frame, uint8_t *payload, uint32_t len) {
  if (__builtin_expect(st->arena->free_count < st->frames_reserve / 2, 0)) {
    st->stats->drop_no_memory++;
    frame_unref(st->arena, frame);
    return false;
  }
  if (c->rxq_head != FRAME_NONE && merge(st, c->rxq_tail, payload, len)) {
    c->rxq_bytes += len;
    c->rcv_nxt += len;
    frame_unref(st->arena, frame);
  } else {
    trim_to(st, frame, payload, len, c->rcv_nxt);
    append(st, c, frame, len);
  }
  if (__builtin_expect(c->ooo != RANGE_NONE, 0))
    close_gap(st, c);
  return true;
}

bool reass_out_of_order(struct stack *st, struct tcp_conn *c, uint32_t frame, uint8_t *payload, uint32_t seq,
                        uint32_t len) {
  /*
   * What is in order matters more, and the application's answers most: data ahead of a gap stays for as long
   * as its sender likes, so it may never take the last frames that hy_sga_alloc would give out.
   */
  if (st->arena->free_count < 2 * st->frames_reserve) {
    st->stats->drop_no_memory++;
    frame_unref(st->arena, frame);
    return false;
  }
  uint32_t end = seq + len, before = RANGE_NONE, r = c->ooo;
  while (r != RANGE_NONE && seq_lt(st->ranges[r].end, seq)) {
    before = r;
    r = st->ranges[r].next;
  }
  /* r is the first range that ends at or after seq. */
  if (r != RANGE_NONE && seq_leq(st->ranges[r].start, seq)) {
    struct ooo_range *range = &st->ranges[r];
    if (seq_leq(end, range->end)) {
      st->stats->drop_duplicate++;
      frame_unref(st->arena, frame);
      return false;
    }
    /* Grows at its end by what is new. */
    uint32_t known = range->end - seq;
    payload += known;
    len -= known;
    if (merge(st, range->tail, payload, len)) {
      frame_unref(st->arena, frame);
    } else {
      trim_to(st, frame, payload, len, range->end);
      frame_meta(st->arena, range->tail)->next = frame;
      range->tail = frame;
    }
    range->end = end;
    before = r;
    r = range->next;
  } else {
    if (c->nranges == TCP_OOO_RANGES || st->range_free == RANGE_NONE) {
      st->stats->drop_ooo_full++;
      frame_unref(st->arena, frame);
      return false;
    }
    uint32_t fresh = st->range_free;
    st->range_free = st->ranges[fresh].next;
    trim_to(st, frame, payload, len, seq);
    st->ranges[fresh] = (struct ooo_range){.start = seq, .end = end, .head = frame, .tail = frame, .next = r};
    if (before == RANGE_NONE)
      c->ooo = fresh;
    else
      st->ranges[before].next = fresh;
    c->nranges++;
    before = fresh;
  }
  st->stats->tcp_out_of_order++;
  /* Later ranges that this one now reaches are joined; what it covers wholly goes. */
  struct ooo_range *grown = &st->ranges[before];
  while (r != RANGE_NONE && seq_leq(st->ranges[r].start, grown->end)) {
    struct ooo_range *later = &st->ranges[r];
    uint32_t after = later->next;
    if (seq_leq(later->end, grown->end)) {
      range_drop(st, r);
    } else {
      frame_meta(st->arena, grown->tail)->next = later->head; /* overlap is cut in close_gap */
      grown->tail = later->tail;
      grown->end = later->end;
      range_release(st, r);
    }
    grown->next = after;
    c->nranges--;
    r = after;
  }
  return true;
}
