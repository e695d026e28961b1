/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line is an order: "ID WORD ARGUMENTS". N is the number that the orders themselves give a socket.
 *
 *     open N stream|dgram [kernel|bypass]    which of the two is to carry it, whatever else is said
 *     bind N ADDRESS               listen N BACKLOG
 *     local N                      peer N                       shutdown N
 *     close N                      abort N                      cancel N ID
 *     fill N                       pushes until it is refused; "bytes", and "status" is the refusal
 *     stats                        every counter by its name
 *     grab                         takes frames until there are none; "count"
 *     release                      gives back what "grab" took and "pop ... hold" kept
 *     nap MS ID                    looks at no orders until something happens, or MS have passed, and then
 *                                  answers under that ID
 *
 * and these are answered when they are done:
 *
 *     accept N NEW                 connect N ADDRESS            drain N
 *     push N BYTES PIECE           when all of it is acknowledged
 *     pop N BYTES [hold]           when as much has come (0: to the end of the stream)
 *     echo N                       when the peer has ended and we have
 *     sendto N BYTES [ADDRESS]     receive N                    reflect N: until cancelled
 */
#include "agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An order, read. */
struct order {
  struct agent *a;
  struct sock *s;
  uint64_t id;
  uint32_t number; /* of the socket */
  char second[HY_ADDR_STRLEN], third[HY_ADDR_STRLEN];
};

void answer(struct agent *a, uint64_t id, int status) {
  fprintf(a->out, "{\"id\": %" PRIu64 ", \"status\": %d}\n", id, status);
}

void answer_with(struct agent *a, uint64_t id, int status, const char *more, ...) {
  va_list values;
  fprintf(a->out, "{\"id\": %" PRIu64 ", \"status\": %d", id, status);
  va_start(values, more);
  vfprintf(a->out, more, values);
  va_end(values);
  fputs("}\n", a->out);
}

static void order_open(const struct order *o) {
  *o->s = (struct sock){.number = o->number};
  int rc = hy_socket(o->a->shard, strcmp(o->second, "dgram") == 0 ? HY_DGRAM : HY_STREAM, &o->s->qd);
  if (rc == 0 && o->third[0] != '\0')
    rc = hy_set_backend(o->a->shard, o->s->qd,
                        strcmp(o->third, "kernel") == 0 ? HY_BACKEND_KERNEL : HY_BACKEND_BYPASS);
  o->s->used = rc == 0;
  if (o->s->used)
    hy_set_user(o->a->shard, o->s->qd, o->s);
  answer(o->a, o->id, rc);
}

static void order_bind(const struct order *o) {
  hy_addr addr;
  int rc = hy_addr_parse(o->second, &addr);
  answer(o->a, o->id, rc < 0 ? rc : hy_bind(o->a->shard, o->s->qd, &addr));
}

static void order_listen(const struct order *o) {
  answer(o->a, o->id, hy_listen(o->a->shard, o->s->qd, (int)strtol(o->second, NULL, 10)));
}

static void tell_address(struct agent *a, uint64_t id, int status, const hy_addr *addr) {
  char text[HY_ADDR_STRLEN] = "";
  answer_with(a, id, status, ", \"address\": \"%s\"", status == 0 ? hy_addr_format(addr, text) : text);
}

static void order_local(const struct order *o) {
  hy_addr addr;
  tell_address(o->a, o->id, hy_local(o->a->shard, o->s->qd, &addr), &addr);
}

static void order_peer(const struct order *o) {
  hy_addr addr;
  tell_address(o->a, o->id, hy_peer(o->a->shard, o->s->qd, &addr), &addr);
}

static void order_shutdown(const struct order *o) {
  answer(o->a, o->id, hy_shutdown(o->a->shard, o->s->qd));
}

static void order_close(const struct order *o) {
  answer(o->a, o->id, hy_close(o->a->shard, o->s->qd));
}

static void order_abort(const struct order *o) {
  answer(o->a, o->id, hy_abort(o->a->shard, o->s->qd));
}

static void order_cancel(const struct order *o) {
  uint64_t which = strtoull(o->second, NULL, 10);
  struct op *op = o->s->ops;
  while (op != NULL && op->id != which)
    op = op->next;
  answer(o->a, o->id, op == NULL ? -ENOENT : hy_cancel(o->a->shard, op->qt));
}

static void order_fill(const struct order *o) {
  uint64_t bytes = 0;
  int rc = 0;
  while (rc == 0) {
    hy_sga sga;
    rc = hy_sga_alloc(o->a->shard, hy_sga_max(o->a->shard), &sga);
    if (rc < 0)
      break;
    pattern_fill(o->s, &sga);
    size_t len = hy_sga_bytes(&sga);
    struct flow before = o->s->out;
    flow_add(&o->s->out, &sga);
    rc = hy_push(o->a->shard, o->s->qd, &sga, NULL);
    if (rc == 0) {
      bytes += len;
    } else {
      o->s->out = before;
      hy_sga_free(o->a->shard, &sga);
    }
  }
  answer_with(o->a, o->id, rc, ", \"bytes\": %" PRIu64 ", \"total\": %" PRIu64 ", \"crc\": %" PRIu32, bytes,
              o->s->out.bytes, o->s->out.crc);
}

static void order_stats(const struct order *o) {
  fprintf(o->a->out, "{\"id\": %" PRIu64 ", \"status\": 0", o->id);
  for (unsigned i = 0; i < hy_stat_count(); i++)
    fprintf(o->a->out, ", \"%s\": %" PRIu64, hy_stat_name(i), hy_stat(o->a->shard, i));
  fputs("}\n", o->a->out);
}

static void order_grab(const struct order *o) {
  unsigned before = o->a->nheld;
  int rc = 0;
  while (o->a->nheld < AGENT_HELD && (rc = hy_sga_alloc(o->a->shard, 1, &o->a->held[o->a->nheld])) == 0)
    o->a->nheld++;
  answer_with(o->a, o->id, rc, ", \"count\": %u", o->a->nheld - before);
}

static void order_release(const struct order *o) {
  while (o->a->nheld > 0)
    hy_sga_free(o->a->shard, &o->a->held[--o->a->nheld]);
  answer(o->a, o->id, 0);
}

static void order_nap(const struct order *o) {
  o->a->nap_id = strtoull(o->second, NULL, 10);
  o->a->nap_from_ns = agent_now_ns();
  o->a->nap_until_ns = o->a->nap_from_ns + o->number * 1000000ull;
  answer(o->a, o->id, 0);
}

void orders_nap_over(struct agent *a, unsigned events) {
  answer_with(a, a->nap_id, 0, ", \"events\": %u, \"ns\": %" PRIu64, events, agent_now_ns() - a->nap_from_ns);
  a->nap_id = 0;
}

/* ---- those that go on ---------------------------------------------------------------------------- */

static void order_plain(const struct order *o, int kind) {
  op_start(o->a, o->s, op_new(o->s, o->id, kind), NULL);
}

static void order_drain(const struct order *o) {
  order_plain(o, OP_DRAIN);
}

static void order_echo(const struct order *o) {
  order_plain(o, OP_ECHO);
}

static void order_receive(const struct order *o) {
  order_plain(o, OP_RECEIVE);
}

static void order_reflect(const struct order *o) {
  order_plain(o, OP_REFLECT);
}

static void order_accept(const struct order *o) {
  struct op *op = op_new(o->s, o->id, OP_ACCEPT);
  op->other = (uint32_t)strtoul(o->second, NULL, 10) % AGENT_SOCKETS;
  op_start(o->a, o->s, op, NULL);
}

static void order_connect(const struct order *o) {
  hy_addr peer;
  int rc = hy_addr_parse(o->second, &peer);
  if (rc < 0)
    answer(o->a, o->id, rc);
  else
    op_start(o->a, o->s, op_new(o->s, o->id, OP_CONNECT), &peer);
}

static void order_push(const struct order *o) {
  struct op *op = op_new(o->s, o->id, OP_PUSH);
  op->bytes = strtoull(o->second, NULL, 10);
  op->piece = (uint32_t)strtoul(o->third, NULL, 10);
  size_t most = hy_sga_max(o->a->shard);
  if (op->piece == 0 || op->piece > most)
    op->piece = (uint32_t)most;
  op_start(o->a, o->s, op, NULL);
}

static void order_pop(const struct order *o) {
  struct op *op = op_new(o->s, o->id, OP_POP);
  op->bytes = strtoull(o->second, NULL, 10);
  if (op->bytes == 0)
    op->bytes = UINT64_MAX;
  op->hold = strcmp(o->third, "hold") == 0;
  op_start(o->a, o->s, op, NULL);
}

static void order_sendto(const struct order *o) {
  hy_addr peer = {0};
  int rc = o->third[0] == '\0' ? 0 : hy_addr_parse(o->third, &peer);
  if (rc < 0) {
    answer(o->a, o->id, rc);
    return;
  }
  struct op *op = op_new(o->s, o->id, OP_SENDTO);
  op->bytes = strtoull(o->second, NULL, 10);
  op_start(o->a, o->s, op, &peer);
}

static const struct {
  const char *word;
  void (*obey)(const struct order *o);
  bool any; /* needs no socket that was opened */
} orders[] = {
    {"open", order_open, true},        {"bind", order_bind, false},       {"listen", order_listen, false},
    {"local", order_local, false},     {"peer", order_peer, false},       {"shutdown", order_shutdown, false},
    {"close", order_close, false},     {"abort", order_abort, false},     {"cancel", order_cancel, false},
    {"fill", order_fill, false},       {"stats", order_stats, true},      {"grab", order_grab, true},
    {"release", order_release, true},  {"nap", order_nap, true},          {"accept", order_accept, false},
    {"connect", order_connect, false}, {"drain", order_drain, false},     {"push", order_push, false},
    {"pop", order_pop, false},         {"echo", order_echo, false},       {"sendto", order_sendto, false},
    {"receive", order_receive, false}, {"reflect", order_reflect, false},
};

static void obey(struct agent *a, const char *line) {
  struct order o = {.a = a};
  char id[24] = "", word[16] = "", number[16] = "";
  sscanf(line, "%23s %15s %15s %55s %55s", id, word, number, o.second, o.third);
  o.id = strtoull(id, NULL, 10);
  o.number = (uint32_t)strtoul(number, NULL, 10);
  o.s = &a->sockets[o.number % AGENT_SOCKETS];
  for (size_t i = 0; i < sizeof orders / sizeof *orders; i++)
    if (strcmp(orders[i].word, word) == 0) {
      if (orders[i].any || o.s->used)
        orders[i].obey(&o);
      else
        answer(a, o.id, -EBADF);
      return;
    }
  answer(a, o.id, -ENOSYS);
}

bool orders_obey(struct agent *a) {
  char piece[4096];
  ssize_t n = read(a->spec->in, piece, sizeof piece);
  for (ssize_t i = 0; i < n; i++) {
    if (piece[i] != '\n') {
      if (a->line_len < sizeof a->line - 1)
        a->line[a->line_len++] = piece[i];
      continue;
    }
    a->line[a->line_len] = '\0';
    a->line_len = 0;
    obey(a, a->line);
  }
  return n != 0;
}
