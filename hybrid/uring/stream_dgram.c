/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams. One that arrives lies in its frame behind what the kernel writes in front of it:
 *
 *    frame.off - 44          - 28                   off
 *       | io_uring_recvmsg_out | sender's sockaddr    | payload
 *
 * so its sender costs no memory of ours. One that leaves has a record until the kernel has
 * taken it, which is its completion.
 */
#include <errno.h>
#include <string.h>

#include "uring/stream.h"

enum { NAME_BYTES = sizeof(struct sockaddr_in6), HEADER_BYTES = sizeof(struct io_uring_recvmsg_out) };

/* ---- in -------------------------------------------------------------------------- */

void dgram_wake(struct uring *u, struct sock *s) {
  if (s->queue == QUEUE_NONE)
    return;
  struct queue *q = queue_of(u, s);
  while (s->ready < s->rx_frames && q->pops.head != TOKEN_NONE) {
    s->ready++;
    stream_complete(u, s, token_list_shift(&u->shard->tokens, &q->pops), 0);
  }
}

static void keep(struct uring *u, struct sock *s, uint32_t frame, const struct io_uring_cqe *cqe) {
  struct arena *arena = &u->shard->arena;
  struct frame *f = frame_meta(arena, frame);
  struct io_uring_recvmsg_out head;
  memcpy(&head, frame_data(arena, frame), sizeof head);
  uint32_t front = HEADER_BYTES + NAME_BYTES;
  if ((uint32_t)cqe->res < front || head.payloadlen > u->frame_room - front || (head.flags & MSG_TRUNC)) {
    stats_of(u)->kernel_drop_long++;
    frame_unref(arena, frame);
    return;
  }
  f->off = f->head = (uint16_t)(f->off + front);
  f->len = (uint16_t)head.payloadlen;
  rx_append(u, s, frame);
  stats_of(u)->kernel_datagrams_in++;
}

void dgram_received(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe) {
  if (cqe->flags & IORING_CQE_F_BUFFER) {
    uint32_t frame = lent_return(u, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    if (cqe->res <= 0 || (s->flags & SOCK_CLOSING))
      frame_unref(&u->shard->arena, frame);
    else
      keep(u, s, frame, cqe);
  }
  /* Other errors are ICMP's about an earlier datagram: as with the common stack, nobody is told. */
  if (!(cqe->flags & IORING_CQE_F_MORE))
    recv_ended(u, s, cqe->res);
  if (s->rx_frames >= s->rx_limit)
    sock_wants(u, s);
  dgram_wake(u, s);
}

void dgram_deliver(struct uring *u, struct sock *s, hy_event *event) {
  hy_shard *shard = u->shard;
  assert(s->ready > 0 && s->rx.head != FRAME_NONE);
  s->ready--;
  if (shard->app_frames >= shard->config.app_frames_max) {
    event->status = -ENOBUFS; /* the datagram stays for the next pop */
    dgram_wake(u, s);
    return;
  }
  uint32_t frame = s->rx.head;
  struct frame *f = frame_meta(&shard->arena, frame);
  s->rx.head = f->next;
  s->rx_frames--;
  uint8_t *payload = frame_data(&shard->arena, frame);
  addr_from_sockaddr(payload - NAME_BYTES, &event->addr);
  event->sga.nsegs = 1;
  event->sga.segs[0] = (hy_seg){.addr = payload, .len_bytes = f->len, .frame = frame};
  shard->app_frames++;
  if (!(s->flags & SOCK_RECV) && s->rx_frames <= s->rx_limit / 2)
    sock_wants(u, s);
}

/* ---- out ------------------------------------------------------------------------- */

static void dgram_release(struct uring *u, uint32_t record) {
  struct dgram *d = &u->dgrams[record];
  for (size_t i = 0; i < d->msg.msg_iovlen; i++)
    frame_unref(&u->shard->arena, d->frames[i]);
  d->token = TOKEN_NONE;
  d->sock = u->dgram_free;
  u->dgram_free = record;
}

int dgram_push(struct uring *u, struct sock *s, const hy_sga *sga, const hy_addr *peer, uint32_t token,
               bool give) {
  hy_shard *shard = u->shard;
  size_t bytes = hy_sga_bytes(sga);
  if (bytes > UINT16_MAX)
    return -EMSGSIZE;
  if (u->dgram_free == SOCK_NONE || (s->tx_bytes > 0 && s->tx_bytes + bytes > shard->config.sndbuf_bytes) ||
      !stream_room(u, 1))
    return -EAGAIN;
  uint32_t record = u->dgram_free;
  struct dgram *d = &u->dgrams[record];
  u->dgram_free = d->sock;
  *d = (struct dgram){.sock = sock_index(u, s), .token = token, .bytes = (uint32_t)bytes};
  d->msg.msg_iov = d->iov;
  d->msg.msg_iovlen = sga->nsegs;
  if (peer) {
    d->msg.msg_name = &d->to;
    d->msg.msg_namelen = addr_to_sockaddr(peer, s->family, &d->to);
  }
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    d->iov[i] = (struct iovec){.iov_base = sga->segs[i].addr, .iov_len = sga->segs[i].len_bytes};
    d->frames[i] = sga->segs[i].frame;
    if (!give)
      frame_ref(&shard->arena, sga->segs[i].frame);
  }
  if (give)
    shard->app_frames -= sga->nsegs;
  s->tx_bytes += (uint32_t)bytes;
  struct io_uring_sqe *sqe = sqe_take(u);
  io_uring_prep_sendmsg(sqe, s->fd, &d->msg, MSG_NOSIGNAL);
  sqe_counts(s, sqe, op_data(OP_SEND_DGRAM, record));
  return 0;
}

void dgram_sent(struct uring *u, uint32_t record, int result) {
  struct dgram *d = &u->dgrams[record];
  struct sock *s = sock_at(u, d->sock);
  s->inflight--;
  s->tx_bytes -= d->bytes;
  if (result >= 0)
    stats_of(u)->kernel_datagrams_out++;
  if (d->token != TOKEN_NONE)
    stream_complete(u, s, d->token, result < 0 ? result : 0);
  dgram_release(u, record);
}

void dgram_forget_token(struct uring *u, uint32_t token) {
  for (uint32_t i = 0; i < STREAM_DGRAMS_MAX; i++)
    if (u->dgrams[i].token == token)
      u->dgrams[i].token = TOKEN_NONE;
}

void dgram_cancel_tokens(struct uring *u, struct sock *s) {
  for (uint32_t i = 0; i < STREAM_DGRAMS_MAX; i++) {
    struct dgram *d = &u->dgrams[i];
    if (d->token == TOKEN_NONE || d->sock != sock_index(u, s)) /* a free record has no token */
      continue;
    stream_complete(u, s, d->token, -ECANCELED);
    d->token = TOKEN_NONE;
  }
}
