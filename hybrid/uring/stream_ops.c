/* SPDX-License-Identifier: Apache-2.0 */
/* What the application asks for: the transport table of kernel sockets. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/addr.h"
#include "uring/stream.h"

static struct sock *sock_of(const struct uring *u, const struct queue *q) {
  return sock_at(u, q->object);
}

static void own(struct uring *u, struct queue *q, struct sock *s) {
  q->object = sock_index(u, s);
  s->queue = queue_index(&u->shard->queues, q);
}

static int op_bind(void *t, struct queue *q, const hy_addr *local) {
  struct uring *u = t;
  if (q->bound || (q->kind != QUEUE_STREAM && q->kind != QUEUE_DGRAM))
    return -EINVAL;
  bool stream = q->kind == QUEUE_STREAM;
  int fd = socket_open(stream ? SOCK_STREAM : SOCK_DGRAM, local->family);
  if (fd < 0)
    return fd;
  hy_addr bound;
  int rc = socket_bind(fd, local);
  if (rc == 0)
    rc = socket_local(fd, &bound);
  struct sock *s = rc == 0 ? sock_take(u, stream ? SOCK_BOUND : SOCK_DATAGRAMS, fd) : NULL;
  if (!s) {
    close(fd);
    return rc < 0 ? rc : -ENOBUFS;
  }
  own(u, q, s);
  s->family = (uint8_t)socket_family(fd);
  q->local = *local;
  q->local.port = bound.port;
  q->bound = 1;
  if (!stream) {
    s->flags |= SOCK_OPEN;
    s->rx_limit = STREAM_DGRAM_FRAMES;
    sock_wants(u, s);
  }
  return 0;
}

static int op_listen(void *t, struct queue *q, int backlog) {
  struct uring *u = t;
  if (q->kind != QUEUE_STREAM || !q->bound || backlog < 1 || backlog > 65535)
    return -EINVAL;
  int rc = listen_start(u, sock_of(u, q), backlog);
  if (rc == 0)
    q->kind = QUEUE_LISTENER;
  return rc;
}

static int op_accept(void *t, struct queue *q, uint32_t token) {
  struct uring *u = t;
  if (q->kind != QUEUE_LISTENER)
    return -EINVAL;
  struct tokens *tokens = &u->shard->tokens;
  token_list_push(tokens, &q->pops, token);
  if (sock_of(u, q)->rx.head != SOCK_NONE)
    token_complete(tokens, token_list_shift(tokens, &q->pops), 0, q->user);
  return 0;
}

static int bind_any(struct uring *u, struct queue *q, uint8_t family) {
  hy_addr any = addr_any(family);
  return op_bind(u, q, &any);
}

static int connect_datagrams(struct uring *u, struct queue *q, const hy_addr *peer, uint32_t token) {
  int rc = q->bound ? 0 : bind_any(u, q, peer->family);
  if (rc < 0)
    return rc;
  struct sock *s = sock_of(u, q);
  rc = socket_connect(s->fd, peer);
  if (rc < 0)
    return rc;
  addr_to_sockaddr(peer, s->family, &s->peer);
  token_complete(&u->shard->tokens, token, 0, q->user);
  return 0;
}

static int op_connect(void *t, struct queue *q, const hy_addr *peer, uint32_t token) {
  struct uring *u = t;
  if (q->kind == QUEUE_DGRAM)
    return connect_datagrams(u, q, peer, token);
  if (q->kind != QUEUE_STREAM)
    return q->kind == QUEUE_CONN ? -EISCONN : -EINVAL;
  struct sock *s;
  if (q->bound) {
    s = sock_of(u, q);
    if (!sock_becomes_conn(u, s))
      return -ENOBUFS;
  } else {
    int fd = socket_open(SOCK_STREAM, peer->family);
    if (fd < 0)
      return fd;
    s = sock_take(u, SOCK_CONN, fd);
    if (!s) {
      close(fd);
      return -ENOBUFS;
    }
    own(u, q, s);
    s->family = peer->family == 4 ? AF_INET : AF_INET6;
  }
  addr_to_sockaddr(peer, s->family, &s->peer);
  s->connect_token = token;
  s->flags |= SOCK_CONNECT;
  q->kind = QUEUE_CONN;
  sock_wants(u, s);
  return 0;
}

static int push_datagram(struct uring *u, struct queue *q, const hy_sga *sga, const hy_addr *peer,
                         uint32_t token, bool give) {
  if (q->kind != QUEUE_DGRAM)
    return q->kind == QUEUE_STREAM ? -ENOTCONN : -EINVAL;
  if (!q->bound) {
    int rc = peer ? bind_any(u, q, peer->family) : -EDESTADDRREQ;
    if (rc < 0)
      return rc;
  }
  struct sock *s = sock_of(u, q);
  if (!peer && s->peer.sa.sa_family == AF_UNSPEC)
    return -EDESTADDRREQ;
  if (peer && (peer->port == 0 || (q->local.family != 0 && q->local.family != peer->family)))
    return -EINVAL;
  return dgram_push(u, s, sga, peer, token, give);
}

static int op_push(void *t, struct queue *q, const hy_sga *sga, const hy_addr *peer, uint32_t token,
                   bool give) {
  if (__builtin_expect(q->kind != QUEUE_CONN, 0))
    return push_datagram(t, q, sga, peer, token, give);
  return peer ? -EISCONN : send_push(t, sock_of(t, q), sga, token, give);
}

static int op_pop(void *t, struct queue *q, uint32_t token) {
  struct uring *u = t;
  if (q->kind != QUEUE_CONN && q->kind != QUEUE_DGRAM)
    return q->kind == QUEUE_STREAM ? -ENOTCONN : -EINVAL;
  if (q->kind == QUEUE_DGRAM && !q->bound)
    return -EINVAL;
  struct sock *s = sock_of(u, q);
  if (s->flags & (SOCK_CONNECT | SOCK_CONNECTING))
    return -ENOTCONN;
  token_list_push(&u->shard->tokens, &q->pops, token);
  if (q->kind == QUEUE_CONN)
    recv_wake(u, s);
  else
    dgram_wake(u, s);
  return 0;
}

static int op_drain(void *t, struct queue *q, uint32_t token) {
  struct uring *u = t;
  if (q->kind != QUEUE_CONN)
    return q->kind == QUEUE_STREAM ? -ENOTCONN : -EINVAL;
  struct sock *s = sock_of(u, q);
  if (s->error != 0)
    return s->error;
  token_list_push(&u->shard->tokens, &q->drains, token);
  send_wake_drains(u, s);
  return 0;
}

static void op_cancel(void *t, struct queue *q, uint32_t token) {
  struct uring *u = t;
  struct tokens *tokens = &u->shard->tokens;
  if (token_list_remove(tokens, &q->pops, token) || token_list_remove(tokens, &q->drains, token))
    return;
  if (q->kind == QUEUE_DGRAM) {
    dgram_forget_token(u, token);
  } else if (q->kind == QUEUE_CONN) {
    struct sock *s = sock_of(u, q);
    if (s->connect_token == token)
      s->connect_token = TOKEN_NONE;
    else
      send_forget_token(u, s, token);
  }
}

static int op_shutdown(void *t, struct queue *q) {
  struct uring *u = t;
  if (q->kind != QUEUE_CONN)
    return -ENOTCONN;
  struct sock *s = sock_of(u, q);
  if (s->error != 0)
    return s->error;
  if (!(s->flags & SOCK_OPEN))
    return -ENOTCONN;
  s->flags |= SOCK_SHUT;
  sock_wants(u, s);
  return 0;
}

static void op_close(void *t, struct queue *q, bool hard) {
  struct uring *u = t;
  struct tokens *tokens = &u->shard->tokens;
  uint32_t token;
  while ((token = token_list_shift(tokens, &q->pops)) != TOKEN_NONE)
    token_complete(tokens, token, -ECANCELED, q->user);
  while ((token = token_list_shift(tokens, &q->drains)) != TOKEN_NONE)
    token_complete(tokens, token, -ECANCELED, q->user);
  if (q->object == QUEUE_NONE)
    return;
  struct sock *s = sock_of(u, q);
  if (s->connect_token != TOKEN_NONE)
    token_complete(tokens, s->connect_token, -ECANCELED, q->user);
  s->connect_token = TOKEN_NONE;
  send_cancel_tokens(u, s, -ECANCELED);
  if (s->kind == SOCK_DATAGRAMS)
    dgram_cancel_tokens(u, s);
  close_start(u, s, hard);
}

static int op_peer(void *t, const struct queue *q, hy_addr *out) {
  if ((q->kind != QUEUE_CONN && q->kind != QUEUE_DGRAM) || q->object == QUEUE_NONE)
    return -ENOTCONN;
  const struct sock *s = sock_of(t, q);
  if (s->peer.sa.sa_family == AF_UNSPEC)
    return -ENOTCONN;
  addr_from_sockaddr(&s->peer, out);
  return 0;
}

static bool op_deliver(void *t, struct queue *q, const struct token *token, hy_event *event) {
  struct uring *u = t;
  if (token->status < 0)
    return true;
  if (token->op == HY_OP_POP) {
    if (q->kind == QUEUE_CONN)
      recv_deliver(u, sock_of(u, q), event);
    else
      dgram_deliver(u, sock_of(u, q), event);
    return true;
  }
  return token->op == HY_OP_ACCEPT ? accept_deliver(u, sock_of(u, q), event) : true;
}

const struct transport_ops stream_transport = {
    .name = "kernel",
    .bind = op_bind,
    .listen = op_listen,
    .accept = op_accept,
    .connect = op_connect,
    .push = op_push,
    .pop = op_pop,
    .drain = op_drain,
    .cancel = op_cancel,
    .shutdown = op_shutdown,
    .close = op_close,
    .peer = op_peer,
    .deliver = op_deliver,
    .listen_also = stream_listen_also,
    .also_ready = stream_also_ready,
    .accept_also = stream_accept_also,
    .close_also = stream_close_also,
    .progress = stream_progress,
    .deadline = stream_deadline,
    .wait_arm = stream_wait_arm,
    .wait_fd = stream_wait_fd,
    .sleep = stream_sleep,
    .fini = stream_fini,
};
