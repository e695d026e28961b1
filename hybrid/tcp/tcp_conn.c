/* SPDX-License-Identifier: Apache-2.0 */
/* A connection's birth and death, and the tables it lives in. */
#include <errno.h>
#include <stdlib.h>

#include "tcp/csum.h"
#include "tcp/tcp.h"

int tcp_init(struct stack *st, const hy_config *limits) {
  uint64_t secret[6];
  rng_fill(&st->rng, secret, sizeof secret);
  rng_fill(&st->rng, st->isn_key, sizeof st->isn_key);
  rng_fill(&st->rng, st->port_secret, sizeof st->port_secret);
  st->nconns = limits->connections;
  st->nlisteners = limits->sockets < 4096 ? limits->sockets : 4096;
  uint32_t nodes = limits->frames, ranges = limits->frames / 4;
  st->conns = aligned_alloc(64, (size_t)st->nconns * sizeof(struct tcp_conn));
  st->tx_nodes = calloc(nodes, sizeof *st->tx_nodes);
  st->ranges = calloc(ranges, sizeof *st->ranges);
  st->listeners = calloc(st->nlisteners, sizeof *st->listeners);
  st->tcp_ports = calloc(65536, sizeof *st->tcp_ports);
  if (!st->conns || !st->tx_nodes || !st->ranges || !st->listeners || !st->tcp_ports)
    return -ENOMEM;
  for (uint32_t i = 0; i < st->nconns; i++)
    st->conns[i] = (struct tcp_conn){.tx_head = NODE_NONE,
                                     .rxq_head = FRAME_NONE,
                                     .ooo = RANGE_NONE,
                                     .queue = QUEUE_NONE,
                                     .timer_at = UINT64_MAX,
                                     .next = i + 1 < st->nconns ? i + 1 : CONN_NONE};
  for (uint32_t i = 0; i < nodes; i++)
    st->tx_nodes[i].next = i + 1 < nodes ? i + 1 : NODE_NONE;
  for (uint32_t i = 0; i < ranges; i++)
    st->ranges[i].next = i + 1 < ranges ? i + 1 : RANGE_NONE;
  if (ranges == 0)
    st->range_free = RANGE_NONE;
  for (uint32_t i = 0; i < st->nlisteners; i++)
    st->listeners[i] =
        (struct tcp_listener){.queue = QUEUE_NONE, .next = i + 1 < st->nlisteners ? i + 1 : CONN_NONE};
  st->time_wait_head = st->time_wait_tail = CONN_NONE;
  while (st->rcv_wscale < 14 && (65535u << st->rcv_wscale) < st->rcvbuf_bytes)
    st->rcv_wscale++;
  st->out_head = st->out_tail = CONN_NONE;
  int rc = wheel_init(&st->wheel, st->nconns, st->now);
  if (rc == 0)
    rc = flow_table_init(&st->flows, st->nconns, secret);
  return rc;
}

void tcp_fini(struct stack *st) {
  for (uint32_t i = 0; st->conns && i < st->nconns; i++) {
    struct tcp_conn *c = &st->conns[i];
    conn_drop_tx(st, c, -ECANCELED);
    conn_drop_rx(st, c);
    reass_drop(st, c);
  }
  flow_table_fini(&st->flows);
  wheel_fini(&st->wheel);
  free(st->conns);
  free(st->tx_nodes);
  free(st->ranges);
  free(st->listeners);
  free(st->tcp_ports);
}

/* ---- TIME_WAIT, oldest first ---------------------------------------------- */

static void time_wait_push(struct stack *st, struct tcp_conn *c) {
  uint32_t index = conn_index(st, c);
  c->next = CONN_NONE;
  c->prev = st->time_wait_tail;
  if (st->time_wait_tail == CONN_NONE)
    st->time_wait_head = index;
  else
    st->conns[st->time_wait_tail].next = index;
  st->time_wait_tail = index;
}

static void time_wait_remove(struct stack *st, struct tcp_conn *c) {
  if (c->prev == CONN_NONE)
    st->time_wait_head = c->next;
  else
    st->conns[c->prev].next = c->next;
  if (c->next == CONN_NONE)
    st->time_wait_tail = c->prev;
  else
    st->conns[c->next].prev = c->prev;
}

/* Gives up the oldest TIME_WAIT that nobody holds a qd of. */
static bool time_wait_recycle(struct stack *st) {
  for (uint32_t i = st->time_wait_head; i != CONN_NONE; i = st->conns[i].next) {
    if (st->conns[i].queue != QUEUE_NONE)
      continue;
    st->stats->tcp_time_wait_recycled++;
    conn_free(st, &st->conns[i]);
    return true;
  }
  return false;
}

/* ---- birth ---------------------------------------------------------------- */

struct tcp_conn *conn_new(struct stack *st, const struct flow_key *key, bool is4) {
  if (st->conn_free == CONN_NONE && !time_wait_recycle(st))
    return NULL;
  uint32_t index = st->conn_free;
  struct tcp_conn *c = &st->conns[index];
  uint32_t hash = flow_key_hash(&st->flows, key);
  if (!flow_insert(&st->flows, hash, index))
    return NULL;
  st->conn_free = c->next;
  st->conns_used++;
  *c = (struct tcp_conn){
      .key = *key,
      .hash = hash,
      .flags = (uint16_t)(CONN_FLOW | (is4 ? CONN_IP4 : 0)),
      .queue = QUEUE_NONE,
      .rxq_head = FRAME_NONE,
      .rxq_tail = FRAME_NONE,
      .tx_head = NODE_NONE,
      .tx_next = NODE_NONE,
      .tx_tail = NODE_NONE,
      .ooo = RANGE_NONE,
      .listener = CONN_NONE,
      .next = CONN_NONE,
      .prev = CONN_NONE,
      .quickacks = TCP_QUICKACKS,
      .timer_at = UINT64_MAX,
      .rto_us = (uint32_t)(TCP_RTO_INITIAL_NS / NS_PER_US),
      .rcv_limit = st->rcvbuf_bytes < TCP_RCV_INITIAL ? st->rcvbuf_bytes : TCP_RCV_INITIAL,
      .path = {.link = STACK_LINKS},
  };
  store16((uint8_t *)&c->wire_ports, key->local_port);
  store16((uint8_t *)&c->wire_ports + 2, key->remote_port);
  c->wire_sum =
      (uint16_t)~csum_fold(csum_carry(pseudo_sum(key->local, key->remote, PROTO_TCP, 0), c->wire_ports));
  return c;
}

void conn_choose_iss(struct stack *st, struct tcp_conn *c) {
  uint64_t h = siphash24(st->isn_key, &c->key, sizeof c->key);
  c->ts_offset = (uint32_t)(h >> 32);
  /* One step per 64 ns, as Linux: wraps in 275 s, well above any segment's lifetime. */
  c->iss = (uint32_t)h + (uint32_t)(st->now >> 6);
  c->snd_una = c->snd_nxt = c->snd_max = c->iss;
  c->write_seq = c->iss + 1;
}

void conn_agree(struct stack *st, struct tcp_conn *c, const struct segment *seg) {
  uint32_t overhead = c->flags & CONN_IP4 ? IP4_LEN + TCP_LEN : IP6_LEN + TCP_LEN;
  uint32_t mss = c->path.mtu_bytes - overhead;
  uint32_t peers = seg->mss ? seg->mss : c->flags & CONN_IP4 ? TCP_MSS_DEFAULT : TCP_MSS_DEFAULT6;
  if (peers < mss)
    mss = peers;
  if (mss < TCP_MSS_MIN)
    mss = TCP_MSS_MIN;
  if (seg->has_ts) {
    c->flags |= CONN_TS;
    c->ts_recent = seg->tsval;
    c->ts_recent_at = st->now;
    mss -= TCP_TS_LEN;
  }
  if (seg->sack_ok)
    c->flags |= CONN_SACK;
  if (seg->has_wscale) {
    c->flags |= CONN_WSCALE;
    c->snd_wscale = seg->wscale;
    c->rcv_wscale = st->rcv_wscale;
  }
  c->mss = (uint16_t)mss;
  cc_init(c);
}

void conn_established(struct stack *st, struct tcp_conn *c) {
  c->state = TCP_ESTABLISHED;
  c->retries = 0;
  if (c->flags & CONN_HALF_OPEN) {
    st->stats->tcp_opened_passive++;
    listener_promote(st, c);
  } else {
    st->stats->tcp_opened_active++;
    if (c->connect_token != TOKEN_NONE) {
      conn_complete(st, c, c->connect_token, 0);
      c->connect_token = TOKEN_NONE;
    }
  }
}

/* ---- telling the application ------------------------------------------------ */

void conn_complete(struct stack *st, struct tcp_conn *c, uint32_t token, int status) {
  void *user = c->queue == QUEUE_NONE ? NULL : st->queues->slots[c->queue].user;
  token_complete(st->tokens, token, status, user);
}

void conn_wake_reader_now(struct stack *st, struct tcp_conn *c) {
  if (c->queue == QUEUE_NONE || (c->flags & CONN_POP_READY))
    return;
  struct queue *q = &st->queues->slots[c->queue];
  if (q->pops.head == TOKEN_NONE)
    return;
  if (c->rxq_head != FRAME_NONE) {
    c->flags |= CONN_POP_READY; /* one at a time: the next may find nothing left */
    token_complete(st->tokens, token_list_shift(st->tokens, &q->pops), 0, q->user);
    return;
  }
  int status = c->flags & CONN_RCV_FIN ? 0 : c->error;
  while (q->pops.head != TOKEN_NONE)
    conn_complete(st, c, token_list_shift(st->tokens, &q->pops), status);
}

uint32_t conn_send_limit(const struct stack *st) {
  uint32_t spare =
      st->arena->free_count > st->frames_reserve ? st->arena->free_count - st->frames_reserve : 0;
  uint64_t share = (uint64_t)spare * (st->arena->frame_size / SEND_SHARE);
  if (share < SEND_LIMIT_MIN)
    share = SEND_LIMIT_MIN;
  return share < st->sndbuf_bytes ? (uint32_t)share : st->sndbuf_bytes;
}

void conn_wake_drains(struct stack *st, struct tcp_conn *c) {
  if (c->queue == QUEUE_NONE)
    return;
  struct queue *q = &st->queues->slots[c->queue];
  if (q->drains.head == TOKEN_NONE || c->write_seq - c->snd_una > conn_send_limit(st) / 2)
    return;
  while (q->drains.head != TOKEN_NONE)
    conn_complete(st, c, token_list_shift(st->tokens, &q->drains), 0);
}

/* ---- death ------------------------------------------------------------------ */

void conn_drop_tx(struct stack *st, struct tcp_conn *c, int status) {
  for (uint32_t n = c->tx_head; n != NODE_NONE;) {
    struct tx_node *node = &st->tx_nodes[n];
    uint32_t next = node->next;
    frame_unref(st->arena, node->frame);
    if (node->token != TOKEN_NONE)
      conn_complete(st, c, node->token, status);
    node->next = st->tx_node_free;
    st->tx_node_free = n;
    n = next;
  }
  c->tx_head = c->tx_next = c->tx_tail = NODE_NONE;
}

void conn_drop_rx(struct stack *st, struct tcp_conn *c) {
  while (c->rxq_head != FRAME_NONE) {
    uint32_t frame = c->rxq_head;
    c->rxq_head = frame_meta(st->arena, frame)->next;
    frame_unref(st->arena, frame);
  }
  c->rxq_tail = FRAME_NONE;
  c->rxq_bytes = 0;
}

static void leave_tables(struct stack *st, struct tcp_conn *c) {
  uint32_t index = conn_index(st, c);
  if (c->flags & CONN_FLOW) {
    flow_remove(&st->flows, c->hash, index);
    c->flags &= (uint16_t)~CONN_FLOW;
  }
  if (c->state == TCP_TIME_WAIT)
    time_wait_remove(st, c);
  conn_disarm(st, c);
  conn_output_done(st, c);
  c->rto_at = c->delack_at = c->close_at = 0;
  c->predicted = 0;
}

void conn_free(struct stack *st, struct tcp_conn *c) {
  leave_tables(st, c);
  if (c->listener != CONN_NONE)
    listener_forget(st, c);
  conn_drop_tx(st, c, -ECANCELED);
  conn_drop_rx(st, c);
  reass_drop(st, c);
  c->state = TCP_CLOSED;
  c->hash = 0;
  c->queue = QUEUE_NONE;
  c->next = st->conn_free;
  st->conn_free = conn_index(st, c);
  st->conns_used--;
}

void conn_fail(struct stack *st, struct tcp_conn *c, int error) {
  leave_tables(st, c);
  c->state = TCP_CLOSED;
  if (c->error == 0)
    c->error = error;
  int status = error ? error : -EPIPE;
  if (c->connect_token != TOKEN_NONE) {
    conn_complete(st, c, c->connect_token, status);
    c->connect_token = TOKEN_NONE;
  }
  conn_drop_tx(st, c, status);
  reass_drop(st, c);
  if (c->queue != QUEUE_NONE) {
    struct queue *q = &st->queues->slots[c->queue];
    while (q->drains.head != TOKEN_NONE)
      conn_complete(st, c, token_list_shift(st->tokens, &q->drains), status);
    conn_wake_reader(st, c);
  } else if (!(c->flags & CONN_IN_ACCEPT)) { /* one that waits to be accepted is, and then reads the error */
    conn_free(st, c);
  }
}

void tcp_fail_link(struct stack *st, uint8_t link, int error) {
  for (uint32_t i = 0; i < st->nconns; i++) {
    struct tcp_conn *c = &st->conns[i];
    if (c->state != TCP_CLOSED && c->path.link == link)
      conn_fail(st, c, error);
  }
}

void conn_time_wait(struct stack *st, struct tcp_conn *c) {
  conn_drop_tx(st, c, 0);
  reass_drop(st, c);
  c->rto_at = 0;
  c->state = TCP_TIME_WAIT;
  c->close_at = st->now + TCP_TIME_WAIT_NS;
  time_wait_push(st, c);
  conn_arm(st, c);
}
