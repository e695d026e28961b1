/* SPDX-License-Identifier: Apache-2.0 */
/* What the application asks for: the transport table of the common stack. */
#include "tcp/ops.h"

#include <errno.h>

#include "tcp/tcp.h"
#include "tcp/udp.h"

void sga_drop(struct stack *st, const hy_sga *sga) {
  for (uint32_t i = 0; i < sga->nsegs; i++)
    frame_unref(st->arena, sga->segs[i].frame);
  *st->app_frames -= sga->nsegs;
}

static bool tuple_taken(struct stack *st, const struct flow_key *key) {
  uint32_t hash = flow_key_hash(&st->flows, key);
  for (uint32_t i = hash & st->flows.mask; st->flows.entries[i].conn != FLOW_NONE;
       i = (i + 1) & st->flows.mask)
    if (st->flows.entries[i].hash == hash &&
        flow_key_equal(&conn_at(st, st->flows.entries[i].conn)->key, key))
      return true;
  return false;
}

uint16_t port_choose(struct stack *st, bool tcp, const hy_addr *local, const hy_addr *remote) {
  uint32_t range = (uint32_t)(st->port_hi - st->port_lo) + 1;
  struct flow_key key = {0};
  memcpy(key.local, local->ip, 16);
  if (remote) {
    memcpy(key.remote, remote->ip, 16);
    key.remote_port = remote->port;
  }
  uint8_t secret[16];
  memcpy(secret, st->port_secret, 16);
  uint32_t offset = (uint32_t)siphash24(secret, &key, sizeof key);
  for (uint32_t tries = 0; tries < range; tries++) {
    hy_addr candidate = *local;
    candidate.port = (uint16_t)(st->port_lo + (offset + st->port_counter++) % range);
    key.local_port = candidate.port;
    if (tcp ? port_taken(st, &candidate) || (remote && tuple_taken(st, &key))
            : udp_port_taken(st, &candidate))
      continue;
    return candidate.port;
  }
  return 0;
}

static int op_bind(void *t, struct queue *q, const hy_addr *local) {
  struct stack *st = t;
  if (q->bound || (q->kind != QUEUE_STREAM && q->kind != QUEUE_DGRAM))
    return -EINVAL;
  hy_addr addr = *local;
  if (addr.family != 0 && !ip_is_zero(addr.ip) && !host_is_local(&st->host, addr.ip))
    return -EADDRNOTAVAIL;
  bool tcp = q->kind == QUEUE_STREAM;
  if (addr.port == 0) {
    addr.port = port_choose(st, tcp, &addr, NULL);
    if (addr.port == 0)
      return -EADDRINUSE;
  } else if (tcp ? port_taken(st, &addr) : udp_port_taken(st, &addr)) {
    return -EADDRINUSE;
  }
  int rc = tcp ? 0 : udp_open(st, q, &addr);
  if (rc < 0)
    return rc;
  q->local = addr;
  q->bound = 1;
  return 0;
}

static int op_listen(void *t, struct queue *q, int backlog) {
  struct stack *st = t;
  if (q->kind != QUEUE_STREAM || !q->bound || backlog < 1 || backlog > 65535)
    return -EINVAL;
  if (port_taken(st, &q->local)) /* somebody was quicker since bind */
    return -EADDRINUSE;
  return listener_open(st, q, backlog);
}

static int op_accept(void *t, struct queue *q, uint32_t token) {
  struct stack *st = t;
  if (q->kind != QUEUE_LISTENER)
    return -EINVAL;
  token_list_push(st->tokens, &q->pops, token);
  if (st->listeners[q->object].accept_head != CONN_NONE)
    token_complete(st->tokens, token_list_shift(st->tokens, &q->pops), 0, q->user);
  return 0;
}

static int connect_datagram(struct stack *st, struct queue *q, const hy_addr *peer, uint32_t token) {
  if (!q->bound) {
    hy_addr any = addr_any(peer->family);
    int rc = op_bind(st, q, &any);
    if (rc < 0)
      return rc;
  }
  st->udp[q->object].peer = *peer;
  token_complete(st->tokens, token, 0, q->user);
  return 0;
}

static int op_connect(void *t, struct queue *q, const hy_addr *peer, uint32_t token) {
  struct stack *st = t;
  if (q->kind == QUEUE_DGRAM)
    return connect_datagram(st, q, peer, token);
  if (q->kind != QUEUE_STREAM)
    return q->kind == QUEUE_CONN ? -EISCONN : -EINVAL;
  struct path path;
  hy_addr local = {.family = peer->family};
  int rc = path_lookup(st, peer->ip, STACK_LINKS, &path, local.ip);
  if (rc < 0)
    return rc;
  if (q->bound && q->local.family != 0 && !ip_is_zero(q->local.ip))
    memcpy(local.ip, q->local.ip, 16);
  local.port = q->bound ? q->local.port : port_choose(st, true, &local, peer);
  if (local.port == 0)
    return -EADDRNOTAVAIL;
  struct flow_key key = {.remote_port = peer->port, .local_port = local.port};
  memcpy(key.remote, peer->ip, 16);
  memcpy(key.local, local.ip, 16);
  if (tuple_taken(st, &key))
    return -EADDRINUSE;
  struct tcp_conn *c = conn_new(st, &key, peer->family == 4);
  if (!c)
    return -ENOBUFS;
  c->path = path;
  c->advertised_mss = (uint16_t)(path.mtu_bytes - (peer->family == 4 ? IP4_LEN : IP6_LEN) - TCP_LEN);
  c->mss = c->advertised_mss;
  c->state = TCP_SYN_SENT;
  c->queue = queue_index(st->queues, q);
  c->connect_token = token;
  conn_choose_iss(st, c);
  q->kind = QUEUE_CONN;
  q->object = conn_index(st, c);
  q->local = local;
  conn_wants_output(st, c);
  return 0;
}

/* At the end of what is to be sent. The caller has seen to it that there is a node. */
static inline void queue_piece(struct stack *st, struct tcp_conn *c, const hy_seg *seg) {
  uint32_t n = st->tx_node_free, len = seg->len_bytes;
  struct tx_node *fresh = &st->tx_nodes[n];
  st->tx_node_free = fresh->next;
  fresh->next = NODE_NONE;
  fresh->seq = c->write_seq;
  fresh->len = len;
  fresh->frame = seg->frame;
  fresh->token = TOKEN_NONE;
  fresh->off = (uint16_t)((uint8_t *)seg->addr - frame_base(st->arena, seg->frame));
  if (c->tx_head == NODE_NONE)
    c->tx_head = n;
  else
    st->tx_nodes[c->tx_tail].next = n;
  c->tx_tail = n;
  if (c->tx_next == NODE_NONE)
    c->tx_next = n;
  c->write_seq += len;
}

static inline int stream_push(struct stack *st, struct queue *q, const hy_sga *sga, uint32_t token,
                              bool give) {
  struct tcp_conn *c = conn_at(st, q->object);
  if (c->state == TCP_CLOSED)
    return c->error ? c->error : -EPIPE;
  if (c->flags & CONN_SHUT)
    return -EPIPE;
  if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RCVD)
    return -ENOTCONN;
  uint32_t bytes = 0, queued = c->write_seq - c->snd_una;
  for (uint32_t i = 0; i < sga->nsegs; i++)
    bytes += sga->segs[i].len_bytes;
  if (bytes == 0) {
    if (token != TOKEN_NONE)
      token_complete(st->tokens, token, 0, q->user);
    if (give)
      sga_drop(st, sga);
    return 0;
  }
  if (queued > 0 && queued + bytes > conn_send_limit(st))
    return -EAGAIN;
  uint32_t node = st->tx_node_free;
  for (uint32_t i = 0; i < sga->nsegs; i++, node = st->tx_nodes[node].next)
    if (node == NODE_NONE)
      return queued > 0 ? -EAGAIN : -ENOBUFS;
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    const hy_seg *seg = &sga->segs[i];
    if (!give)
      frame_ref(st->arena, seg->frame);
    if (seg->len_bytes == 0)
      frame_unref(st->arena, seg->frame);
    else
      queue_piece(st, c, seg);
  }
  st->tx_nodes[c->tx_tail].token = token;
  if (give)
    *st->app_frames -= sga->nsegs;
  conn_wants_output(st, c);
  return 0;
}

static __attribute__((noinline)) int datagram_push(struct stack *st, struct queue *q, const hy_sga *sga,
                                                   const hy_addr *peer, uint32_t token, bool give) {
  if (q->kind != QUEUE_DGRAM)
    return q->kind == QUEUE_STREAM ? -ENOTCONN : -EINVAL;
  if (!q->bound) {
    if (!peer)
      return -EDESTADDRREQ;
    hy_addr any = addr_any(peer->family);
    int rc = op_bind(st, q, &any);
    if (rc < 0)
      return rc;
  }
  return udp_push(st, q, sga, peer, token, give);
}

static int op_push(void *t, struct queue *q, const hy_sga *sga, const hy_addr *peer, uint32_t token,
                   bool give) {
  if (__builtin_expect(q->kind != QUEUE_CONN, 0))
    return datagram_push(t, q, sga, peer, token, give);
  return peer ? -EISCONN : stream_push(t, q, sga, token, give);
}

static int op_pop(void *t, struct queue *q, uint32_t token) {
  struct stack *st = t;
  if (q->kind == QUEUE_CONN) {
    struct tcp_conn *c = conn_at(st, q->object);
    if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RCVD)
      return -ENOTCONN;
    token_list_push(st->tokens, &q->pops, token);
    conn_wake_reader(st, c);
    return 0;
  }
  if (q->kind != QUEUE_DGRAM)
    return q->kind == QUEUE_STREAM ? -ENOTCONN : -EINVAL;
  if (!q->bound)
    return -EINVAL;
  token_list_push(st->tokens, &q->pops, token);
  udp_wake(st, q);
  return 0;
}

static int op_drain(void *t, struct queue *q, uint32_t token) {
  struct stack *st = t;
  if (q->kind != QUEUE_CONN)
    return q->kind == QUEUE_STREAM ? -ENOTCONN : -EINVAL;
  struct tcp_conn *c = conn_at(st, q->object);
  if (c->state == TCP_CLOSED)
    return c->error ? c->error : -EPIPE;
  token_list_push(st->tokens, &q->drains, token);
  conn_wake_drains(st, c);
  return 0;
}

static void op_cancel(void *t, struct queue *q, uint32_t token) {
  struct stack *st = t;
  if (token_list_remove(st->tokens, &q->pops, token) || token_list_remove(st->tokens, &q->drains, token))
    return;
  if (q->kind != QUEUE_CONN)
    return;
  struct tcp_conn *c = conn_at(st, q->object);
  if (c->connect_token == token) {
    c->connect_token = TOKEN_NONE;
    return;
  }
  for (uint32_t n = c->tx_head; n != NODE_NONE; n = st->tx_nodes[n].next)
    if (st->tx_nodes[n].token == token) /* the bytes are on their way; only the notice is cancelled */
      st->tx_nodes[n].token = TOKEN_NONE;
}

/* The FIN is queued behind what was pushed. */
static void start_closing(struct stack *st, struct tcp_conn *c) {
  if (c->flags & CONN_SHUT)
    return;
  c->flags |= CONN_SHUT;
  c->state = c->state == TCP_CLOSE_WAIT ? TCP_LAST_ACK : TCP_FIN_WAIT_1;
  conn_predict(c);
  conn_wants_output(st, c);
}

static int op_shutdown(void *t, struct queue *q) {
  struct stack *st = t;
  if (q->kind != QUEUE_CONN)
    return -ENOTCONN;
  struct tcp_conn *c = conn_at(st, q->object);
  if (c->state == TCP_CLOSED)
    return c->error ? c->error : -ENOTCONN;
  if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RCVD)
    return -ENOTCONN;
  start_closing(st, c);
  return 0;
}

static void cancel_all(struct stack *st, struct queue *q, struct token_list *list) {
  uint32_t token;
  while ((token = token_list_shift(st->tokens, list)) != TOKEN_NONE)
    token_complete(st->tokens, token, -ECANCELED, q->user);
}

static void close_conn(struct stack *st, struct queue *q, bool hard) {
  struct tcp_conn *c = conn_at(st, q->object);
  if (c->connect_token != TOKEN_NONE) {
    token_complete(st->tokens, c->connect_token, -ECANCELED, q->user);
    c->connect_token = TOKEN_NONE;
  }
  for (uint32_t n = c->tx_head; n != NODE_NONE; n = st->tx_nodes[n].next) {
    if (st->tx_nodes[n].token != TOKEN_NONE)
      token_complete(st->tokens, st->tx_nodes[n].token, -ECANCELED, q->user);
    st->tx_nodes[n].token = TOKEN_NONE;
  }
  bool unread = c->rxq_head != FRAME_NONE;
  c->queue = QUEUE_NONE;
  conn_drop_rx(st, c);
  if (c->state == TCP_CLOSED || c->state == TCP_SYN_SENT) {
    conn_free(st, c);
  } else if (c->state == TCP_TIME_WAIT) {
    return; /* the timer frees it */
  } else if (hard || unread || c->state == TCP_SYN_RCVD) {
    st->stats->tcp_resets_out++;
    tcp_send_control(st, c, TCP_RST | TCP_ACK, c->snd_max);
    conn_free(st, c);
  } else {
    start_closing(st, c);
    if (c->state == TCP_FIN_WAIT_2)
      c->close_at = st->now + TCP_FIN_WAIT2_NS;
    conn_arm(st, c);
  }
}

static void op_close(void *t, struct queue *q, bool hard) {
  struct stack *st = t;
  cancel_all(st, q, &q->pops);
  cancel_all(st, q, &q->drains);
  if (q->kind == QUEUE_CONN)
    close_conn(st, q, hard);
  else if (q->kind == QUEUE_LISTENER)
    listener_close(st, q->object);
  else if (q->kind == QUEUE_DGRAM)
    udp_close(st, q);
}

static int op_peer(void *t, const struct queue *q, hy_addr *out) {
  struct stack *st = t;
  if (q->kind == QUEUE_CONN) {
    const struct tcp_conn *c = conn_at(st, q->object);
    addr_from_ip(out, c->key.remote, c->key.remote_port, c->flags & CONN_IP4);
    return 0;
  }
  if (q->kind == QUEUE_DGRAM && q->object != QUEUE_NONE && st->udp[q->object].peer.family != 0) {
    *out = st->udp[q->object].peer;
    return 0;
  }
  return -ENOTCONN;
}

static void deliver_stream(struct stack *st, struct queue *q, hy_event *event) {
  struct tcp_conn *c = conn_at(st, q->object);
  if (!(c->flags & CONN_POP_READY))
    return; /* end of stream */
  c->flags &= (uint16_t)~CONN_POP_READY;
  hy_sga *sga = &event->sga;
  uint32_t held = *st->app_frames, room = held < st->app_frames_max ? st->app_frames_max - held : 0;
  uint32_t most = room < HY_SGA_SEGS ? room : HY_SGA_SEGS;
  if (most == 0) {
    event->status = -ENOBUFS; /* the data stays for the next pop */
  } else {
    const struct arena *arena = st->arena;
    uint32_t frame = c->rxq_head, nsegs = 0, bytes = 0;
    for (; frame != FRAME_NONE && nsegs < most; nsegs++) {
      const struct frame *f = frame_meta(arena, frame);
      hy_seg *seg = &sga->segs[nsegs];
      seg->addr = frame_base(arena, frame) + f->off;
      seg->len_bytes = f->len;
      seg->frame = frame;
      bytes += f->len;
      frame = f->next;
    }
    sga->nsegs = nsegs;
    c->rxq_head = frame;
    c->rxq_bytes -= bytes;
    *st->app_frames += nsegs;
    /* Doubles with each window's worth that is read: a reader that sleeps ties up little. */
    uint32_t grown = c->rcv_limit + bytes;
    c->rcv_limit = grown < st->rcvbuf_bytes ? grown : st->rcvbuf_bytes;
    conn_window_update(st, c);
  }
  conn_wake_reader(st, c);
}

static __attribute__((noinline)) bool deliver_accept(struct stack *st, struct queue *q, hy_event *event) {
  struct tcp_listener *l = &st->listeners[q->object];
  if (l->accept_head == CONN_NONE)
    return false;
  uint32_t index = queue_take(st->queues, QUEUE_CONN, q->transport);
  if (index == QUEUE_NONE) {
    event->status = -ENOBUFS; /* it stays in the accept queue */
    return true;
  }
  uint32_t taken = listener_take_accepted(st, q->object);
  struct tcp_conn *c = conn_at(st, taken);
  struct queue *fresh = &st->queues->slots[index];
  c->queue = index;
  fresh->object = taken;
  fresh->bound = fresh->placed = 1;
  addr_from_ip(&fresh->local, c->key.local, c->key.local_port, c->flags & CONN_IP4);
  addr_from_ip(&event->addr, c->key.remote, c->key.remote_port, c->flags & CONN_IP4);
  event->accepted = queue_qd(st->queues, index);
  return true;
}

static bool op_deliver(void *t, struct queue *q, const struct token *token, hy_event *event) {
  struct stack *st = t;
  if (token->status < 0)
    return true;
  if (token->op == HY_OP_POP && q->kind == QUEUE_CONN) {
    deliver_stream(st, q, event);
    return true;
  }
  return token->op == HY_OP_ACCEPT ? deliver_accept(st, q, event)
         : token->op == HY_OP_POP  ? udp_deliver(st, q, event)
                                   : true;
}

const struct transport_ops stack_transport = {
    .name = "stack",
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
};
