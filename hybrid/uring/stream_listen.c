/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners. A multishot accept takes connections from the kernel as they come; they
 * wait here, at most `backlog` of them beside those that wait in the kernel, until the application
 * accepts them. Only then is anything received for them.
 *
 * A listener keeps its descriptor: closing has to end the listening at once.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uring/stream.h"

int listen_start(struct uring *u, struct sock *s, int backlog) {
  if (listen(s->fd, backlog) < 0)
    return -errno;
  s->kind = SOCK_LISTENER;
  s->backlog = (uint16_t)backlog;
  sock_wants(u, s);
  return 0;
}

void listen_run(struct uring *u, struct sock *s) {
  bool full = s->rx_frames >= s->backlog;
  if (s->flags & SOCK_RECV) {
    if (full || s->list != LIST_NONE)
      recv_stop(u, s);
    return;
  }
  if (full || s->list != LIST_NONE)
    return;
  struct io_uring_sqe *sqe = sqe_take(u);
  io_uring_prep_multishot_accept(sqe, s->fd, NULL, NULL, SOCK_CLOEXEC);
  sqe_counts(s, sqe, op_data(OP_ACCEPT, sock_index(u, s)));
  s->flags |= SOCK_RECV;
}

/* For want of descriptors or of sockets: to be tried again later, as nothing announces that there are some.
 */
static void stall(struct uring *u, struct sock *s) {
  stats_of(u)->kernel_accept_stalls++;
  if (s->list != LIST_NONE)
    return;
  if (u->stalled.head == SOCK_NONE)
    u->stalled_at = u->now + STREAM_ACCEPT_PAUSE_NS;
  list_append(u, s, LIST_STALLED);
}

void listen_retry(struct uring *u) {
  while (u->stalled.head != SOCK_NONE) {
    struct sock *s = sock_at(u, u->stalled.head);
    list_remove(u, s);
    sock_wants(u, s);
  }
}

void accept_done(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe) {
  if (!(cqe->flags & IORING_CQE_F_MORE)) {
    s->flags &= ~(uint32_t)(SOCK_RECV | SOCK_RECV_STOP);
    s->inflight--;
    sock_wants(u, s);
  }
  int fd = cqe->res;
  if (fd < 0) {
    /* What ended one connection before it was accepted is nothing to the listener. */
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS)
      if (!(s->flags & SOCK_CLOSING))
        stall(u, s);
    return;
  }
  struct sock *c = s->flags & SOCK_CLOSING ? NULL : sock_take(u, SOCK_CONN, fd);
  if (!c) {
    socket_abort(fd);
    if (!(s->flags & SOCK_CLOSING)) {
      stats_of(u)->kernel_drop_table_full++;
      stall(u, s);
      sock_wants(u, s);
    }
    return;
  }
  c->listener = sock_index(u, s);
  list_append(u, c, LIST_UNACCEPTED);
  if (++s->rx_frames >= s->backlog)
    sock_wants(u, s);
  struct queue *q = queue_of(u, s);
  uint32_t token = token_list_shift(&u->shard->tokens, &q->pops);
  if (token != TOKEN_NONE)
    token_complete(&u->shard->tokens, token, 0, q->user);
}

/* Takes the oldest out of the queue of those that wait to be accepted. */
static void take_out(struct uring *u, struct sock *s, struct sock *c) {
  list_remove(u, c);
  c->listener = SOCK_NONE;
  if (--s->rx_frames <= s->backlog / 2u)
    sock_wants(u, s);
}

static void discard(struct uring *u, struct sock *s, struct sock *c) {
  take_out(u, s, c);
  socket_abort(c->fd);
  c->fd = -1;
  sock_release(u, c);
}

bool accept_deliver(struct uring *u, struct sock *s, hy_event *event) {
  struct queues *queues = &u->shard->queues;
  struct sock *c = NULL;
  hy_addr local;
  while (s->rx.head != SOCK_NONE) {
    c = sock_at(u, s->rx.head);
    if (socket_peer(c->fd, &event->addr) == 0 && socket_local(c->fd, &local) == 0)
      break;
    discard(u, s, c); /* reset by its peer while it waited: there is nobody to accept */
    c = NULL;
  }
  if (!c)
    return false;
  uint32_t index = queue_take(queues, QUEUE_CONN, &u->transport);
  if (index == QUEUE_NONE) {
    event->status = -ENOBUFS; /* it stays in the accept queue */
    return true;
  }
  take_out(u, s, c);
  struct queue *fresh = &queues->slots[index];
  fresh->object = sock_index(u, c);
  fresh->bound = fresh->placed = 1;
  fresh->local = local;
  c->queue = index;
  c->flags |= SOCK_OPEN | (u->files ? SOCK_REGISTER : 0u);
  addr_to_sockaddr(&event->addr, AF_INET6, &c->peer);
  event->accepted = queue_qd(queues, index);
  stats_of(u)->kernel_opened_passive++;
  sock_wants(u, c);
  return true;
}

/* Nobody will accept what waits: their peers are told. The port is free when this returns. */
void listen_close(struct uring *u, struct sock *s) {
  while (s->rx.head != SOCK_NONE)
    discard(u, s, sock_at(u, s->rx.head));
  shutdown(s->fd, SHUT_RDWR);
}

/* ---- as the fallback of a queue that another transport owns -------------------------- */

static struct sock *also_of(const struct uring *u, const struct queue *q) {
  return sock_at(u, (uint32_t)q->also - 1);
}

int stream_listen_also(void *t, struct queue *q, int backlog) {
  struct uring *u = t;
  int fd = socket_open(SOCK_STREAM, q->local.family);
  if (fd < 0)
    return fd;
  int status = socket_bind(fd, &q->local);
  struct sock *s = status == 0 ? sock_take_also(u, fd) : NULL;
  if (!s) {
    close(fd);
    return status < 0 ? status : -ENOBUFS;
  }
  s->queue = queue_index(&u->shard->queues, q);
  status = listen_start(u, s, backlog);
  if (status < 0) {
    close(fd);
    s->fd = -1;
    sock_release(u, s);
    return status;
  }
  q->also = (uint16_t)(sock_index(u, s) + 1);
  return 0;
}

bool stream_also_ready(void *t, const struct queue *q) {
  return also_of(t, q)->rx.head != SOCK_NONE;
}

bool stream_accept_also(void *t, struct queue *q, hy_event *event) {
  return accept_deliver(t, also_of(t, q), event);
}

void stream_close_also(void *t, struct queue *q) {
  struct uring *u = t;
  struct sock *s = also_of(u, q);
  close_start(u, s, false);
}
