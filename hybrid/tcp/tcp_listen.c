/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners. `backlog` bounds connections that are half-open or wait to be
 * accepted; when half-open ones fill it, the oldest of them makes room, so that
 * spoofed SYNs, which never complete, can't shut out those that do.
 *
 *   SYN -> half-open queue -> (ACK) -> accept queue -> hy_accept
 */
#include <errno.h>

#include "tcp/tcp.h"

/* A queue through conn.next and conn.prev. */
static void append(struct stack *st, uint32_t *head, uint32_t *tail, struct tcp_conn *c) {
  uint32_t index = conn_index(st, c);
  c->next = CONN_NONE;
  c->prev = *tail;
  if (*tail == CONN_NONE)
    *head = index;
  else
    st->conns[*tail].next = index;
  *tail = index;
}

static void take_out(struct stack *st, uint32_t *head, uint32_t *tail, struct tcp_conn *c) {
  if (c->prev == CONN_NONE)
    *head = c->next;
  else
    st->conns[c->prev].next = c->next;
  if (c->next == CONN_NONE)
    *tail = c->prev;
  else
    st->conns[c->next].prev = c->prev;
}

/* Does a bound address cover this local one? */
static bool covers(const hy_addr *bound, const uint8_t ip[16]) {
  if (bound->family == 0)
    return true;
  if ((bound->family == 4) != ip_is_4(ip))
    return false;
  return ip_is_zero(bound->ip) || ip_equal(bound->ip, ip);
}

struct tcp_listener *listener_find(struct stack *st, const struct flow_key *key) {
  struct tcp_listener *wildcard = NULL;
  for (uint32_t i = st->tcp_ports[key->local_port]; i != PORT_NONE; i = st->listeners[i - 1].next) {
    struct tcp_listener *l = &st->listeners[i - 1];
    if (!covers(&l->local, key->local))
      continue;
    if (l->local.family != 0 && !ip_is_zero(l->local.ip))
      return l; /* the one bound to this very address wins */
    wildcard = l;
  }
  return wildcard;
}

bool port_taken(const struct stack *st, const hy_addr *local) {
  for (uint32_t i = st->tcp_ports[local->port]; i != PORT_NONE; i = st->listeners[i - 1].next) {
    const hy_addr *other = &st->listeners[i - 1].local;
    if (other->family == 0 || local->family == 0)
      return true;
    if (other->family == local->family &&
        (ip_is_zero(other->ip) || ip_is_zero(local->ip) || ip_equal(other->ip, local->ip)))
      return true;
  }
  return false;
}

int listener_open(struct stack *st, struct queue *q, int backlog) {
  uint32_t index = st->listener_free;
  if (index == CONN_NONE)
    return -ENOBUFS;
  struct tcp_listener *l = &st->listeners[index];
  st->listener_free = l->next;
  *l = (struct tcp_listener){
      .queue = queue_index(st->queues, q),
      .next = st->tcp_ports[q->local.port],
      .backlog = (uint32_t)backlog,
      .half_head = CONN_NONE,
      .half_tail = CONN_NONE,
      .accept_head = CONN_NONE,
      .accept_tail = CONN_NONE,
      .local = q->local,
  };
  st->tcp_ports[q->local.port] = index + 1;
  q->object = index;
  q->kind = QUEUE_LISTENER;
  return 0;
}

void listener_close(struct stack *st, uint32_t index) {
  struct tcp_listener *l = &st->listeners[index];
  uint32_t *at = &st->tcp_ports[l->local.port];
  while (*at != index + 1)
    at = &st->listeners[*at - 1].next;
  *at = l->next;
  while (l->half_head != CONN_NONE)
    conn_free(st, conn_at(st, l->half_head));
  while (l->accept_head != CONN_NONE) { /* their peers believe in them: say that nobody will answer */
    struct tcp_conn *c = conn_at(st, l->accept_head);
    if (c->state != TCP_CLOSED && c->state != TCP_TIME_WAIT) {
      st->stats->tcp_resets_out++;
      tcp_send_control(st, c, TCP_RST | TCP_ACK, c->snd_nxt);
    }
    conn_free(st, c);
  }
  l->queue = QUEUE_NONE;
  l->next = st->listener_free;
  st->listener_free = index;
}

void listener_forget(struct stack *st, struct tcp_conn *c) {
  struct tcp_listener *l = &st->listeners[c->listener];
  if (c->flags & CONN_HALF_OPEN)
    take_out(st, &l->half_head, &l->half_tail, c);
  else if (c->flags & CONN_IN_ACCEPT)
    take_out(st, &l->accept_head, &l->accept_tail, c);
  c->flags &= (uint16_t) ~(CONN_HALF_OPEN | CONN_IN_ACCEPT);
  c->listener = CONN_NONE;
  l->pending--;
}

void listener_promote(struct stack *st, struct tcp_conn *c) {
  struct tcp_listener *l = &st->listeners[c->listener];
  take_out(st, &l->half_head, &l->half_tail, c);
  append(st, &l->accept_head, &l->accept_tail, c);
  c->flags = (uint16_t)((c->flags & ~CONN_HALF_OPEN) | CONN_IN_ACCEPT);
  struct queue *q = &st->queues->slots[l->queue];
  uint32_t token = token_list_shift(st->tokens, &q->pops);
  if (token != TOKEN_NONE)
    token_complete(st->tokens, token, 0, q->user);
}

uint32_t listener_take_accepted(struct stack *st, uint32_t index) {
  struct tcp_listener *l = &st->listeners[index];
  uint32_t taken = l->accept_head;
  if (taken != CONN_NONE)
    listener_forget(st, conn_at(st, taken));
  return taken;
}

/* Of the connections that nobody has confirmed, the oldest makes room; false if there is none. */
static bool evict(struct stack *st, struct tcp_listener *l) {
  if (l->half_head == CONN_NONE)
    return false;
  st->stats->tcp_half_open_evicted++;
  conn_free(st, conn_at(st, l->half_head));
  return true;
}

void listener_input(struct stack *st, struct tcp_listener *l, struct packet *p, const struct segment *seg) {
  if (seg->flags & TCP_RST) {
    st->stats->drop_state++;
    return;
  }
  if (seg->flags & TCP_ACK) {
    tcp_reply_reset(st, p, seg);
    return;
  }
  if (!(seg->flags & TCP_SYN) || (seg->flags & TCP_FIN)) {
    st->stats->drop_state++;
    return;
  }
  if (ip_is_multicast(p->key.remote) || ip_is_zero(p->key.remote) ||
      host_is_local(&st->host, p->key.remote)) {
    st->stats->drop_bad_source++;
    return;
  }
  if (l->pending >= l->backlog && !evict(st, l)) {
    st->stats->drop_backlog++;
    return;
  }
  bool is4 = ip_is_4(p->key.local);
  struct tcp_conn *c = conn_new(st, &p->key, is4);
  if (!c && evict(st, l)) /* a backlog that is longer than the table */
    c = conn_new(st, &p->key, is4);
  if (!c) {
    st->stats->drop_table_full++;
    return;
  }
  const uint8_t *base = frame_base(st->arena, p->frame);
  const struct frame *f = frame_meta(st->arena, p->frame);
  c->vlan_len = (uint8_t)(p->l3_off - f->off - ETH_LEN);
  memcpy(c->vlan, base + f->off + 12, c->vlan_len);
  c->path.link = p->link;
  if (path_lookup(st, c->key.remote, p->link, &c->path, NULL) < 0) {
    conn_free(st, c);
    return;
  }
  c->state = TCP_SYN_RCVD;
  c->listener = (uint32_t)(l - st->listeners);
  c->flags |= CONN_HALF_OPEN;
  append(st, &l->half_head, &l->half_tail, c);
  l->pending++;
  uint32_t overhead = is4 ? IP4_LEN + TCP_LEN : IP6_LEN + TCP_LEN;
  c->advertised_mss = (uint16_t)(c->path.mtu_bytes - overhead);
  conn_choose_iss(st, c);
  c->rcv_nxt = c->rcv_adv = c->rcv_acked = seg->seq + 1;
  conn_agree(st, c, seg);
  c->snd_wnd = c->snd_wnd_max = seg->wnd; /* of a SYN: not scaled */
  c->snd_wl1 = seg->seq;
  conn_wants_output(st, c);
}
