/* SPDX-License-Identifier: Apache-2.0 */
/* One connection's loop from bytes to replies; session.h has the picture. */
#include "session.h"

#include "commands.h"

#include <errno.h>
#include <stdio.h>

int kv_init(struct kv *kv, const struct kv_config *config, int64_t now_ms) {
  kv->config = *config;
  kv->now_ms = kv->start_ms = now_ms;
  /* For commands and replies under way: one large one, and a page and a half for every client. */
  size_t transit_bytes = 2 * (size_t)MEMORY_BLOCK_MAX + (size_t)config->max_clients * 6144;
  int rc = memory_init(&kv->memory, config->max_memory_bytes, transit_bytes);
  if (rc < 0)
    return rc;
  rc = store_init(&kv->store, &kv->memory, config->max_memory_bytes, config->hash_key);
  if (rc < 0) {
    memory_fini(&kv->memory);
    return rc;
  }
  kv->scratch.memory = &kv->memory;
  commands_init();
  return 0;
}

void kv_fini(struct kv *kv) {
  store_fini(&kv->store);
  memory_fini(&kv->memory);
}

void session_open(struct kv *kv, struct session *s, const struct reply_sink *sink) {
  *s = (struct session){.id = ++kv->next_id};
  resp_init(&s->resp);
  reply_init(&s->reply, sink);
  kv->clients++;
  kv->accepted++;
}

void session_close(struct kv *kv, struct session *s) {
  resp_release(&s->resp, &kv->scratch);
  reply_abandon(&s->reply, &kv->memory, kv->items);
  kv->clients--;
}

static void protocol_error(struct session *s) {
  static const char *const sentences[] = {
      [RESP_BAD_MULTIBULK] = "invalid multibulk length", [RESP_BAD_BULK] = "invalid bulk length",
      [RESP_BIG_INLINE] = "too big inline request",      [RESP_BIG_MULTIBULK] = "too big mbulk count string",
      [RESP_BIG_BULK] = "too big bulk count string",     [RESP_QUOTES] = "unbalanced quotes in request",
  };
  if (s->resp.error == RESP_NOT_BULK)
    reply_error(&s->reply, "Protocol error: expected '$', got '%c'", s->resp.got);
  else
    reply_error(&s->reply, "Protocol error: %s", sentences[s->resp.error]);
}

/* Sends what the last command left to be sent. True when nothing is left. */
static bool drain(struct kv *kv, struct session *s) {
  if (!reply_pump(&s->reply, &kv->memory))
    return false;
  reply_abandon(&s->reply, &kv->memory, kv->items);
  return true;
}

enum session_status session_run(struct kv *kv, struct session *s, const uint8_t *data, size_t len,
                                size_t *used) {
  *used = 0;
  if (reply_pending(&s->reply) && !drain(kv, s))
    return SESSION_WAIT;
  while (!s->closing) {
    if (!reply_ready(&s->reply))
      return SESSION_WAIT;
    s->reply.items = kv->items; /* shared: whoever runs a command has it */
    size_t taken;
    enum resp_status status = resp_parse(&s->resp, &kv->scratch, data + *used, len - *used, &taken);
    *used += taken;
    switch (status) {
    case RESP_MORE:
      return SESSION_READ;
    case RESP_COMMAND:
      kv->commands++;
      command_run(&(struct call){kv, s, &s->reply, s->resp.argv, s->resp.argc});
      break;
    case RESP_DROPPED:
      reply_error(&s->reply, "%s", KV_OUT_OF_MEMORY);
      break;
    case RESP_ERROR:
      protocol_error(s);
      s->closing = 1;
      break;
    }
    resp_release(&s->resp, &kv->scratch);
    if (reply_pending(&s->reply) && !drain(kv, s))
      return reply_keep(&s->reply, &kv->memory, kv->items) ? SESSION_WAIT : SESSION_ABORT;
  }
  return SESSION_CLOSE;
}
