/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass: what sockets want is submitted, the kernel is entered once for all of it, completions are taken.
 *
 * The kernel does its part of the work (data that arrives is copied into lent frames) only inside that
 * call (IORING_SETUP_DEFER_TASKRUN), and says by a flag in shared memory that there is some: a pass without
 * anything to do costs two loads.
 */
#include <errno.h>

#include "uring/stream.h"

static void enter(struct uring *u) {
  if (u->sqpoll) {
    unsigned flags = __atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED);
    if (flags & (IORING_SQ_NEED_WAKEUP | IORING_SQ_CQ_OVERFLOW))
      stats_of(u)->kernel_calls++;
    io_uring_submit(&u->ring);
    return;
  }
  /* Where it fails (memory is short, completions overflow), submissions stay for the next pass. */
  stats_of(u)->kernel_calls++;
  io_uring_submit_and_get_events(&u->ring);
  if (io_uring_sq_ready(&u->ring) == 0)
    u->ngathers = STREAM_GATHERS; /* all have been read */
}

bool stream_room(struct uring *u, unsigned sqes) {
  if (io_uring_sq_space_left(&u->ring) >= sqes)
    return true;
  enter(u);
  return io_uring_sq_space_left(&u->ring) >= sqes;
}

/* ---- submissions --------------------------------------------------------------------- */

static void register_run(struct uring *u, struct sock *s) {
  if (s->flags & SOCK_REGISTER) {
    struct io_uring_sqe *sqe = sqe_take(u);
    io_uring_prep_files_update(sqe, &s->fd, 1, (int)sock_index(u, s));
    sqe_counts(s, sqe, op_data(OP_REGISTER, sock_index(u, s)));
    s->flags =
        (s->flags & ~(uint32_t)SOCK_REGISTER) | SOCK_FIXED; /* what is submitted behind finds it there */
  }
  if (s->flags & SOCK_FD_CLOSE) {
    struct io_uring_sqe *sqe = sqe_take(u);
    io_uring_prep_close(sqe, s->fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = op_data(OP_IGNORE, 0);
    s->fd = -1;
    s->flags &= ~(uint32_t)SOCK_FD_CLOSE;
  }
}

static void connect_run(struct uring *u, struct sock *s) {
  struct io_uring_sqe *sqe = sqe_take(u);
  socklen_t len = s->family == AF_INET ? sizeof s->peer.in : sizeof s->peer.in6;
  io_uring_prep_connect(sqe, s->fd, &s->peer.sa, len);
  sqe_counts(s, sqe, op_data(OP_CONNECT, sock_index(u, s)));
  s->flags = (s->flags & ~(uint32_t)SOCK_CONNECT) | SOCK_CONNECTING;
}

static void sock_run(struct uring *u, struct sock *s) {
  if (s->flags & SOCK_CLOSING) {
    close_run(u, s);
    return;
  }
  switch (s->kind) {
  case SOCK_LISTENER:
    listen_run(u, s);
    break;
  case SOCK_CONN:
    if (s->flags & SOCK_CONNECT)
      connect_run(u, s);
    if (s->flags & (SOCK_REGISTER | SOCK_FD_CLOSE))
      register_run(u, s);
    recv_run(u, s);
    send_run(u, s);
    break;
  case SOCK_DATAGRAMS:
    recv_run(u, s);
    break;
  default:
    break;
  }
}

static void run(struct uring *u) {
  while (u->run_head != SOCK_NONE && stream_room(u, STREAM_SQES_EACH)) {
    struct sock *s = sock_at(u, u->run_head);
    u->run_head = s->run_next;
    s->flags &= ~(uint32_t)SOCK_WANTS;
    if (s->kind == SOCK_FREE)
      sock_recycle(u, s);
    else
      sock_run(u, s);
  }
}

/* ---- completions --------------------------------------------------------------------- */

static void connect_done(struct uring *u, struct sock *s, int result) {
  s->flags &= ~(uint32_t)SOCK_CONNECTING;
  if (s->flags & SOCK_CLOSING)
    return;
  uint32_t token = s->connect_token;
  s->connect_token = TOKEN_NONE;
  if (result < 0) {
    s->error = result;
    s->flags |= SOCK_RX_END;
  } else {
    socket_local(s->fd, &queue_of(u, s)->local);
    s->flags |= SOCK_OPEN | (u->files ? SOCK_REGISTER : 0u);
    stats_of(u)->kernel_opened_active++;
    sock_wants(u, s);
  }
  if (token != TOKEN_NONE)
    stream_complete(u, s, token, result);
  recv_wake(u, s);
}

static void register_done(struct uring *u, struct sock *s, int result) {
  if (result == 1) {
    s->flags |= SOCK_FD_CLOSE;
  } else { /* it goes on by its descriptor */
    s->flags &= ~(uint32_t)SOCK_FIXED;
  }
  sock_wants(u, s);
}

static void completed(struct uring *u, const struct io_uring_cqe *cqe) {
  enum stream_op op = (enum stream_op)(cqe->user_data >> 32);
  uint32_t index = (uint32_t)cqe->user_data;
  struct sock *s;
  switch (op) {
  case OP_RECV:
    s = sock_at(u, index);
    recv_done(u, s, cqe);
    break;
  case OP_SEND:
    s = sock_at(u, index);
    s->inflight--;
    send_done(u, s, cqe);
    break;
  case OP_SEND_ZEROCOPY:
    s = sock_at(u, u->zerocopies[index].sock);
    zerocopy_done(u, index, cqe);
    break;
  case OP_RECV_DGRAM:
    s = sock_at(u, index);
    dgram_received(u, s, cqe);
    break;
  case OP_SEND_DGRAM:
    s = sock_at(u, u->dgrams[index].sock);
    dgram_sent(u, index, cqe->res);
    break;
  case OP_ACCEPT:
    s = sock_at(u, index);
    accept_done(u, s, cqe);
    break;
  case OP_CONNECT:
    s = sock_at(u, index);
    s->inflight--;
    connect_done(u, s, cqe->res);
    break;
  case OP_REGISTER:
    s = sock_at(u, index);
    s->inflight--;
    register_done(u, s, cqe->res);
    break;
  case OP_ASK:
    s = sock_at(u, index);
    s->inflight--;
    recv_asked(u, s, cqe->res);
    break;
  case OP_SHUTDOWN:
  case OP_RESET:
  case OP_CLOSE:
    s = sock_at(u, index);
    s->inflight--;
    break;
  default:
    return;
  }
  close_look(u, s);
}

static unsigned reap(struct uring *u) {
  unsigned head, n = 0;
  struct io_uring_cqe *cqe;
  io_uring_for_each_cqe(&u->ring, head, cqe) {
    completed(u, cqe);
    n++;
  }
  io_uring_cq_advance(&u->ring, n);
  return n;
}

/* ---- the pass -------------------------------------------------------------------------- */

static bool start(struct uring *u) {
  /* Not io_uring_register_ring_fd(): the thread would keep the ring, and its sockets, open behind our back.
   */
  u->started = uring_ring_start(&u->ring) == 0;
  return u->started;
}

/*
 * Completions wait for the application: it goes first, so that all its answers leave in one call, and those
 * of one connection in one send. Not for ever, as it may leave them unread.
 */
static bool application_first(struct uring *u) {
  if (u->shard->tokens.ready_head == TOKEN_NONE || u->yielded == STREAM_YIELDS) {
    u->yielded = 0;
    return false;
  }
  u->yielded++;
  return true;
}

unsigned stream_progress(void *t, uint64_t now) {
  struct uring *u = t;
  if (application_first(u))
    return 0;
  return stream_pass(u, now);
}

unsigned stream_pass(struct uring *u, uint64_t now) {
  u->now = now;
  if (__builtin_expect(!u->started, 0) && !start(u))
    return 0;
  if (u->bell.armed)
    uring_bell_disarm(&u->bell, &u->ring);
  if (u->lent_count < u->slots)
    lent_refill(u);
  if (u->closing.head != SOCK_NONE)
    close_expire(u);
  if (u->stalled.head != SOCK_NONE && now >= u->stalled_at)
    listen_retry(u);
  if (u->run_head != SOCK_NONE)
    run(u);
  if (io_uring_sq_ready(&u->ring) > 0 || uring_ring_wants_call(&u->ring))
    enter(u);
  return reap(u);
}

uint64_t stream_deadline(void *t) {
  const struct uring *u = t;
  uint64_t first = u->closing.head == SOCK_NONE ? UINT64_MAX : sock_at(u, u->closing.head)->at;
  if (u->stalled.head != SOCK_NONE && u->stalled_at < first)
    first = u->stalled_at;
  return first;
}

/* A pass that was left to the application is still owed: nothing may be slept through before it. */
static bool busy(const struct uring *u) {
  return u->yielded > 0 || u->run_head != SOCK_NONE || io_uring_sq_ready(&u->ring) > 0 ||
         io_uring_cq_ready(&u->ring) > 0 || uring_ring_wants_call(&u->ring);
}

int stream_wait_arm(void *t) {
  struct uring *u = t;
  if (!u->started || busy(u))
    return 1;
  uring_bell_arm(&u->bell, &u->ring); /* the next pass switches it off again */
  return busy(u);
}

int stream_wait_fd(void *t) {
  const struct uring *u = t;
  return u->bell.fd;
}

int stream_sleep(void *t, uint64_t ns) {
  struct uring *u = t;
  if (!u->started || busy(u))
    return 0;
  struct __kernel_timespec ts = {.tv_sec = (int64_t)(ns / NS_PER_S), .tv_nsec = (int64_t)(ns % NS_PER_S)};
  struct io_uring_cqe *cqe;
  stats_of(u)->kernel_calls++;
  int rc = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
  return rc == -EINTR ? -EINTR : 0;
}
