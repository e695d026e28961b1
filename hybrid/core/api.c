/* SPDX-License-Identifier: Apache-2.0 */
/* The queue API of hybrid.h: arguments checked, tokens taken, the rest done by the queue's transport. */
#include <errno.h>
#include <string.h>

#include "core/addr.h"
#include "core/shard.h"

uint64_t hy_now(const hy_shard *shard) {
  return shard->stack.now;
}

int hy_clock_set(hy_shard *shard, uint64_t now_ns) {
  if (shard->config.clock != HY_CLOCK_VIRTUAL || now_ns < shard->virtual_now)
    return -EINVAL;
  shard->virtual_now = now_ns;
  return 0;
}

uint64_t hy_next_deadline(hy_shard *shard) {
  if (stack_wants_output(&shard->stack) || shard->tokens.ready_head != TOKEN_NONE)
    return shard->stack.now;
  return shard_next_deadline(shard);
}

/* ---- scatter-gather arrays ---------------------------------------------------- */

/*
 * Payload per frame such that a piece is one segment on any of the shard's links: what is left of the
 * smallest MTU after IPv6 and TCP headers with timestamps, and never more than a frame holds.
 */
static uint32_t piece_bytes(const hy_shard *shard) {
  uint32_t mtu = 1500;
  if (shard->live_devices == 0 && shard->transports[HY_BACKEND_KERNEL]) /* the kernel cuts segments itself */
    return arena_frame_room(&shard->arena);
  for (uint32_t i = 0; i < shard->stack.nlinks; i++)
    if (i == 0 || shard->stack.links[i].mtu_bytes < mtu)
      if (shard->stack.links[i].known)
        mtu = shard->stack.links[i].mtu_bytes;
  /* Of a larger MTU's segments, the even part that a frame holds: whole pieces then fill one. */
  uint32_t piece = mtu - 72, fits = arena_frame_room(&shard->arena);
  return piece <= fits ? piece : piece / ((piece + fits - 1) / fits);
}

size_t hy_sga_max(const hy_shard *shard) {
  return (size_t)HY_SGA_SEGS * piece_bytes(shard);
}

int hy_sga_alloc(hy_shard *shard, size_t len_bytes, hy_sga *out) {
  uint32_t piece = piece_bytes(shard);
  *out = (hy_sga){0};
  if (len_bytes == 0)
    return -EINVAL;
  if (len_bytes > (size_t)HY_SGA_SEGS * piece)
    return -EMSGSIZE;
  while (len_bytes > 0) {
    uint32_t len = len_bytes < piece ? (uint32_t)len_bytes : piece;
    uint32_t frame = FRAME_NONE;
    /* The last frames are for headers, ACKs and what arrives: without them nothing would ever become free. */
    if (shard->app_frames < shard->config.app_frames_max && !frames_scarce(&shard->stack))
      frame = frame_alloc(&shard->arena);
    if (frame == FRAME_NONE) {
      hy_sga_free(shard, out);
      return -ENOBUFS;
    }
    frame_meta(&shard->arena, frame)->len = (uint16_t)len;
    shard->app_frames++;
    out->segs[out->nsegs++] =
        (hy_seg){.addr = frame_data(&shard->arena, frame), .len_bytes = len, .frame = frame};
    len_bytes -= len;
  }
  return 0;
}

void hy_sga_free(hy_shard *shard, hy_sga *sga) {
  assert(sga->nsegs <= HY_SGA_SEGS);
  for (uint32_t i = 0; i < sga->nsegs; i++)
    frame_unref(&shard->arena, sga->segs[i].frame);
  assert(shard->app_frames >= sga->nsegs);
  shard->app_frames -= sga->nsegs;
  sga->nsegs = 0;
}

/* Whether every piece lies in its frame: an application's mistake must not become a wild read. */
static bool sga_valid(const hy_shard *shard, const hy_sga *sga) {
  if (!sga || sga->nsegs > HY_SGA_SEGS)
    return false;
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    const hy_seg *s = &sga->segs[i];
    if (s->frame >= shard->config.frames || frame_meta(&shard->arena, s->frame)->refs == 0)
      return false;
    size_t off = (size_t)((const uint8_t *)s->addr - frame_base(&shard->arena, s->frame));
    if (off > shard->config.frame_size || s->len_bytes > shard->config.frame_size - off)
      return false;
  }
  return true;
}

int hy_sga_ref(hy_shard *shard, const hy_sga *sga, hy_sga *out) {
  if (!sga_valid(shard, sga))
    return -EINVAL;
  if (shard->app_frames + sga->nsegs > shard->config.app_frames_max)
    return -ENOBUFS;
  for (uint32_t i = 0; i < sga->nsegs; i++)
    frame_ref(&shard->arena, sga->segs[i].frame);
  shard->app_frames += sga->nsegs;
  *out = *sga;
  return 0;
}

size_t hy_sga_bytes(const hy_sga *sga) {
  size_t bytes = 0;
  for (uint32_t i = 0; i < sga->nsegs; i++)
    bytes += sga->segs[i].len_bytes;
  return bytes;
}

/* ---- queues --------------------------------------------------------------------- */

int hy_socket(hy_shard *shard, int type, hy_qd *out) {
  if (type != HY_STREAM && type != HY_DGRAM)
    return -EINVAL;
  uint32_t index =
      queue_take(&shard->queues, type == HY_STREAM ? QUEUE_STREAM : QUEUE_DGRAM, &shard->stack.transport);
  if (index == QUEUE_NONE)
    return -ENOBUFS;
  *out = queue_qd(&shard->queues, index);
  return 0;
}

/* The queue could not be bound or connected: the next attempt may go elsewhere. */
static void unplace(hy_shard *shard, struct queue *q, bool was_placed) {
  if (was_placed || q->bound)
    return;
  q->transport = &shard->stack.transport;
  q->placed = 0;
}

/* The launcher keeps ports of the stack's from others; the kernel's own sockets keep theirs themselves. */
static void notice_bound(hy_shard *shard, const struct queue *q, bool dgram, uint32_t kind) {
  bool in_kernel = q->transport != &shard->stack.transport || q->also != 0;
  hy_notice notice = {
      .kind = kind, .addr = q->local, .arg = (dgram ? 17u : 6u) | (in_kernel ? HY_NOTICE_IN_KERNEL : 0u)};
  shard_notice(shard, &notice);
}

static void close_also(hy_shard *shard, struct queue *q) {
  struct transport *kernel = shard->transports[HY_BACKEND_KERNEL];
  if (q->also != 0)
    kernel->ops->close_also(kernel, q);
  q->also = 0;
}

int hy_bind(hy_shard *shard, hy_qd qd, const hy_addr *local) {
  struct queue *q = queue_find(&shard->queues, qd);
  if (!q)
    return -EBADF;
  if (!local || (local->family != 0 && local->family != 4 && local->family != 6))
    return -EINVAL;
  bool was_placed = q->placed;
  place_bind(shard, q, local);
  int rc = q->transport->ops->bind(q->transport, q, local);
  if (rc < 0)
    unplace(shard, q, was_placed);
  else if (q->kind == QUEUE_DGRAM)
    notice_bound(shard, q, true, HY_NOTICE_BOUND);
  return rc;
}

int hy_listen(hy_shard *shard, hy_qd qd, int backlog) {
  struct queue *q = queue_find(&shard->queues, qd);
  if (!q)
    return -EBADF;
  bool had_fallback = q->also != 0; /* it listens already */
  int rc = place_listen(shard, q, backlog);
  if (rc < 0)
    return rc;
  rc = q->transport->ops->listen(q->transport, q, backlog);
  if (rc == 0)
    notice_bound(shard, q, false, HY_NOTICE_BOUND);
  else if (!had_fallback)
    close_also(shard, q);
  return rc;
}

int hy_local(hy_shard *shard, hy_qd qd, hy_addr *out) {
  const struct queue *q = queue_find(&shard->queues, qd);
  if (!q)
    return -EBADF;
  if (q->local.port == 0)
    return -ENOTCONN;
  *out = q->local;
  return 0;
}

int hy_peer(hy_shard *shard, hy_qd qd, hy_addr *out) {
  const struct queue *q = queue_find(&shard->queues, qd);
  return q ? q->transport->ops->peer(q->transport, q, out) : -EBADF;
}

int hy_set_user(hy_shard *shard, hy_qd qd, void *user) {
  struct queue *q = queue_find(&shard->queues, qd);
  if (!q)
    return -EBADF;
  q->user = user;
  return 0;
}

int hy_shutdown(hy_shard *shard, hy_qd qd) {
  struct queue *q = queue_find(&shard->queues, qd);
  return q ? q->transport->ops->shutdown(q->transport, q) : -EBADF;
}

void shard_close_queue(hy_shard *shard, struct queue *q, bool hard) {
  close_also(shard, q);
  q->transport->ops->close(q->transport, q, hard);
}

static int close_queue(hy_shard *shard, hy_qd qd, bool hard) {
  struct queue *q = queue_find(&shard->queues, qd);
  if (!q)
    return -EBADF;
  if (q->kind == QUEUE_LISTENER || (q->kind == QUEUE_DGRAM && q->bound))
    notice_bound(shard, q, q->kind == QUEUE_DGRAM, HY_NOTICE_UNBOUND);
  shard_close_queue(shard, q, hard);
  queue_release(&shard->queues, queue_index(&shard->queues, q));
  return 0;
}

int hy_close(hy_shard *shard, hy_qd qd) {
  return close_queue(shard, qd, false);
}
int hy_abort(hy_shard *shard, hy_qd qd) {
  return close_queue(shard, qd, true);
}

/* ---- operations ------------------------------------------------------------------- */

/* Looks up the queue and takes a token for an operation on it. */
static int begin(hy_shard *shard, hy_qd qd, enum hy_op op, struct queue **q, uint32_t *token) {
  *q = queue_find(&shard->queues, qd);
  if (!*q)
    return -EBADF;
  *token = token_take(&shard->tokens, op, queue_index(&shard->queues, *q), qd);
  return *token == TOKEN_NONE ? -ENOBUFS : 0;
}

/* Names the token for the caller, or gives it back where the operation couldn't start. */
static int finish(hy_shard *shard, int rc, uint32_t token, hy_qt *qt) {
  if (rc < 0)
    token_release(&shard->tokens, token);
  else
    *qt = token_name(&shard->tokens, token);
  return rc;
}

/* One of the connections that the fallback has taken is enough for one waiting accept. */
static void wake_also(hy_shard *shard, struct queue *q) {
  struct transport *kernel = shard->transports[HY_BACKEND_KERNEL];
  if (q->pops.head != TOKEN_NONE && kernel->ops->also_ready(kernel, q))
    token_complete(&shard->tokens, token_list_shift(&shard->tokens, &q->pops), 0, q->user);
}

int hy_accept(hy_shard *shard, hy_qd qd, hy_qt *qt) {
  struct queue *q;
  uint32_t token;
  int rc = begin(shard, qd, HY_OP_ACCEPT, &q, &token);
  if (rc < 0)
    return rc;
  rc = finish(shard, q->transport->ops->accept(q->transport, q, token), token, qt);
  if (rc == 0 && q->also != 0)
    wake_also(shard, q);
  return rc;
}

/* Whom nobody can connect to is refused here, whatever would carry it. */
static int peer_check(const struct queue *q, const hy_addr *peer) {
  if (peer->port == 0 || (peer->family != 4 && peer->family != 6) || ip_is_zero(peer->ip) ||
      ip_is_multicast(peer->ip))
    return -EINVAL;
  return q->bound && q->local.family != 0 && q->local.family != peer->family ? -EAFNOSUPPORT : 0;
}

int hy_connect(hy_shard *shard, hy_qd qd, const hy_addr *peer, hy_qt *qt) {
  struct queue *q;
  uint32_t token;
  int rc = begin(shard, qd, HY_OP_CONNECT, &q, &token);
  if (rc < 0)
    return rc;
  bool was_placed = q->placed;
  rc = peer_check(q, peer);
  if (rc == 0) {
    place_connect(shard, q, peer);
    rc = q->transport->ops->connect(q->transport, q, peer, token);
  }
  rc = finish(shard, rc, token, qt);
  if (rc < 0)
    unplace(shard, q, was_placed);
  return rc;
}

int hy_pop(hy_shard *shard, hy_qd qd, hy_qt *qt) {
  struct queue *q;
  uint32_t token;
  int rc = begin(shard, qd, HY_OP_POP, &q, &token);
  return rc < 0 ? rc : finish(shard, q->transport->ops->pop(q->transport, q, token), token, qt);
}

int hy_drain(hy_shard *shard, hy_qd qd, hy_qt *qt) {
  struct queue *q;
  uint32_t token;
  int rc = begin(shard, qd, HY_OP_DRAIN, &q, &token);
  return rc < 0 ? rc : finish(shard, q->transport->ops->drain(q->transport, q, token), token, qt);
}

static int push(hy_shard *shard, hy_qd qd, const hy_sga *sga, const hy_addr *peer, hy_qt *qt) {
  struct queue *q;
  uint32_t token = TOKEN_NONE;
  int rc;
  if (!sga_valid(shard, sga))
    return -EINVAL;
  if (qt) {
    rc = begin(shard, qd, HY_OP_PUSH, &q, &token);
    if (rc < 0)
      return rc;
  } else if (!(q = queue_find(&shard->queues, qd))) {
    return -EBADF;
  }
  bool was_placed = q->placed;
  if (__builtin_expect(peer && !was_placed, 0))
    place_connect(shard, q, peer);
  rc = q->transport->ops->push(q->transport, q, sga, peer, token, qt == NULL);
  if (__builtin_expect(rc < 0, 0))
    unplace(shard, q, was_placed);
  return qt ? finish(shard, rc, token, qt) : rc;
}

int hy_push(hy_shard *shard, hy_qd qd, const hy_sga *sga, hy_qt *qt) {
  return push(shard, qd, sga, NULL, qt);
}

int hy_pushto(hy_shard *shard, hy_qd qd, const hy_sga *sga, const hy_addr *peer, hy_qt *qt) {
  return push(shard, qd, sga, peer, qt);
}

int hy_cancel(hy_shard *shard, hy_qt qt) {
  struct token *t = token_find(&shard->tokens, qt);
  if (!t || t->state != TOKEN_WAITING)
    return -ENOENT;
  struct queue *q = &shard->queues.slots[t->queue];
  uint32_t index = (uint32_t)(t - shard->tokens.slots);
  q->transport->ops->cancel(q->transport, q, index);
  token_complete(&shard->tokens, index, -ECANCELED, q->user);
  return 0;
}

/* ---- waiting ------------------------------------------------------------------------ */

/* An accept for which the queue's own transport has nothing (any more): the fallback may have. */
static bool deliver_also(hy_shard *shard, struct queue *q, hy_event *event) {
  struct transport *kernel = shard->transports[HY_BACKEND_KERNEL];
  if (event->op != HY_OP_ACCEPT || q->also == 0 || !kernel->ops->accept_also(kernel, q, event))
    return false;
  if (event->accepted >= 0)
    shard->stats->fallback_accepts++;
  return true;
}

/* Hands out one completed token; false if what it stood for is gone and it waits again. */
static bool hand_out(hy_shard *shard, uint32_t index, hy_event *event) {
  struct tokens *tokens = &shard->tokens;
  struct token *t = &tokens->slots[index];
  /* One by one: the array of pieces is large and only its first nsegs mean anything. */
  event->qt = token_name(tokens, index);
  event->user = t->user;
  event->qd = t->qd;
  event->op = t->op;
  event->status = t->status;
  event->accepted = -1;
  event->addr = (hy_addr){0};
  event->sga.nsegs = event->sga.reserved = 0;
  struct queue *q = queue_find(&shard->queues, t->qd);
  if (q) {
    if (!q->transport->ops->deliver(q->transport, q, t, event) && !deliver_also(shard, q, event)) {
      token_unready(tokens, t);
      t->state = TOKEN_WAITING;
      token_list_push(tokens, &q->pops, index);
      return false;
    }
  } else if (event->status == 0 && (t->op == HY_OP_POP || t->op == HY_OP_ACCEPT)) {
    event->status = -ECANCELED; /* closed since: what it had is gone */
  }
  if (__builtin_expect(index == tokens->ready_head, 1))
    token_retire_oldest(tokens);
  else
    token_release(tokens, index);
  shard->stats->events++;
  return true;
}

static int collect(hy_shard *shard, hy_event *events, int max) {
  struct tokens *tokens = &shard->tokens;
  int n = 0;
  while (n < max && tokens->ready_head != TOKEN_NONE)
    n += hand_out(shard, tokens->ready_head, &events[n]);
  return n;
}

/* Called after a pass without result: sleeps, or says that it is time to give up (0), or goes on (1). */
static int idle(hy_shard *shard, uint64_t until) {
  uint64_t now = shard->stack.now;
  if (now >= until || shard->config.clock == HY_CLOCK_VIRTUAL) /* virtual time doesn't pass by waiting */
    return 0;
  if (shard->config.spin_ns != UINT64_MAX && now - shard->idle_since >= shard->config.spin_ns) {
    int rc = shard_sleep(shard, until);
    if (rc < 0)
      return rc;
  }
  return 1;
}

static uint64_t wait_until(const hy_shard *shard, int64_t timeout_ns) {
  if (timeout_ns < 0)
    return UINT64_MAX;
  return shard->stack.now + (uint64_t)timeout_ns;
}

int hy_wait_any(hy_shard *shard, hy_event *events, int max, int64_t timeout_ns) {
  if (max < 1)
    return -EINVAL;
  uint64_t until = 0;
  for (bool first = true;; first = false) {
    shard_poll(shard);
    if (first)
      until = wait_until(shard, timeout_ns);
    int n = collect(shard, events, max);
    if (n > 0)
      return n;
    int rc = idle(shard, until);
    if (rc <= 0)
      return rc;
  }
}

int hy_wait(hy_shard *shard, hy_qt qt, hy_event *event, int64_t timeout_ns) {
  uint64_t until = 0;
  for (bool first = true;; first = false) {
    const struct token *t = token_find(&shard->tokens, qt);
    if (!t)
      return -ENOENT;
    shard_poll(shard);
    if (first)
      until = wait_until(shard, timeout_ns);
    if (t->state == TOKEN_READY && hand_out(shard, (uint32_t)qt, event))
      return 1;
    int rc = idle(shard, until);
    if (rc <= 0)
      return rc;
  }
}

int hy_poll(hy_shard *shard) {
  return (int)shard_poll(shard);
}
