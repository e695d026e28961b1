/* SPDX-License-Identifier: Apache-2.0 */
/* The commands about the server and the connection: COMMAND, CONFIG, INFO, CLIENT. */
#include "commands.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Text that is built by appending; what doesn't fit is a bug, found by the assert. */
struct text {
  char *bytes;
  size_t len, room;
};

__attribute__((format(printf, 2, 3))) static void text_add(struct text *t, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(t->bytes + t->len, t->room - t->len, format, args);
  va_end(args);
  assert(n >= 0 && (size_t)n < t->room - t->len);
  t->len += (size_t)n;
}

static void text_bulk(struct text *t, const char *string) {
  text_add(t, "$%zu\r\n%s\r\n", strlen(string), string);
}

/* ---- COMMAND ------------------------------------------------------------ */

/* What is told about each command never changes: made once, sent from here ever after. */
enum { DESCRIBED_MAX = 32, DESCRIPTIONS_BYTES = 16384 };
struct description {
  uint32_t at, len;
};
static struct description infos[DESCRIBED_MAX], docs[DESCRIBED_MAX];
static char descriptions[DESCRIPTIONS_BYTES];

static void describe_info(struct text *t, const struct command *command) {
  static const char *const names[] = {"write", "readonly", "denyoom", "admin", "fast"};
  text_add(t, "*10\r\n");
  text_bulk(t, command->name);
  text_add(t, ":%d\r\n*%d\r\n", command->arity, __builtin_popcount(command->flags));
  for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
    if (command->flags & 1u << i)
      text_add(t, "+%s\r\n", names[i]);
  /* Then ACL categories, tips, key specifications, subcommands: none. */
  text_add(t, ":%d\r\n:%d\r\n:%d\r\n*0\r\n*0\r\n*0\r\n*0\r\n", command->first_key, command->last_key,
           command->key_step);
}

static void describe_doc(struct text *t, const struct command *command) {
  text_bulk(t, command->name);
  text_add(t, "*6\r\n");
  text_bulk(t, "summary");
  text_bulk(t, command->summary);
  text_bulk(t, "since");
  text_bulk(t, command->since);
  text_bulk(t, "group");
  text_bulk(t, command->group);
}

void admin_init(void) {
  unsigned count;
  const struct command *all = commands_all(&count);
  assert(count <= DESCRIBED_MAX);
  struct text t = {.bytes = descriptions, .room = sizeof descriptions};
  for (unsigned i = 0; i < count; i++) {
    infos[i].at = (uint32_t)t.len;
    describe_info(&t, &all[i]);
    infos[i].len = (uint32_t)t.len - infos[i].at;
    docs[i].at = (uint32_t)t.len;
    describe_doc(&t, &all[i]);
    docs[i].len = (uint32_t)t.len - docs[i].at;
  }
}

static void reply_description(const struct call *c, const struct description *d) {
  reply_raw(c->reply, NULL, (const uint8_t *)descriptions + d->at, d->len);
}

void run_command(const struct call *c) {
  unsigned count;
  commands_all(&count);
  reply_array(c->reply, count);
  for (unsigned i = 0; i < count; i++)
    reply_description(c, &infos[i]);
}

static void run_command_count(const struct call *c) {
  unsigned count;
  commands_all(&count);
  reply_integer(c->reply, count);
}

static void run_command_info(const struct call *c) {
  unsigned count;
  const struct command *all = commands_all(&count);
  if (c->argc == 2) {
    run_command(c);
    return;
  }
  reply_array(c->reply, c->argc - 2);
  for (uint32_t i = 2; i < c->argc; i++) {
    const struct command *found = command_find(&c->argv[i]);
    if (found != NULL)
      reply_description(c, &infos[found - all]);
    else
      REPLY(c->reply, "*-1\r\n");
  }
}

/* A map, flat as RESP2 has it: name, description, name, description. Unknown names are left out. */
static void run_command_docs(const struct call *c) {
  unsigned count;
  const struct command *all = commands_all(&count);
  if (c->argc == 2) {
    reply_array(c->reply, 2 * (size_t)count);
    for (unsigned i = 0; i < count; i++)
      reply_description(c, &docs[i]);
    return;
  }
  size_t known = 0;
  for (uint32_t i = 2; i < c->argc; i++)
    known += command_find(&c->argv[i]) != NULL;
  reply_array(c->reply, 2 * known);
  for (uint32_t i = 2; i < c->argc; i++) {
    const struct command *found = command_find(&c->argv[i]);
    if (found != NULL)
      reply_description(c, &docs[found - all]);
  }
}

const struct command command_subcommands[] = {
    {.name = "count", .run = run_command_count, .arity = 2},
    {.name = "docs", .run = run_command_docs, .arity = -2},
    {.name = "info", .run = run_command_info, .arity = -2},
    {.name = NULL},
};

/* ---- CONFIG ------------------------------------------------------------- */

/* '*' and '?' only; a star is tried again one byte further instead of by recursion, so time is bounded. */
static bool glob_matches(const struct resp_arg *pattern, const char *name) {
  uint32_t p = 0, star = UINT32_MAX;
  size_t n = 0, star_n = 0;
  while (name[n] != '\0') {
    uint8_t c = p < pattern->len ? pattern->data[p] : 0;
    if (c >= 'A' && c <= 'Z')
      c |= 0x20;
    if (p < pattern->len && c == '*') {
      star = p++;
      star_n = n;
    } else if (p < pattern->len && (c == '?' || c == (uint8_t)name[n])) {
      p++;
      n++;
    } else if (star != UINT32_MAX) {
      p = star + 1;
      n = ++star_n;
    } else {
      return false;
    }
  }
  while (p < pattern->len && pattern->data[p] == '*')
    p++;
  return p == pattern->len;
}

static void run_config_get(const struct call *c) {
  char max_memory[24], max_clients[24], port[24], max_bulk[24];
  snprintf(max_memory, sizeof max_memory, "%zu", c->kv->config.max_memory_bytes);
  snprintf(max_clients, sizeof max_clients, "%u", c->kv->config.max_clients);
  snprintf(port, sizeof port, "%u", c->kv->config.port);
  snprintf(max_bulk, sizeof max_bulk, "%d", RESP_BULK_MAX);
  const struct {
    const char *name, *value;
  } settings[] = {
      {"save", ""},
      {"appendonly", "no"},
      {"databases", "1"},
      {"port", port},
      {"maxclients", max_clients},
      {"maxmemory", max_memory},
      {"maxmemory-policy", "noeviction"},
      {"proto-max-bulk-len", max_bulk},
  };
  enum { SETTINGS = sizeof settings / sizeof settings[0] };
  bool asked[SETTINGS] = {false};
  size_t count = 0;
  for (unsigned i = 0; i < SETTINGS; i++) {
    for (uint32_t arg = 2; arg < c->argc && !asked[i]; arg++)
      asked[i] = glob_matches(&c->argv[arg], settings[i].name);
    count += asked[i];
  }
  reply_array(c->reply, 2 * count);
  for (unsigned i = 0; i < SETTINGS; i++) {
    if (asked[i]) {
      reply_bulk(c->reply, settings[i].name, strlen(settings[i].name));
      reply_bulk(c->reply, settings[i].value, strlen(settings[i].value));
    }
  }
}

const struct command config_subcommands[] = {
    {.name = "get", .run = run_config_get, .arity = -3},
    {.name = NULL},
};

/* ---- INFO --------------------------------------------------------------- */

static void info_server(struct text *t, const struct kv *kv) {
  text_add(t, "redis_version:7.0.0\r\nserver_name:hybrid-kv\r\nredis_mode:standalone\r\nprocess_id:%d\r\n",
           getpid());
  text_add(t, "tcp_port:%u\r\nuptime_in_seconds:%lld\r\n", kv->config.port,
           (long long)((kv->now_ms - kv->start_ms) / 1000));
}

static void info_clients(struct text *t, const struct kv *kv) {
  text_add(t, "connected_clients:%u\r\nmaxclients:%u\r\n", kv->clients, kv->config.max_clients);
}

static void info_memory(struct text *t, const struct kv *kv) {
  text_add(t, "used_memory:%zu\r\nmaxmemory:%zu\r\nmaxmemory_policy:noeviction\r\n",
           memory_used_bytes(&kv->memory), kv->config.max_memory_bytes);
}

static void info_stats(struct text *t, const struct kv *kv) {
  text_add(t, "total_connections_received:%llu\r\nrejected_connections:%llu\r\n",
           (unsigned long long)kv->accepted, (unsigned long long)kv->rejected);
  text_add(t, "total_commands_processed:%llu\r\nexpired_keys:%llu\r\n", (unsigned long long)kv->commands,
           (unsigned long long)kv->store.expired);
  text_add(t, "keyspace_hits:%llu\r\nkeyspace_misses:%llu\r\n", (unsigned long long)kv->hits,
           (unsigned long long)kv->misses);
  text_add(t, "slow_clients_closed:%llu\r\n", (unsigned long long)kv->evicted_clients);
}

static void info_keyspace(struct text *t, const struct kv *kv) {
  if (kv->store.entries > 0)
    text_add(t, "db0:keys=%llu,expires=%llu,avg_ttl=0\r\n", (unsigned long long)kv->store.entries,
             (unsigned long long)kv->store.expiring);
}

void run_info(const struct call *c) {
  static const struct {
    const char *name, *title;
    void (*write)(struct text *t, const struct kv *kv);
  } sections[] = {
      {"server", "Server", info_server},       {"clients", "Clients", info_clients},
      {"memory", "Memory", info_memory},       {"stats", "Stats", info_stats},
      {"keyspace", "Keyspace", info_keyspace},
  };
  enum { INFO_BYTES = 2000 };
  struct pin *pin = memory_alloc(&c->kv->memory, sizeof *pin + INFO_BYTES, MEMORY_TRANSIT);
  if (pin == NULL) {
    reply_error(c->reply, "%s", KV_OUT_OF_MEMORY);
    return;
  }
  pin->refs = 1;
  struct text t = {.bytes = (char *)(pin + 1), .room = INFO_BYTES};
  for (unsigned i = 0; i < sizeof sections / sizeof sections[0]; i++) {
    bool asked = c->argc == 1;
    for (uint32_t arg = 1; arg < c->argc && !asked; arg++)
      asked = arg_is(&c->argv[arg], sections[i].name) || arg_is(&c->argv[arg], "all") ||
              arg_is(&c->argv[arg], "default") || arg_is(&c->argv[arg], "everything");
    if (!asked)
      continue;
    text_add(&t, "%s# %s\r\n", t.len > 0 ? "\r\n" : "", sections[i].title);
    sections[i].write(&t, c->kv);
  }
  reply_value(c->reply, pin, (const uint8_t *)t.bytes, t.len);
  pin_drop(&c->kv->memory, pin);
}

/* ---- CLIENT ------------------------------------------------------------- */

static void run_client_id(const struct call *c) {
  reply_integer(c->reply, (int64_t)c->session->id);
}

static void run_client_getname(const struct call *c) {
  if (c->session->name_len == 0)
    REPLY(c->reply, "$-1\r\n");
  else
    reply_bulk(c->reply, c->session->name, c->session->name_len);
}

static void run_client_setname(const struct call *c) {
  const struct resp_arg *name = &c->argv[2];
  for (uint32_t i = 0; i < name->len; i++) {
    if (name->data[i] < '!' || name->data[i] > '~') {
      reply_error(c->reply, "Client names cannot contain spaces, newlines or special characters.");
      return;
    }
  }
  if (name->len > SESSION_NAME_MAX) {
    reply_error(c->reply, "Client names cannot be longer than %d bytes.", SESSION_NAME_MAX);
    return;
  }
  memcpy(c->session->name, name->data, name->len);
  c->session->name_len = (uint8_t)name->len;
  REPLY(c->reply, "+OK\r\n");
}

/* Newer client libraries introduce themselves unasked. */
static void run_client_setinfo(const struct call *c) {
  if (arg_is(&c->argv[2], "lib-name") || arg_is(&c->argv[2], "lib-ver"))
    REPLY(c->reply, "+OK\r\n");
  else
    reply_error(c->reply, "Unrecognized option '%.*s'", ARG_FORMAT(&c->argv[2], 128u));
}

const struct command client_subcommands[] = {
    {.name = "getname", .run = run_client_getname, .arity = 2},
    {.name = "id", .run = run_client_id, .arity = 2},
    {.name = "setinfo", .run = run_client_setinfo, .arity = 4},
    {.name = "setname", .run = run_client_setname, .arity = 3},
    {.name = NULL},
};
