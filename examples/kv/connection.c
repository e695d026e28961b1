/* SPDX-License-Identifier: Apache-2.0 */
/* The sink that writes replies into packet memory, and a session's run; connection.h has the states. */
#include "connection.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* ---- lists --------------------------------------------------------------- */

void connection_list_add(struct connection_list *list, struct connection *c) {
  c->previous = list->last;
  c->next = NULL;
  if (list->last != NULL)
    list->last->next = c;
  else
    list->first = c;
  list->last = c;
}

void connection_list_remove(struct connection_list *list, struct connection *c) {
  if (c->previous != NULL)
    c->previous->next = c->next;
  else
    list->first = c->next;
  if (c->next != NULL)
    c->next->previous = c->previous;
  else
    list->last = c->previous;
}

/* ---- out: frames that replies are written into ---------------------------- */

static struct connection *owner(struct reply *r) {
  return (struct connection *)((char *)r - offsetof(struct connection, session.reply));
}

static void out_begin(struct reply *r, const hy_seg *seg) {
  r->at = seg->addr;
  r->end = r->at + seg->len_bytes;
}

static void out_next(struct reply *r) {
  struct connection *c = owner(r);
  const hy_seg *seg = &c->out.segs[++c->out_seg];
  assert(c->out_seg < c->out.nsegs && r->beyond >= seg->len_bytes);
  r->beyond -= seg->len_bytes;
  out_begin(r, seg);
}

/* Frees the pieces of `sga` from `first` on. */
static void sga_cut(hy_shard *shard, hy_sga *sga, uint32_t first) {
  if (first >= sga->nsegs)
    return;
  hy_sga rest = {.nsegs = sga->nsegs - first};
  memcpy(rest.segs, sga->segs + first, rest.nsegs * sizeof rest.segs[0]);
  sga->nsegs = first;
  hy_sga_free(shard, &rest);
}

/* Pushes what has been written. Without a token: our references pass to the library, unless it fails. */
static bool out_push(struct connection *c) {
  struct reply *r = &c->session.reply;
  if (c->out.nsegs > 0 && r->at != NULL) { /* NULL: cut to size already, at an attempt before */
    hy_seg *last = &c->out.segs[c->out_seg];
    last->len_bytes = (uint32_t)(r->at - (uint8_t *)last->addr);
    sga_cut(c->shard, &c->out, last->len_bytes > 0 ? c->out_seg + 1 : c->out_seg);
  }
  r->at = r->end = NULL;
  r->beyond = 0;
  if (c->out.nsegs == 0)
    return true;
  int rc = hy_push(c->shard, c->qd, &c->out, NULL);
  if (rc == 0) {
    c->out.nsegs = 0;
    return true;
  }
  c->want_drain = rc == -EAGAIN;               /* the send queue is full */
  c->broken = rc != -EAGAIN && rc != -ENOBUFS; /* or the library is, which passes */
  return false;
}

/* More room: frames behind those being written while the array has places, else push and begin anew. */
static bool out_more(struct reply *r, size_t want) {
  struct connection *c = owner(r);
  bool unsent = c->out.nsegs > 0 && r->at == NULL;
  if ((unsent || c->out.nsegs == HY_SGA_SEGS) && !out_push(c))
    return false;
  size_t most = (size_t)(HY_SGA_SEGS - c->out.nsegs) * c->piece_bytes;
  size_t bytes =
      want < c->piece_bytes ? c->piece_bytes : want; /* whole frames: the next reply will want them */
  hy_sga fresh;
  int rc = hy_sga_alloc(c->shard, bytes < most ? bytes : most, &fresh);
  if (rc < 0) {
    c->want_drain = 0;
    return false;
  }
  assert(c->out.nsegs + fresh.nsegs <= HY_SGA_SEGS);
  size_t had = c->out.nsegs;
  memcpy(c->out.segs + had, fresh.segs, fresh.nsegs * sizeof fresh.segs[0]);
  c->out.nsegs += fresh.nsegs;
  r->beyond += hy_sga_bytes(&fresh);
  if (had == 0) {
    c->out_seg = 0;
    r->beyond -= c->out.segs[0].len_bytes;
    out_begin(r, &c->out.segs[0]);
  }
  return true;
}

static const struct reply_sink frames_sink = {.next = out_next, .more = out_more};

/* ---- life ----------------------------------------------------------------- */

void connection_open(struct kv *kv, struct connection *c, hy_shard *shard, hy_qd qd) {
  *c = (struct connection){
      .shard = shard, .qd = qd, .piece_bytes = (uint32_t)(hy_sga_max(shard) / HY_SGA_SEGS)};
  session_open(kv, &c->session, &frames_sink);
}

void connection_close(struct kv *kv, struct connection *c, bool reset) {
  session_close(kv, &c->session);
  hy_sga_free(c->shard, &c->in);
  hy_sga_free(c->shard, &c->out);
  if (reset)
    hy_abort(c->shard, c->qd);
  else
    hy_close(c->shard, c->qd);
  c->state = CONNECTION_FREE;
}

/* Which way out of a refused sink. */
static enum connection_next wait_for(const struct connection *c) {
  if (c->broken)
    return NEXT_RESET;
  return c->want_drain ? NEXT_DRAIN : NEXT_RETRY;
}

enum connection_next connection_run(struct kv *kv, struct connection *c) {
  static const uint8_t nothing[1];
  enum session_status status;
  do { /* once where there is no input, too: a reply may be left from before */
    const hy_seg *seg = c->in_seg < c->in.nsegs ? &c->in.segs[c->in_seg] : NULL;
    const uint8_t *data = seg != NULL ? (const uint8_t *)seg->addr + c->in_byte : nothing;
    size_t used;
    status = session_run(kv, &c->session, data, seg != NULL ? seg->len_bytes - c->in_byte : 0, &used);
    c->in_byte += (uint32_t)used;
    if (status == SESSION_READ) {
      c->in_seg++;
      c->in_byte = 0;
    }
  } while (status == SESSION_READ && c->in_seg < c->in.nsegs);
  if (status == SESSION_WAIT)
    return wait_for(c);
  if (status == SESSION_ABORT)
    return NEXT_RESET;
  hy_sga_free(c->shard, &c->in);
  c->in_seg = c->in_byte = 0;
  /* One push for everything that this input asked for. */
  if (!out_push(c))
    return wait_for(c);
  return status == SESSION_CLOSE ? NEXT_FINISH : NEXT_POP;
}
