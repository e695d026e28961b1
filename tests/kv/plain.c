/* SPDX-License-Identifier: Apache-2.0 */
/* The plain sink and its session; plain.h says what for. */
#include "plain.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct kv *plain_kv(size_t max_memory_bytes) {
  struct kv *kv = calloc(1, sizeof *kv);
  struct kv_config config = {.max_memory_bytes = max_memory_bytes, .max_clients = 16, .port = 6379};
  memcpy(config.hash_key, "0123456789abcdef", 16);
  if (kv == NULL || kv_init(kv, &config, 1000000) < 0)
    abort();
  return kv;
}

void plain_kv_free(struct kv *kv) {
  kv_fini(kv);
  free(kv);
}

static struct plain *owner(struct reply *r) {
  return (struct plain *)((char *)r - offsetof(struct plain, session.reply));
}

/* What was written since the last time counts, and makes place for as much again. */
static void settle(struct plain *p) {
  struct reply *r = &p->session.reply;
  if (r->at != NULL) {
    size_t end = (size_t)(r->at - p->out);
    p->since_empty += end - p->out_len;
    p->out_len = end;
  }
  r->at = r->end = NULL;
  r->beyond = 0;
}

static void plain_next(struct reply *r) {
  r->end = r->at + r->beyond;
  r->beyond = 0;
}

/* Gives room in two pieces, so that replies run over the border between them. */
static bool plain_more(struct reply *r, size_t want) {
  struct plain *p = owner(r);
  settle(p);
  if (p->until_full > 0 && p->since_empty >= p->until_full) {
    p->waits++;
    return false;
  }
  size_t give = REPLY_ROOM + (p->step > 0 ? p->step : want);
  if (p->out_len + give > p->out_room) {
    p->out_room = 2 * (p->out_len + give);
    p->out = realloc(p->out, p->out_room);
    assert(p->out != NULL);
  }
  r->at = p->out + p->out_len;
  r->end = r->at + give / 3;
  r->beyond = give - give / 3;
  return true;
}

static const struct reply_sink plain_sink = {.next = plain_next, .more = plain_more};

void plain_open(struct plain *p, struct kv *kv) {
  *p = (struct plain){.kv = kv, .status = SESSION_READ};
  session_open(kv, &p->session, &plain_sink);
}

void plain_close(struct plain *p) {
  session_close(p->kv, &p->session);
  free(p->out);
}

void plain_feed(struct plain *p, const void *data, size_t len, size_t piece) {
  const uint8_t *at = data;
  while (len > 0 && p->status == SESSION_READ) {
    size_t n = piece == 0 || piece > len ? len : piece;
    uint8_t *copy = malloc(n);
    assert(copy != NULL);
    memcpy(copy, at, n);
    for (size_t done = 0;;) {
      size_t used;
      p->status = session_run(p->kv, &p->session, copy + done, n - done, &used);
      done += used;
      assert(done <= n);
      if (p->status != SESSION_WAIT)
        break;
      settle(p);
      p->since_empty = 0;
    }
    free(copy);
    at += n;
    len -= n;
  }
  settle(p);
}
