/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams in and out. A received one stays in its frame, and its sender is read from the headers in front
 * of it. */
#include "tcp/udp.h"

#include <errno.h>
#include <stdlib.h>

#include "tcp/chain.h"
#include "tcp/csum.h"
#include "tcp/ops.h"
#include "tcp/wire.h"

int udp_init(struct stack *st, const hy_config *limits) {
  st->nudp = limits->sockets < 4096 ? limits->sockets : 4096;
  st->udp = calloc(st->nudp, sizeof *st->udp);
  st->udp_ports = calloc(65536, sizeof *st->udp_ports);
  if (!st->udp || !st->udp_ports)
    return -ENOMEM;
  for (uint32_t i = 0; i < st->nudp; i++)
    st->udp[i] = (struct udp_socket){
        .queue = QUEUE_NONE, .next = i + 1 < st->nudp ? i + 1 : UDP_NONE, .head = FRAME_NONE};
  return 0;
}

static void drop_received(struct stack *st, struct udp_socket *u) {
  while (u->head != FRAME_NONE) {
    uint32_t frame = u->head;
    u->head = frame_meta(st->arena, frame)->next;
    packet_drop(st->arena, frame);
  }
  u->waiting = 0;
}

void udp_fini(struct stack *st) {
  for (uint32_t i = 0; st->udp && i < st->nudp; i++)
    drop_received(st, &st->udp[i]);
  free(st->udp);
  free(st->udp_ports);
}

bool udp_port_taken(const struct stack *st, const hy_addr *local) {
  for (uint32_t i = st->udp_ports[local->port]; i != PORT_NONE; i = st->udp[i - 1].next) {
    const hy_addr *other = &st->udp[i - 1].local;
    if (other->family == 0 || local->family == 0)
      return true;
    if (other->family == local->family &&
        (ip_is_zero(other->ip) || ip_is_zero(local->ip) || ip_equal(other->ip, local->ip)))
      return true;
  }
  return false;
}

int udp_open(struct stack *st, struct queue *q, const hy_addr *local) {
  uint32_t index = st->udp_free;
  if (index == UDP_NONE)
    return -ENOBUFS;
  struct udp_socket *u = &st->udp[index];
  st->udp_free = u->next;
  *u = (struct udp_socket){.queue = queue_index(st->queues, q),
                           .next = st->udp_ports[local->port],
                           .head = FRAME_NONE,
                           .tail = FRAME_NONE,
                           .local = *local};
  st->udp_ports[local->port] = index + 1;
  q->object = index;
  return 0;
}

void udp_close(struct stack *st, struct queue *q) {
  uint32_t index = q->object;
  if (index == QUEUE_NONE)
    return;
  struct udp_socket *u = &st->udp[index];
  uint32_t *at = &st->udp_ports[u->local.port];
  while (*at != index + 1)
    at = &st->udp[*at - 1].next;
  *at = u->next;
  drop_received(st, u);
  u->queue = QUEUE_NONE;
  u->next = st->udp_free;
  st->udp_free = index;
}

static bool covers(const struct udp_socket *u, const struct packet *p) {
  const hy_addr *l = &u->local;
  if (l->family != 0 &&
      ((l->family == 4) != ip_is_4(p->key.local) || (!ip_is_zero(l->ip) && !ip_equal(l->ip, p->key.local))))
    return false;
  return u->peer.family == 0 || (u->peer.port == p->key.remote_port && ip_equal(u->peer.ip, p->key.remote));
}

/* Completes as many pops as there are datagrams that no completed pop stands for. */
void udp_wake(struct stack *st, struct queue *q) {
  struct udp_socket *u = &st->udp[q->object];
  while (u->ready < u->waiting && q->pops.head != TOKEN_NONE) {
    u->ready++;
    token_complete(st->tokens, token_list_shift(st->tokens, &q->pops), 0, q->user);
  }
}

/* linear: bytes of the datagram in the packet's first frame. */
static bool checksum_good(const struct stack *st, const struct packet *p, uint32_t linear, uint32_t len) {
  uint64_t pseudo = csum_carry(p->addresses, csum_protocol(PROTO_UDP, len));
  return csum_fold(linear == len ? csum_add(pseudo, p->l4, len)
                                 : csum_carry(pseudo, chain_sum(st, p, len))) == 0;
}

void udp_input(struct stack *st, struct packet *p) {
  struct stats *s = st->stats;
  uint8_t *h = p->l4;
  s->udp_in++;
  uint32_t len = p->l4_len >= UDP_LEN ? load16(h + 4) : 0;
  if (len < UDP_LEN || len > p->l4_len) {
    s->drop_udp_header++;
    goto drop;
  }
  bool is4 = ip_is_4(p->key.local);
  uint16_t checksum = load16(h + 6);
  if (checksum == 0 && !is4) { /* RFC 8200 section 8.1 */
    s->drop_checksum++;
    goto drop;
  }
  struct frame *f = frame_meta(st->arena, p->frame);
  uint32_t linear = len;
  if (__builtin_expect(f->flags & FRAME_MORE, 0)) {
    packet_cut(st->arena, p->frame, (uint32_t)(p->l4_off - f->off) + len);
    linear = (uint32_t)f->off + f->len - p->l4_off;
    if (packet_frames(st->arena, p->frame) > HY_SGA_SEGS) {
      s->drop_udp_long++;
      goto drop;
    }
  }
  if (checksum != 0 && !(f->flags & FRAME_CSUM_GOOD) && !checksum_good(st, p, linear, len)) {
    s->drop_checksum++;
    goto drop;
  }
  flow_key_ports(&p->key, h);
  if (!host_is_local(&st->host, p->key.local)) {
    s->drop_not_local++;
    goto drop;
  }
  struct udp_socket *u = NULL;
  for (uint32_t i = st->udp_ports[p->key.local_port]; i != PORT_NONE && !u; i = st->udp[i - 1].next)
    if (covers(&st->udp[i - 1], p))
      u = &st->udp[i - 1];
  if (!u) {
    s->drop_no_socket++;
    goto drop;
  }
  if (frames_scarce(st)) {
    s->drop_no_memory++;
    goto drop;
  }
  if (u->waiting == UDP_QUEUE_FRAMES) {
    s->drop_udp_full++;
    goto drop;
  }
  f->off = (uint16_t)(p->l4_off + UDP_LEN);
  f->len = (uint16_t)(linear - UDP_LEN);
  f->head = f->off;
  f->l3 = p->l3_off;
  f->next = FRAME_NONE;
  if (u->head == FRAME_NONE)
    u->head = p->frame;
  else
    frame_meta(st->arena, u->tail)->next = p->frame;
  u->tail = p->frame;
  u->waiting++;
  udp_wake(st, &st->queues->slots[u->queue]);
  return;
drop:
  packet_drop(st->arena, p->frame);
}

/* The sender's address is read from the headers, which still lie in front of the payload. */
static void sender_of(const struct stack *st, uint32_t frame, hy_addr *out) {
  const struct frame *f = frame_meta(st->arena, frame);
  const uint8_t *base = frame_base(st->arena, frame);
  const uint8_t *ip = base + f->l3;
  uint16_t port = load16(base + f->off - UDP_LEN);
  uint8_t mapped[16];
  bool is4 = ip[0] >> 4 == 4;
  if (is4)
    ip_map4(mapped, ip + 12);
  else
    memcpy(mapped, ip + 8, 16);
  addr_from_ip(out, mapped, port, is4);
}

bool udp_deliver(struct stack *st, struct queue *q, hy_event *event) {
  struct udp_socket *u = &st->udp[q->object];
  assert(u->ready > 0 && u->head != FRAME_NONE);
  u->ready--;
  if (*st->app_frames >= st->app_frames_max) {
    event->status = -ENOBUFS; /* the datagram stays for the next pop */
    udp_wake(st, q);
    return true;
  }
  uint32_t frame = u->head;
  struct frame *f = frame_meta(st->arena, frame);
  u->head = f->next;
  u->waiting--;
  sender_of(st, frame, &event->addr);
  uint32_t nsegs = 0;
  for (bool more = true; more; nsegs++) {
    f = frame_meta(st->arena, frame);
    event->sga.segs[nsegs] =
        (hy_seg){.addr = frame_data(st->arena, frame), .len_bytes = f->len, .frame = frame};
    more = f->flags & FRAME_MORE;
    f->flags &= (uint8_t)~FRAME_MORE; /* the application may send them one by one */
    frame = f->more;
  }
  event->sga.nsegs = nsegs;
  *st->app_frames += nsegs;
  return true;
}

/*
 * A datagram that no frame holds: headers in the first, what was pushed behind it, as it lies where it was
 * given away. FRAME_NONE: there are too few frames.
 */
static __attribute__((noinline)) uint32_t gather_chain(struct stack *st, const struct link *link,
                                                       const hy_sga *sga, bool give, uint64_t *sum) {
  uint32_t head = frame_alloc(st->arena);
  if (head == FRAME_NONE)
    return FRAME_NONE;
  struct chain chain;
  chain_begin(st, &chain, link, head);
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    const hy_seg *s = &sga->segs[i];
    uint32_t off = (uint32_t)((uint8_t *)s->addr - frame_base(st->arena, s->frame));
    bool share = give && frame_meta(st->arena, s->frame)->refs == 1;
    if (chain_add(st, &chain, s->frame, off, s->len_bytes, share) < s->len_bytes) {
      packet_drop(st->arena, head);
      return FRAME_NONE;
    }
  }
  *sum = chain.sum;
  return head;
}

int udp_push(struct stack *st, struct queue *q, const hy_sga *sga, const hy_addr *peer, uint32_t token,
             bool give) {
  struct udp_socket *u = &st->udp[q->object];
  if (!peer)
    peer = &u->peer;
  if (peer->family == 0)
    return -EDESTADDRREQ;
  if (peer->port == 0 || (u->local.family != 0 && u->local.family != peer->family))
    return -EINVAL;
  struct path path;
  uint8_t source[16];
  int rc = path_lookup(st, peer->ip, STACK_LINKS, &path, source);
  if (rc < 0)
    return rc;
  if (u->local.family != 0 && !ip_is_zero(u->local.ip))
    memcpy(source, u->local.ip, 16);
  size_t len = hy_sga_bytes(sga);
  uint32_t headers = (peer->family == 4 ? IP4_LEN : IP6_LEN) + UDP_LEN;
  if (len + headers > path.mtu_bytes)
    return -EMSGSIZE;
  if (link_tx_room(&st->links[path.link]) == 0)
    return -EAGAIN;
  uint32_t frame, rest = 0;
  uint64_t rest_sum = 0;
  struct frame *f;
  const hy_seg *first = &sga->segs[0];
  uint32_t off = (uint32_t)((uint8_t *)first->addr - frame_base(st->arena, first->frame));
  bool in_place = false;
  /* Complete when this returns: an application that keeps the array may change it before it has left. */
  if (sga->nsegs == 1 && give) {
    f = frame_meta(st->arena, first->frame);
    in_place = f->refs == 1 && f->head == off && off >= FRAME_TX_ROOM + ETH_LEN + headers &&
               !(f->flags & FRAME_IN_DEVICE);
  }
  if (in_place) {
    frame = first->frame;
    frame_ref(st->arena, frame);
    f->off = (uint16_t)off;
    f->len = (uint16_t)len;
  } else if (len > st->frame_room) {
    frame = gather_chain(st, &st->links[path.link], sga, give, &rest_sum);
    if (frame == FRAME_NONE)
      return -EAGAIN;
    f = frame_meta(st->arena, frame);
    rest = (uint32_t)len;
  } else {
    frame = frame_alloc(st->arena);
    if (frame == FRAME_NONE)
      return -EAGAIN;
    f = frame_meta(st->arena, frame);
    uint8_t *to = frame_data(st->arena, frame);
    for (uint32_t i = 0; i < sga->nsegs; i++) {
      memcpy(to, sga->segs[i].addr, sga->segs[i].len_bytes);
      to += sga->segs[i].len_bytes;
    }
    f->len = (uint16_t)len;
  }
  f->len = (uint16_t)(f->len + UDP_LEN);
  f->off = (uint16_t)(f->off - UDP_LEN);
  uint16_t total = (uint16_t)(len + UDP_LEN);
  uint8_t *h = frame_data(st->arena, frame);
  store16(h, u->local.port);
  store16(h + 2, peer->port);
  store16(h + 4, total);
  store16(h + 6, 0);
  uint64_t pseudo = pseudo_sum(source, peer->ip, PROTO_UDP, total);
  uint16_t sum;
  if (len >= CSUM_LEAVE_MIN && link_completes(&st->links[path.link]))
    sum = packet_leave_checksum(st, frame, h, pseudo, 6);
  else
    sum = csum_fold(csum_add(csum_carry(pseudo, rest_sum), h, f->len));
  if (sum == 0)
    sum = 0xffff; /* RFC 768: zero would say that there is none */
  memcpy(h + 6, &sum, 2);
  st->stats->udp_out++;
  struct ip_ends ends = {.src = source, .dst = peer->ip, .proto = PROTO_UDP, .is4 = peer->family == 4};
  path_send(st, &path, &ends, frame, h, f->len, rest);
  if (token != TOKEN_NONE)
    token_complete(st->tokens, token, 0, q->user);
  if (give)
    sga_drop(st, sga);
  return 0;
}
