/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending: pieces that were pushed, until the kernel has no more use for their frames.
 *
 * A copying send is done with them when it completes. A zero-copy send completes
 * when the kernel has queued them, and is notified of when the peer has acknowledged
 * them; until then its pieces stay at the head of the list, and pushes complete in order.
 */
#include <errno.h>

#include "tcp/ops.h"
#include "tcp/tcp.h"
#include "uring/stream.h"

int send_push(struct uring *u, struct sock *s, const hy_sga *sga, uint32_t token, bool give) {
  hy_shard *shard = u->shard;
  if (s->error != 0)
    return s->error;
  if (s->flags & SOCK_SHUT)
    return -EPIPE;
  if (!(s->flags & SOCK_OPEN))
    return -ENOTCONN;
  size_t bytes = hy_sga_bytes(sga);
  if (bytes == 0) {
    if (token != TOKEN_NONE)
      stream_complete(u, s, token, 0);
    if (give)
      sga_drop(&shard->stack, sga);
    return 0;
  }
  if (s->tx_bytes > 0 && s->tx_bytes + bytes > conn_send_limit(&shard->stack))
    return -EAGAIN;
  uint32_t index = u->piece_free;
  for (uint32_t i = 0; i < sga->nsegs; i++, index = u->pieces[index].next)
    if (index == PIECE_NONE)
      return s->tx_bytes > 0 ? -EAGAIN : -ENOBUFS;
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    const hy_seg *seg = &sga->segs[i];
    if (!give)
      frame_ref(&shard->arena, seg->frame);
    if (seg->len_bytes == 0) {
      frame_unref(&shard->arena, seg->frame);
      continue;
    }
    index = u->piece_free;
    struct piece *p = &u->pieces[index];
    u->piece_free = p->next;
    *p = (struct piece){.next = PIECE_NONE,
                        .frame = seg->frame,
                        .len = seg->len_bytes,
                        .off = (uint16_t)((uint8_t *)seg->addr - frame_base(&shard->arena, seg->frame))};
    if (s->tx_head == PIECE_NONE)
      s->tx_head = index;
    else
      u->pieces[s->tx_tail].next = index;
    s->tx_tail = index;
    if (s->tx_next == PIECE_NONE)
      s->tx_next = index;
  }
  u->pieces[s->tx_tail].token = token;
  s->tx_bytes += (uint32_t)bytes;
  if (give)
    shard->app_frames -= sga->nsegs;
  sock_wants(u, s);
  return 0;
}

void send_wake_drains(struct uring *u, struct sock *s) {
  if (s->queue == QUEUE_NONE)
    return;
  struct queue *q = queue_of(u, s);
  if (q->drains.head == TOKEN_NONE || s->tx_bytes > conn_send_limit(&u->shard->stack) / 2)
    return;
  while (q->drains.head != TOKEN_NONE)
    stream_complete(u, s, token_list_shift(&u->shard->tokens, &q->drains), 0);
}

static void release_head(struct uring *u, struct sock *s, int status) {
  uint32_t index = s->tx_head;
  struct piece *p = &u->pieces[index];
  frame_unref(&u->shard->arena, p->frame);
  s->tx_bytes -= p->len;
  if (p->token != TOKEN_NONE)
    stream_complete(u, s, p->token, status);
  s->tx_head = p->next;
  if (s->tx_head == PIECE_NONE)
    s->tx_tail = PIECE_NONE;
  p->next = u->piece_free;
  u->piece_free = index;
}

/* Pieces that the kernel has taken and does not read any more. */
static void release_done(struct uring *u, struct sock *s) {
  while (s->tx_head != s->tx_next && u->pieces[s->tx_head].zerocopies == 0)
    release_head(u, s, 0);
  send_wake_drains(u, s);
}

/* ---- the request --------------------------------------------------------------- */

static uint8_t *piece_data(const struct uring *u, const struct piece *p) {
  return frame_base(&u->shard->arena, p->frame) + p->off;
}

/* The record of a zero-copy send of so many pieces, or SOCK_NONE where it is better copied. */
static uint32_t zerocopy_start(struct uring *u, struct sock *s, uint32_t count, size_t bytes) {
  if (bytes < u->zerocopy_bytes || u->zerocopy_free == SOCK_NONE ||
      ((s->flags & SOCK_NO_ZEROCOPY) && u->zerocopy_bytes > 0))
    return SOCK_NONE;
  uint32_t record = u->zerocopy_free;
  struct zerocopy *z = &u->zerocopies[record];
  u->zerocopy_free = z->sock;
  *z = (struct zerocopy){.sock = sock_index(u, s), .first = s->tx_next, .count = count};
  for (uint32_t i = 0, p = s->tx_next; i < count; i++, p = u->pieces[p].next)
    u->pieces[p].zerocopies++;
  return record;
}

static void zerocopy_end(struct uring *u, struct sock *s, uint32_t record) {
  struct zerocopy *z = &u->zerocopies[record];
  for (uint32_t i = 0, p = z->first; i < z->count; i++, p = u->pieces[p].next)
    u->pieces[p].zerocopies--;
  z->sock = u->zerocopy_free;
  u->zerocopy_free = record;
  release_done(u, s);
}

/* The pieces to go, laid out for the kernel. Returns their number; bytes: their sum. */
static uint32_t gather_pieces(struct uring *u, const struct sock *s, struct gather *g, uint32_t *rest,
                              size_t *bytes) {
  uint32_t n = 0, index = s->tx_next, taken = s->tx_taken;
  for (*bytes = 0; index != PIECE_NONE && n < STREAM_GATHER_PIECES; n++, taken = 0) {
    const struct piece *p = &u->pieces[index];
    g->iov[n] = (struct iovec){.iov_base = piece_data(u, p) + taken, .iov_len = p->len - taken};
    *bytes += p->len - taken;
    index = p->next;
  }
  g->msg = (struct msghdr){.msg_iov = g->iov, .msg_iovlen = n};
  *rest = index;
  return n;
}

void send_run(struct uring *u, struct sock *s) {
  if ((s->flags & (SOCK_OPEN | SOCK_SENDING)) != SOCK_OPEN)
    return;
  if (s->tx_next == PIECE_NONE) {
    if ((s->flags & (SOCK_SHUT | SOCK_SHUT_SENT | SOCK_CLOSING)) == SOCK_SHUT && s->error == 0) {
      struct io_uring_sqe *sqe = sqe_take(u);
      io_uring_prep_shutdown(sqe, -1, SHUT_WR);
      sqe_file(u, s, sqe);
      sqe_counts(s, sqe, op_data(OP_SHUTDOWN, sock_index(u, s)));
      s->flags |= SOCK_SHUT_SENT;
    }
    return;
  }
  const struct piece *first = &u->pieces[s->tx_next];
  size_t bytes = first->len - s->tx_taken;
  uint32_t count = 1, rest = first->next, slot = GATHER_NONE;
  if (first->next != PIECE_NONE && (slot = gather_take(u)) != GATHER_NONE)
    count = gather_pieces(u, s, &u->gathers[slot], &rest, &bytes);
  /* WAITALL: the kernel goes on by itself when there is room again. MORE: the rest follows at once. */
  int flags = MSG_NOSIGNAL | MSG_WAITALL | (rest != PIECE_NONE ? MSG_MORE : 0);
  uint32_t record = zerocopy_start(u, s, count, bytes);
  struct io_uring_sqe *sqe = sqe_take(u);
  if (slot != GATHER_NONE) {
    io_uring_prep_sendmsg(sqe, -1, &u->gathers[slot].msg, (unsigned)flags);
    if (u->sqpoll) /* read whenever the kernel's thread comes to it; else by the call that submits it */
      s->gather = slot;
  } else {
    io_uring_prep_send(sqe, -1, piece_data(u, first) + s->tx_taken, bytes, flags);
  }
  uint64_t data = op_data(OP_SEND, sock_index(u, s));
  if (record != SOCK_NONE) {
    sqe->opcode = slot != GATHER_NONE ? IORING_OP_SENDMSG_ZC : IORING_OP_SEND_ZC;
    sqe->ioprio |= u->has.zerocopy_report ? URING_SEND_ZC_REPORT_USAGE : 0;
    if (u->fixed_buffers && (slot == GATHER_NONE || u->has.zerocopy_fixed))
      sqe->ioprio |= IORING_RECVSEND_FIXED_BUF; /* buffer 0 is the arena */
    data = op_data(OP_SEND_ZEROCOPY, record);
  }
  sqe_file(u, s, sqe);
  sqe_counts(s, sqe, data);
  s->flags |= SOCK_SENDING;
}

/* ---- completions ------------------------------------------------------------------ */

void send_done(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe) {
  s->flags &= ~(uint32_t)SOCK_SENDING;
  if (s->gather != GATHER_NONE) {
    gather_give(u, s->gather);
    s->gather = GATHER_NONE;
  }
  bool again = cqe->res == -EAGAIN || cqe->res == -EINTR || cqe->res == -ENOBUFS || cqe->res == -ENOMEM;
  if (cqe->res < 0 && !again) {
    if (s->flags & SOCK_CLOSING)
      close_hard(u, s); /* there is nobody to tell and nobody to send to */
    else
      sock_fail(u, s, cqe->res);
  }
  if (s->error != 0 || (s->flags & SOCK_HARD)) {
    send_drop(u, s, s->error);
    return;
  }
  if (cqe->res < 0) {
    sock_wants(u, s);
    return;
  }
  stats_of(u)->kernel_out++;
  stats_of(u)->kernel_out_bytes += (uint32_t)cqe->res;
  for (uint32_t left = (uint32_t)cqe->res; left > 0;) {
    const struct piece *p = &u->pieces[s->tx_next];
    uint32_t rest = p->len - s->tx_taken;
    if (left < rest) {
      s->tx_taken += left;
      break;
    }
    left -= rest;
    s->tx_taken = 0;
    s->tx_next = p->next;
  }
  release_done(u, s);
  if (s->tx_next != PIECE_NONE || (s->flags & SOCK_SHUT))
    sock_wants(u, s);
}

void zerocopy_done(struct uring *u, uint32_t record, const struct io_uring_cqe *cqe) {
  struct sock *s = sock_at(u, u->zerocopies[record].sock);
  if (!(cqe->flags & IORING_CQE_F_NOTIF)) {
    if (cqe->res > 0)
      stats_of(u)->kernel_out_zerocopy++;
    send_done(u, s, cqe);
    if (cqe->flags & IORING_CQE_F_MORE)
      return;
  } else if ((uint32_t)cqe->res & URING_NOTIF_ZC_COPIED) {
    stats_of(u)->kernel_out_zerocopy_copied++;
    s->flags |= SOCK_NO_ZEROCOPY; /* loopback, a device without scatter-gather: copying at once is cheaper */
  }
  s->inflight--;
  zerocopy_end(u, s, record);
}

void send_cancel_tokens(struct uring *u, struct sock *s, int status) {
  for (uint32_t i = s->tx_head; i != PIECE_NONE; i = u->pieces[i].next) {
    if (u->pieces[i].token != TOKEN_NONE)
      stream_complete(u, s, u->pieces[i].token, status);
    u->pieces[i].token = TOKEN_NONE;
  }
}

/*
 * Everything that waits for sending is told; what the kernel does not have goes. Pieces that a request or
 * a zero-copy send may still read stay until that has completed.
 */
void send_drop(struct uring *u, struct sock *s, int status) {
  send_cancel_tokens(u, s, status);
  if (s->queue != QUEUE_NONE) {
    struct queue *q = queue_of(u, s);
    while (q->drains.head != TOKEN_NONE)
      stream_complete(u, s, token_list_shift(&u->shard->tokens, &q->drains), status);
  }
  if (s->flags & SOCK_SENDING) /* its completion comes back here */
    return;
  s->tx_next = PIECE_NONE;
  s->tx_taken = 0;
  while (s->tx_head != PIECE_NONE && u->pieces[s->tx_head].zerocopies == 0)
    release_head(u, s, status);
}

void send_forget_token(struct uring *u, const struct sock *s, uint32_t token) {
  for (uint32_t i = s->tx_head; i != PIECE_NONE; i = u->pieces[i].next)
    if (u->pieces[i].token == token) /* the bytes are on their way; only the notice is cancelled */
      u->pieces[i].token = TOKEN_NONE;
}
