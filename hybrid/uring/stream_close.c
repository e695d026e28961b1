/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From hy_close to the last completion.
 *
 *   orderly    what is queued is sent; the receive is cancelled; then the socket is closed: FIN
 *   by reset   (hy_abort; data that nobody will read; patience at its end)
 *              connect(AF_UNSPEC) resets the connection, and every request on it fails; then closed
 *
 * Nothing is closed while a request is out, so none ever touches memory or a slot that has
 * another owner. The kernel still delivers what it has taken; it resets by itself where it holds
 * data that was not received.
 */
#include <errno.h>
#include <unistd.h>

#include "uring/stream.h"

enum {
  SETTLE_PASSES = 16,
  FINI_WAIT_MS = 10,
  FINI_WAITS = 100, /* a second in all */
};

static const struct sockaddr_in6 unspecified = {.sin6_family = AF_UNSPEC};

void close_hard(struct uring *u, struct sock *s) {
  s->flags |= SOCK_HARD;
  send_drop(u, s, -ECANCELED);
  sock_wants(u, s);
}

void close_start(struct uring *u, struct sock *s, bool hard) {
  s->flags |= SOCK_CLOSING;
  if (s->kind == SOCK_BOUND) {
    close(s->fd);
    s->fd = -1;
    sock_release(u, s);
    return;
  }
  list_remove(u, s);
  if (s->kind == SOCK_LISTENER) {
    listen_close(u, s);
  } else {
    bool unread = s->rx.head != FRAME_NONE;
    recv_drop(u, s);
    if (s->kind == SOCK_CONN && (hard || unread || !(s->flags & SOCK_OPEN) || s->error != 0))
      close_hard(u, s);
  }
  s->queue = QUEUE_NONE;
  s->at = u->shard->stack.now + STREAM_LINGER_NS;
  list_append(u, s, LIST_CLOSING);
  sock_wants(u, s);
  if (s->kind == SOCK_DATAGRAMS)
    close_settle(u, s);
}

static void reset(struct uring *u, struct sock *s) {
  struct io_uring_sqe *sqe = sqe_take(u);
  io_uring_prep_connect(sqe, -1, (const struct sockaddr *)&unspecified, sizeof unspecified);
  sqe_file(u, s, sqe);
  sqe_counts(s, sqe, op_data(OP_RESET, sock_index(u, s)));
  s->flags |= SOCK_RESET_SENT;
}

static void finish(struct uring *u, struct sock *s) {
  struct io_uring_sqe *sqe = sqe_take(u);
  if (s->flags & SOCK_FIXED)
    io_uring_prep_close_direct(sqe, sock_index(u, s));
  else
    io_uring_prep_close(sqe, s->fd);
  if ((s->flags & SOCK_FIXED) && s->fd >= 0)
    close(s->fd);
  s->fd = -1;
  sqe_counts(s, sqe, op_data(OP_CLOSE, sock_index(u, s)));
  s->flags |= SOCK_CLOSE_SENT;
}

void close_run(struct uring *u, struct sock *s) {
  if (s->flags & SOCK_CLOSE_SENT)
    return;
  recv_stop(u, s);
  if (s->flags & SOCK_HARD) {
    if (!(s->flags & SOCK_RESET_SENT))
      reset(u, s);
  } else if (s->kind == SOCK_CONN) {
    send_run(u, s);
  }
  if (s->inflight == 0 && s->tx_next == PIECE_NONE)
    finish(u, s);
}

void close_look(struct uring *u, struct sock *s) {
  if (!(s->flags & SOCK_CLOSING) || s->inflight > 0)
    return;
  if (s->flags & SOCK_CLOSE_SENT) {
    list_remove(u, s);
    sock_release(u, s);
  } else {
    sock_wants(u, s);
  }
}

void close_expire(struct uring *u) {
  while (u->closing.head != SOCK_NONE) {
    struct sock *s = sock_at(u, u->closing.head);
    if (s->at > u->now)
      return;
    s->at = u->now + STREAM_LINGER_NS;
    list_remove(u, s);
    list_append(u, s, LIST_CLOSING);
    if (s->kind == SOCK_CONN && !(s->flags & SOCK_HARD))
      close_hard(u, s);
  }
}

void close_settle(struct uring *u, struct sock *s) {
  for (int i = 0; i < SETTLE_PASSES && (s->flags & SOCK_CLOSING) && s->kind != SOCK_FREE; i++)
    stream_pass(u, u->now);
}

/* Until something completes, or a little longer; false: the ring belongs to another thread. */
static bool wait_briefly(struct uring *u) {
  struct __kernel_timespec ts = {.tv_nsec = FINI_WAIT_MS * 1000000};
  struct io_uring_cqe *cqe;
  int rc = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
  return rc >= 0 || rc == -ETIME || rc == -EINTR;
}

void stream_fini(void *t) {
  struct uring *u = t;
  if (u->in_use > 0)
    stream_pass(u, u->now); /* what was pushed before an orderly close may still leave */
  for (uint32_t i = 0; i < u->nsocks; i++) {
    struct sock *s = sock_at(u, i);
    if (s->kind == SOCK_CONN && !(s->flags & SOCK_HARD))
      close_hard(u, s);
  }
  /* What the kernel does not end in time ends with the ring. */
  for (int waits = 0; u->in_use > 0 && waits < FINI_WAITS; waits++) {
    while (stream_pass(u, u->now) > 0 && u->in_use > 0)
      continue;
    if (u->in_use > 0 && u->run_head == SOCK_NONE && !wait_briefly(u))
      break;
  }
  stream_free(u);
}
