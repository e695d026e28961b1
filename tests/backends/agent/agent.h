/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program that the conformance tests drive: one shard, on whichever backends its
 * arguments name, that does what it is told in lines on its standard input.
 *
 *     agent [--io IN,OUT] [--pin CPU] [--config KEY=VALUE]... [--link ...] [--addr ...] [--neigh ...]
 *           [--attach BACKEND[,KEY=VALUE]...]... [--and MORE]
 *
 * What follows --and describes a second shard of the same process, in a thread of its own, which
 * takes its orders from the descriptors that its --io names: the other end of a cable that exists
 * only inside a process.
 *
 *     main.c    the arguments, the threads, the loop     orders.c  a line into a call
 *     host.c    --link, --addr, --neigh                  stream.c  operations that take several calls
 *     attach.c  --attach: the one table of backends
 *
 * Every order begins with a number and is answered by one line of JSON with that number as "id" and
 * a "status" (0 or a negative errno), some of them later than others: orders.c lists them.
 */
#ifndef HYBRID_TESTS_BACKENDS_AGENT_H
#define HYBRID_TESTS_BACKENDS_AGENT_H

#include "hybrid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { AGENT_SHARDS = 2, AGENT_ATTACHES = 8, AGENT_SOCKETS = 16384, AGENT_HELD = 65536, AGENT_LINE = 256 };

/* What the arguments say of one shard. */
struct spec {
  int in, out; /* where orders come from and answers go */
  int cpu;     /* -1: anywhere */
  hy_config config;
  hy_host_link links[HY_HOST_LINKS];
  hy_host_addr addrs[HY_HOST_ADDRS];
  hy_host_neigh neighs[HY_HOST_NEIGHS];
  unsigned nlinks, naddrs, nneighs;
  const char *attaches[AGENT_ATTACHES];
  unsigned nattaches;
};

/* An order that is under way: it is answered when an event says so. */
struct op {
  struct op *next; /* of its socket */
  uint64_t id;
  enum { OP_ACCEPT, OP_CONNECT, OP_PUSH, OP_POP, OP_ECHO, OP_DRAIN, OP_SENDTO, OP_RECEIVE, OP_REFLECT } kind;
  hy_qt qt;       /* what it waits for */
  uint32_t other; /* OP_ACCEPT: the number that the new socket gets */
  uint64_t bytes, done;
  uint32_t piece;
  bool last;  /* OP_PUSH: everything is pushed, and waits to be acknowledged */
  bool hold;  /* OP_POP: keeps what it gets until "release" */
  bool ended; /* OP_ECHO: the peer has ended */
  hy_sga unsent;
};

/* What a socket has moved one way since it was opened. */
struct flow {
  uint64_t bytes;
  uint32_t crc;
};

/* Kept until the program ends, so that an order may name one that was closed. */
struct sock {
  bool used;
  hy_qd qd;
  uint32_t number;
  uint64_t pushed; /* where in its pattern it is */
  struct flow in, out;
  struct op *ops;
};

struct agent {
  hy_shard *shard;
  const struct spec *spec;
  FILE *out;
  struct sock *sockets;
  hy_sga *held;
  unsigned nheld;
  char line[AGENT_LINE];
  size_t line_len;
  uint64_t nap_id; /* of the "nap" under way; 0: none */
  uint64_t nap_from_ns, nap_until_ns;
  unsigned sleeps_index; /* of the counter "sleeps" */
};

/* host.c: 0, or -EINVAL for a text that does not say what it should. */
int host_link_parse(struct spec *spec, const char *text);
int host_addr_parse(struct spec *spec, const char *text);
int host_neigh_parse(struct spec *spec, const char *text);
int mac_parse(const char *text, uint8_t mac[6]);
int host_give(const struct spec *spec, hy_shard *shard);

/* attach.c: every --attach of every shard; what was obtained goes into `said`, as JSON. */
int attach_all(struct agent *agents, unsigned n, char *said, size_t capacity);

/* orders.c */
bool orders_obey(struct agent *a); /* false: standard input has ended */
void orders_nap_over(struct agent *a, unsigned events);
void answer(struct agent *a, uint64_t id, int status);
void answer_with(struct agent *a, uint64_t id, int status, const char *more, ...)
    __attribute__((format(printf, 4, 5)));

/* stream.c */
struct op *op_new(struct sock *s, uint64_t id, int kind);
void op_start(struct agent *a, struct sock *s, struct op *op, const hy_addr *peer);
void op_event(struct agent *a, hy_event *event);
void pattern_fill(struct sock *s, const hy_sga *sga);
void flow_add(struct flow *flow, const hy_sga *sga);
uint64_t agent_now_ns(void);

#endif
