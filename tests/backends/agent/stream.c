/* SPDX-License-Identifier: Apache-2.0 */
/* Operations: what each does first, and what it does with each event until it is answered. */
#include "agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

uint64_t agent_now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Bytes that no two places of a socket's stream have in common, nor two sockets. */
void pattern_fill(struct sock *s, const hy_sga *sga) {
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    uint8_t *to = sga->segs[i].addr;
    for (uint32_t j = 0; j < sga->segs[i].len_bytes; j += 4, s->pushed += 4) {
      uint32_t left = sga->segs[i].len_bytes - j;
      uint32_t word =
          (uint32_t)s->pushed * 2654435761u ^ (uint32_t)(s->pushed >> 13) ^ s->number * 0x9e3779b9u;
      memcpy(to + j, &word, left < 4 ? left : 4);
    }
  }
}

/* Over what a socket has moved one way since it was opened, so that a stream may be read by several orders.
 */
void flow_add(struct flow *flow, const hy_sga *sga) {
  for (uint32_t i = 0; i < sga->nsegs; i++)
    flow->crc = (uint32_t)crc32(flow->crc, sga->segs[i].addr, sga->segs[i].len_bytes);
  flow->bytes += hy_sga_bytes(sga);
}

static void count_in(struct sock *s, struct op *op, const hy_sga *sga) {
  flow_add(&s->in, sga);
  op->done += hy_sga_bytes(sga);
}

struct op *op_new(struct sock *s, uint64_t id, int kind) {
  struct op *op = calloc(1, sizeof *op);
  if (op == NULL)
    abort();
  op->id = id;
  op->kind = (typeof(op->kind))kind;
  op->next = s->ops;
  s->ops = op;
  return op;
}

static void op_forget(struct sock *s, struct op *op) {
  struct op **at = &s->ops;
  while (*at != op)
    at = &(*at)->next;
  *at = op->next;
  free(op);
}

static void op_end(struct agent *a, struct sock *s, struct op *op, int status, const hy_addr *peer) {
  char text[HY_ADDR_STRLEN] = "";
  hy_sga_free(a->shard, &op->unsent);
  const struct flow *flow = op->kind == OP_PUSH || op->kind == OP_SENDTO ? &s->out : &s->in;
  answer_with(a, op->id, status,
              ", \"bytes\": %" PRIu64 ", \"total\": %" PRIu64 ", \"crc\": %" PRIu32
              ", \"ended\": %s, \"peer\": \"%s\"",
              op->done, flow->bytes, flow->crc, op->ended ? "true" : "false",
              peer->family != 0 ? hy_addr_format(peer, text) : text);
  op_forget(s, op);
}

/* The next piece: what was refused before, or a fresh one. */
static int piece_push(struct agent *a, struct sock *s, struct op *op) {
  if (op->unsent.nsegs == 0) {
    uint64_t left = op->bytes - op->done;
    int rc = hy_sga_alloc(a->shard, left < op->piece ? (size_t)left : op->piece, &op->unsent);
    if (rc < 0)
      return rc;
    pattern_fill(s, &op->unsent);
  }
  bool last = op->done + hy_sga_bytes(&op->unsent) == op->bytes;
  struct flow before = s->out;
  flow_add(&s->out, &op->unsent); /* before they are given away */
  int rc = hy_push(a->shard, s->qd, &op->unsent, last ? &op->qt : NULL);
  if (rc < 0) {
    s->out = before;
    return rc;
  }
  op->done += hy_sga_bytes(&op->unsent);
  op->last = last;
  if (last)
    hy_sga_free(a->shard, &op->unsent); /* the push has references of its own */
  op->unsent.nsegs = 0;                 /* without a token they were given away */
  return 0;
}

/* Pushes as much as there is room for; an event tells when to go on, or that all is acknowledged. */
static int push_on(struct agent *a, struct sock *s, struct op *op) {
  int rc = 0;
  while (rc == 0 && !op->last)
    rc = piece_push(a, s, op);
  return rc == -EAGAIN || rc == -ENOBUFS ? hy_drain(a->shard, s->qd, &op->qt) : rc;
}

/* Gives back what came, and then asks for more. */
static int echo_on(struct agent *a, struct sock *s, struct op *op) {
  if (op->unsent.nsegs > 0) {
    int rc = hy_push(a->shard, s->qd, &op->unsent, NULL);
    if (rc == -EAGAIN || rc == -ENOBUFS)
      return hy_drain(a->shard, s->qd, &op->qt);
    if (rc < 0)
      return rc;
    op->unsent.nsegs = 0; /* the library's now */
  }
  return hy_pop(a->shard, s->qd, &op->qt);
}

/* One datagram of op->bytes bytes. */
static int send_to(struct agent *a, struct sock *s, struct op *op, const hy_addr *peer) {
  int rc = hy_sga_alloc(a->shard, op->bytes, &op->unsent);
  if (rc < 0)
    return rc;
  pattern_fill(s, &op->unsent);
  flow_add(&s->out, &op->unsent);
  op->done = op->bytes;
  return peer->port == 0 ? hy_push(a->shard, s->qd, &op->unsent, &op->qt)
                         : hy_pushto(a->shard, s->qd, &op->unsent, peer, &op->qt);
}

static int first(struct agent *a, struct sock *s, struct op *op, const hy_addr *peer) {
  switch (op->kind) {
  case OP_ACCEPT:
    return hy_accept(a->shard, s->qd, &op->qt);
  case OP_CONNECT:
    return hy_connect(a->shard, s->qd, peer, &op->qt);
  case OP_PUSH:
    return push_on(a, s, op);
  case OP_DRAIN:
    return hy_drain(a->shard, s->qd, &op->qt);
  case OP_SENDTO:
    return send_to(a, s, op, peer);
  default:
    return hy_pop(a->shard, s->qd, &op->qt);
  }
}

void op_start(struct agent *a, struct sock *s, struct op *op, const hy_addr *peer) {
  int rc = first(a, s, op, peer);
  if (rc < 0)
    op_end(a, s, op, rc, &(hy_addr){0});
}

/* The new socket is known by the number that the order gave. */
static void adopt(struct agent *a, const struct op *op, const hy_event *event) {
  struct sock *fresh = &a->sockets[op->other];
  *fresh = (struct sock){.used = true, .qd = event->accepted, .number = op->other};
  hy_set_user(a->shard, fresh->qd, fresh);
}

/* True: more is to come. */
static bool pop_more(struct agent *a, struct sock *s, struct op *op, hy_event *event) {
  op->ended = event->sga.nsegs == 0;
  count_in(s, op, &event->sga);
  if (!op->hold)
    hy_sga_free(a->shard, &event->sga);
  else if (event->sga.nsegs > 0)
    a->held[a->nheld++ % AGENT_HELD] = event->sga;
  return !op->ended && op->done < op->bytes;
}

/* Back to where it came from, and on to the next. */
static int reflect_on(struct agent *a, struct sock *s, struct op *op, hy_event *event) {
  count_in(s, op, &event->sga);
  if (hy_pushto(a->shard, s->qd, &event->sga, &event->addr, NULL) < 0)
    hy_sga_free(a->shard, &event->sga); /* a datagram may be lost */
  return hy_pop(a->shard, s->qd, &op->qt);
}

/* What an operation does next; 1: it is done, and well. */
static int go_on(struct agent *a, struct sock *s, struct op *op, hy_event *event) {
  switch (op->kind) {
  case OP_ACCEPT:
    adopt(a, op, event);
    return 1;
  case OP_PUSH:
    return op->last ? 1 : push_on(a, s, op);
  case OP_RECEIVE:
    count_in(s, op, &event->sga);
    hy_sga_free(a->shard, &event->sga);
    return 1;
  case OP_REFLECT:
    return reflect_on(a, s, op, event);
  case OP_POP:
    return pop_more(a, s, op, event) ? hy_pop(a->shard, s->qd, &op->qt) : 1;
  case OP_ECHO:
    if (event->op == HY_OP_POP && event->sga.nsegs == 0) {
      op->ended = true;
      int rc = hy_shutdown(a->shard, s->qd);
      return rc < 0 ? rc : 1;
    }
    if (event->op == HY_OP_POP) {
      count_in(s, op, &event->sga);
      op->unsent = event->sga;
    }
    return echo_on(a, s, op);
  default:
    return 1;
  }
}

void op_event(struct agent *a, hy_event *event) {
  struct sock *s = event->user;
  struct op *op = s == NULL ? NULL : s->ops;
  while (op != NULL && op->qt != event->qt)
    op = op->next;
  if (op == NULL) {
    answer_with(a, 0, -EPROTO, ", \"event\": \"of no operation: op %d, status %d\"", event->op,
                event->status);
    hy_sga_free(a->shard, &event->sga);
    return;
  }
  int rc = event->status < 0 ? event->status : go_on(a, s, op, event);
  if (rc != 0)
    op_end(a, s, op, rc > 0 ? 0 : rc, &event->addr);
}
