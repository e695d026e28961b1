/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key-value session over plain memory, for tests: input goes in cut as the test
 * likes, replies come out of a sink whose room is as small as the test likes.
 *
 * Every piece of input is a copy in a block of its own that is freed as soon as
 * the session may no longer look at it, so a sanitizer sees every pointer that is
 * kept too long.
 */
#ifndef HYBRID_TESTS_KV_PLAIN_H
#define HYBRID_TESTS_KV_PLAIN_H

#include "session.h"

struct plain {
  struct kv *kv;
  struct session session;
  uint8_t *out; /* all replies so far */
  size_t out_len, out_room;
  size_t step;       /* most room that the sink gives at a time, beyond the least; 0: plenty */
  size_t until_full; /* bytes that the sink takes before it is full; plain_feed() empties it then */
  size_t since_empty;
  unsigned waits; /* how often the sink was full */
  enum session_status status;
};

/* A kv of its own with a fixed hash key; now_ms is 1,000,000. */
struct kv *plain_kv(size_t max_memory_bytes);
void plain_kv_free(struct kv *kv);

void plain_open(struct plain *p, struct kv *kv);
void plain_close(struct plain *p);
/* Feeds it in pieces of `piece` bytes (0: at once) until the session wants to close. */
void plain_feed(struct plain *p, const void *data, size_t len, size_t piece);

#endif
