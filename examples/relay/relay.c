/* SPDX-License-Identifier: Apache-2.0 */
/* The pairs of connections and what happens to them; see relay.h. */
#include "relay.h"

#include <errno.h>
#include <stddef.h>

enum { BACKLOG = 1024, ACCEPTS = 16, EVENTS = 64 };

static struct relay_half *other_half(struct relay_half *half) {
  return &half->pair->halves[half == &half->pair->halves[0]];
}

/* ---- a pair's life --------------------------------------------------------------- */

static struct relay_pair *pair_take(struct relay *r) {
  struct relay_pair *pair = r->free;
  if (pair == NULL)
    return NULL;
  r->free = pair->next_free;
  *pair = (struct relay_pair){0};
  for (int i = 0; i < 2; i++)
    pair->halves[i] = (struct relay_half){.pair = pair, .qd = -1};
  return pair;
}

static void pair_release_if_quiet(struct relay *r, struct relay_pair *pair) {
  if (!pair->over || pair->pending > 0)
    return;
  pair->next_free = r->free;
  r->free = pair;
}

/* In order: what was pushed still arrives. By reset: both peers learn that something is missing. */
static void pair_end(struct relay *r, struct relay_pair *pair, bool reset) {
  if (pair->over)
    return;
  pair->over = true;
  for (int i = 0; i < 2; i++) {
    struct relay_half *half = &pair->halves[i];
    hy_sga_free(r->shard, &half->unsent);
    if (half->qd >= 0)
      (reset ? hy_abort : hy_close)(r->shard, half->qd);
  }
}

/* ---- operations: each is one event to come ------------------------------------------ */

static void started(struct relay *r, struct relay_half *half, int rc) {
  if (rc < 0)
    pair_end(r, half->pair, true);
  else
    half->pair->pending++;
}

static void pop_on(struct relay *r, struct relay_half *half) {
  hy_qt qt;
  started(r, half, hy_pop(r->shard, half->qd, &qt));
}

/*
 * Sends what this half has to send, and then has the other go on receiving. A push without a token hands
 * our references over, unless it fails.
 */
static void push_on(struct relay *r, struct relay_half *half) {
  int rc = hy_push(r->shard, half->qd, &half->unsent, NULL);
  if (rc == 0) {
    half->unsent.nsegs = 0;
    pop_on(r, other_half(half));
  } else if (rc == -EAGAIN) {
    hy_qt qt;
    started(r, half, hy_drain(r->shard, half->qd, &qt));
  } else {
    pair_end(r, half->pair, true);
  }
}

/* ---- events ------------------------------------------------------------------------ */

/* A client: nothing of it is read before the target has answered. */
static void on_accept(struct relay *r, const hy_event *event) {
  hy_qt qt;
  hy_accept(r->shard, event->qd, &qt); /* the next one */
  if (event->status < 0)
    return;
  struct relay_pair *pair = pair_take(r);
  if (pair == NULL) {
    r->refused++;
    hy_abort(r->shard, event->accepted);
    return;
  }
  struct relay_half *client = &pair->halves[0], *target = &pair->halves[1];
  client->qd = event->accepted;
  hy_set_user(r->shard, client->qd, client);
  int rc = hy_socket(r->shard, HY_STREAM, &target->qd);
  if (rc == 0) {
    hy_set_user(r->shard, target->qd, target);
    rc = hy_set_backend(r->shard, target->qd, r->target_backend);
  } else {
    target->qd = -1;
  }
  if (rc == 0)
    rc = hy_connect(r->shard, target->qd, &r->target, &qt);
  if (rc < 0)
    r->refused++;
  started(r, target, rc);
  pair_release_if_quiet(r, pair);
}

static void on_connect(struct relay *r, struct relay_half *target, int status) {
  if (status < 0) {
    r->refused++;
    pair_end(r, target->pair, true);
    return;
  }
  r->relayed++;
  pop_on(r, target);
  if (!target->pair->over)
    pop_on(r, other_half(target));
}

static void on_pop(struct relay *r, struct relay_half *half, hy_event *event) {
  struct relay_half *to = other_half(half);
  if (event->sga.nsegs > 0) {
    to->unsent = event->sga;
    push_on(r, to);
    return;
  }
  half->ended = true;
  if (to->ended)
    pair_end(r, half->pair, false);
  else if (hy_shutdown(r->shard, to->qd) < 0)
    pair_end(r, half->pair, true);
}

static void on_event(struct relay *r, hy_event *event) {
  if (event->op == HY_OP_ACCEPT) {
    on_accept(r, event);
    return;
  }
  struct relay_half *half = event->user;
  struct relay_pair *pair = half->pair;
  pair->pending--;
  if (pair->over)
    hy_sga_free(r->shard, &event->sga); /* it came too late */
  else if (event->op == HY_OP_CONNECT)
    on_connect(r, half, event->status);
  else if (event->status < 0)
    pair_end(r, pair, true);
  else if (event->op == HY_OP_POP)
    on_pop(r, half, event);
  else
    push_on(r, half);
  pair_release_if_quiet(r, pair);
}

/* ---- the whole ------------------------------------------------------------------------ */

int relay_open(struct relay *r, int listen_backend, uint16_t port) {
  for (int i = 0; i < RELAY_PAIRS; i++) {
    r->pairs[i].next_free = r->free;
    r->free = &r->pairs[i];
  }
  hy_qd qd;
  hy_qt qt;
  const hy_addr any = {.port = port};
  int rc = hy_socket(r->shard, HY_STREAM, &qd);
  if (rc == 0)
    rc = hy_set_backend(r->shard, qd, listen_backend);
  if (rc == 0)
    rc = hy_bind(r->shard, qd, &any);
  if (rc == 0)
    rc = hy_listen(r->shard, qd, BACKLOG);
  for (int i = 0; rc == 0 && i < ACCEPTS; i++)
    rc = hy_accept(r->shard, qd, &qt);
  return rc;
}

int relay_run(struct relay *r, const volatile sig_atomic_t *stop) {
  hy_event events[EVENTS];
  while (!*stop) {
    /* A signal ends a sleep, but one that comes just before it does not: so sleep for 100 ms at most. */
    int n = hy_wait_any(r->shard, events, EVENTS, 100 * 1000 * 1000);
    if (n < 0 && n != -EINTR)
      return n;
    for (int i = 0; i < n; i++)
      on_event(r, &events[i]);
  }
  return 0;
}
