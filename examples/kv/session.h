/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server without a network: bytes of a connection in, replies out.
 *
 *     piece of input -> resp_parse -> command_run -> reply -> sink
 *
 * `struct kv` is what all connections share, `struct session` what one has of
 * its own. server.c runs sessions over hybrid's queues; the tests and the fuzzer
 * run the same code over plain buffers.
 */
#ifndef KV_SESSION_H
#define KV_SESSION_H

#include "reply.h"
#include "resp.h"
#include "store.h"

struct kv_config {
  size_t max_memory_bytes;
  uint32_t max_clients;
  uint16_t port; /* for INFO and CONFIG GET */
  uint8_t hash_key[16];
};

struct kv {
  struct memory memory;
  struct store store;
  struct kv_config config;
  int64_t now_ms;   /* set by the caller before it runs sessions; never goes back */
  int64_t start_ms; /* now_ms at start */
  uint64_t next_id;
  uint32_t clients; /* connected */
  uint64_t accepted, rejected, commands, hits, misses, evicted_clients;
  struct resp_scratch scratch;
  struct reply_item items[REPLY_ITEMS_MAX];
};

enum { SESSION_NAME_MAX = 127 };

struct session {
  struct resp resp;
  struct reply reply;
  uint64_t id;
  uint8_t closing; /* the last reply has been written */
  uint8_t name_len;
  char name[SESSION_NAME_MAX + 1];
};

enum session_status {
  SESSION_READ,  /* all input is used: give more */
  SESSION_WAIT,  /* the sink is full: call again with the same input, from *used on, when it isn't */
  SESSION_CLOSE, /* what is written is the end: send it and close */
  SESSION_ABORT, /* a reply was begun that can't be finished: close at once */
};

/* -ENOMEM. A kv is large: in static or mapped memory, not on a stack. */
int kv_init(struct kv *kv, const struct kv_config *config, int64_t now_ms);
void kv_fini(struct kv *kv);

void session_open(struct kv *kv, struct session *s, const struct reply_sink *sink);
enum session_status session_run(struct kv *kv, struct session *s, const uint8_t *data, size_t len,
                                size_t *used);
/* Gives back everything that the session holds of kv. */
void session_close(struct kv *kv, struct session *s);

#endif
