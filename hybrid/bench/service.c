/* SPDX-License-Identifier: Apache-2.0 */
/* Both services over plain buffers; see service.h. */
#include "bench/service.h"

#include "bench/bench.h"
#include "session.h"

#include <string.h>
#include <time.h>

/* ---- echo -------------------------------------------------------------------- */

static void echo_init(void) {}

static void echo_begin_or_end(unsigned connection) {}

static const void *echo_run(unsigned connection, const void *data, size_t bytes, size_t *reply_bytes) {
  *reply_bytes = bytes;
  return data;
}

/* ---- key-value ----------------------------------------------------------------- */

enum { REPLIES = 1 << 20 }; /* more than what one piece of input can ask for here */

static struct kv kv;
static struct session sessions[SERVICE_CONNECTIONS];
static uint8_t replies[REPLIES];

/* The whole room is given at once, so none is ever beyond it. */
static bool kv_reply_more(struct reply *r, size_t want) {
  return false;
}

static const struct reply_sink kv_sink = {.more = kv_reply_more};

static int64_t kv_now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void kv_service_init(void) {
  struct kv_config config = {.max_memory_bytes = 64u << 20, .max_clients = SERVICE_CONNECTIONS};
  if (kv_init(&kv, &config, kv_now_ms()) < 0)
    bench_fail("no memory for the store");
}

static void kv_service_open(unsigned connection) {
  session_open(&kv, &sessions[connection], &kv_sink);
}

static void kv_service_close(unsigned connection) {
  session_close(&kv, &sessions[connection]);
}

static const void *kv_service_run(unsigned connection, const void *data, size_t bytes, size_t *reply_bytes) {
  struct session *s = &sessions[connection];
  size_t used;
  kv.now_ms = kv_now_ms();
  s->reply.at = replies;
  s->reply.end = replies + REPLIES;
  if (session_run(&kv, s, data, bytes, &used) != SESSION_READ)
    bench_fail("the store could not answer");
  *reply_bytes = (size_t)(s->reply.at - replies);
  return replies;
}

const struct service *service_named(const char *name) {
  static const struct service services[] = {
      {"echo", echo_init, echo_begin_or_end, echo_begin_or_end, echo_run},
      {"kv", kv_service_init, kv_service_open, kv_service_close, kv_service_run},
  };
  for (size_t i = 0; i < sizeof services / sizeof services[0]; i++)
    if (strcmp(services[i].name, name) == 0)
      return &services[i];
  return NULL;
}
