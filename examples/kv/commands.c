/* SPDX-License-Identifier: Apache-2.0 */
/* The command table and the commands about keys; commands.h for the shape, admin.c for the rest. */
#include "commands.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define NIL "$-1\r\n"
static const char not_an_integer[] = "value is not an integer or out of range";
static const char syntax_error[] = "syntax error";

static void wrong_arity(const struct call *c, const char *name) {
  reply_error(c->reply, "wrong number of arguments for '%s' command", name);
}

static struct entry **place_of(const struct call *c, uint32_t arg) {
  return store_place(&c->kv->store, c->argv[arg].data, c->argv[arg].len, c->kv->now_ms);
}

/* An argument as the reply. One that doesn't fit into the room there is gets a block of its own. */
static void reply_arg(const struct call *c, const struct resp_arg *arg) {
  if (arg->len + 26 <= REPLY_ROOM) {
    reply_bulk(c->reply, arg->data, arg->len);
    return;
  }
  struct pin *pin = memory_alloc(&c->kv->memory, sizeof *pin + arg->len, MEMORY_TRANSIT);
  if (pin == NULL) {
    reply_error(c->reply, "%s", KV_OUT_OF_MEMORY);
    return;
  }
  pin->refs = 1;
  memcpy(pin + 1, arg->data, arg->len);
  reply_value(c->reply, pin, (const uint8_t *)(pin + 1), arg->len);
  pin_drop(&c->kv->memory, pin);
}

/* ---- connection --------------------------------------------------------- */

static void run_ping(const struct call *c) {
  if (c->argc > 2)
    wrong_arity(c, "ping");
  else if (c->argc == 2)
    reply_arg(c, &c->argv[1]);
  else
    REPLY(c->reply, "+PONG\r\n");
}

static void run_echo(const struct call *c) {
  reply_arg(c, &c->argv[1]);
}

static void run_quit(const struct call *c) {
  REPLY(c->reply, "+OK\r\n");
  c->session->closing = 1;
}

/* ---- strings ------------------------------------------------------------ */

static void reply_entry(const struct call *c, struct entry *e) {
  if (e == NULL) {
    c->kv->misses++;
    REPLY(c->reply, NIL);
  } else {
    c->kv->hits++;
    reply_value(c->reply, &e->pin, entry_value(e), e->value_len);
  }
}

static void run_get(const struct call *c) {
  reply_entry(c, *place_of(c, 1));
}

static void run_mget(const struct call *c) {
  reply_array(c->reply, c->argc - 1);
  for (uint32_t i = 1; i < c->argc; i++)
    reply_entry(c, *place_of(c, i));
}

struct set_options {
  bool if_new, if_old, seconds;
  const struct resp_arg *expire; /* NULL: none */
};

static bool set_options_read(const struct call *c, struct set_options *o) {
  for (uint32_t i = 3; i < c->argc; i++) {
    const struct resp_arg *word = &c->argv[i];
    bool seconds = arg_is(word, "ex");
    if (arg_is(word, "nx") && !o->if_old) {
      o->if_new = true;
    } else if (arg_is(word, "xx") && !o->if_new) {
      o->if_old = true;
    } else if ((seconds || arg_is(word, "px")) && i + 1 < c->argc &&
               (o->expire == NULL || o->seconds == seconds)) {
      o->seconds = seconds;
      o->expire = &c->argv[++i];
    } else {
      return false;
    }
  }
  return true;
}

/* The time at which the key expires. False: an error has been replied. */
static bool set_expiry(const struct call *c, const struct set_options *o, int64_t *expires_ms) {
  int64_t after;
  *expires_ms = STORE_NO_EXPIRY;
  if (o->expire == NULL)
    return true;
  if (!resp_integer(o->expire->data, o->expire->len, &after)) {
    reply_error(c->reply, not_an_integer);
    return false;
  }
  if (after <= 0 || (o->seconds && __builtin_mul_overflow(after, 1000, &after)) ||
      __builtin_add_overflow(after, c->kv->now_ms, expires_ms)) {
    reply_error(c->reply, "invalid expire time in 'set' command");
    return false;
  }
  return true;
}

static void run_set(const struct call *c) {
  struct set_options options = {0};
  int64_t expires_ms;
  if (!set_options_read(c, &options)) {
    reply_error(c->reply, syntax_error);
    return;
  }
  if (!set_expiry(c, &options, &expires_ms))
    return;
  const struct resp_arg *key = &c->argv[1], *value = &c->argv[2];
  struct entry **place = place_of(c, 1);
  if ((options.if_new && *place != NULL) || (options.if_old && *place == NULL))
    REPLY(c->reply, NIL);
  else if (store_put(&c->kv->store, place, key->data, key->len, value->data, value->len, expires_ms) < 0)
    reply_error(c->reply, "%s", KV_OUT_OF_MEMORY);
  else
    REPLY(c->reply, "+OK\r\n");
}

/* All or nothing: every entry is made before the first is put in its place. */
static void run_mset(const struct call *c) {
  struct store *store = &c->kv->store;
  if (c->argc % 2 == 0) {
    wrong_arity(c, "mset");
    return;
  }
  struct entry *made = NULL;
  for (uint32_t i = c->argc - 2; i >= 1 && i < c->argc; i -= 2) {
    const struct resp_arg *key = &c->argv[i], *value = key + 1;
    struct entry *e = store_entry(store, key->data, key->len, value->data, value->len, STORE_NO_EXPIRY);
    if (e == NULL)
      goto undo;
    e->next = made;
    made = e;
  }
  for (struct entry *e = made, *next; e != NULL; e = next) {
    next = e->next;
    store_link(store, store_place(store, e->bytes, e->key_len, c->kv->now_ms), e);
  }
  REPLY(c->reply, "+OK\r\n");
  return;
undo:
  for (struct entry *next; made != NULL; made = next) {
    next = made->next;
    pin_drop(&c->kv->memory, &made->pin);
  }
  reply_error(c->reply, "%s", KV_OUT_OF_MEMORY);
}

static void run_incr(const struct call *c) {
  struct entry **place = place_of(c, 1);
  int64_t value = 0;
  if (*place != NULL && !resp_integer(entry_value(*place), (*place)->value_len, &value)) {
    reply_error(c->reply, not_an_integer);
    return;
  }
  if (value == INT64_MAX) {
    reply_error(c->reply, "increment or decrement would overflow");
    return;
  }
  char text[24];
  int n = snprintf(text, sizeof text, "%lld", (long long)++value);
  int64_t expires_ms = *place != NULL ? (*place)->expires_ms : STORE_NO_EXPIRY;
  if (store_put(&c->kv->store, place, c->argv[1].data, c->argv[1].len, text, (size_t)n, expires_ms) < 0)
    reply_error(c->reply, "%s", KV_OUT_OF_MEMORY);
  else
    reply_integer(c->reply, value);
}

/* ---- keys --------------------------------------------------------------- */

static void run_del(const struct call *c) {
  int64_t removed = 0;
  for (uint32_t i = 1; i < c->argc; i++) {
    struct entry **place = place_of(c, i);
    if (*place != NULL) {
      store_remove(&c->kv->store, place);
      removed++;
    }
  }
  reply_integer(c->reply, removed);
}

static void run_exists(const struct call *c) {
  int64_t found = 0;
  for (uint32_t i = 1; i < c->argc; i++)
    found += *place_of(c, i) != NULL;
  reply_integer(c->reply, found);
}

static void run_dbsize(const struct call *c) {
  reply_integer(c->reply, (int64_t)c->kv->store.entries);
}

static void run_flushall(const struct call *c) {
  if (c->argc > 2 || (c->argc == 2 && !arg_is(&c->argv[1], "sync") && !arg_is(&c->argv[1], "async"))) {
    reply_error(c->reply, syntax_error);
    return;
  }
  store_flush(&c->kv->store);
  REPLY(c->reply, "+OK\r\n");
}

/* ---- the table ---------------------------------------------------------- */

enum { W = COMMAND_WRITE, R = COMMAND_READONLY, OOM = COMMAND_DENYOOM, A = COMMAND_ADMIN, F = COMMAND_FAST };

static const struct command commands[] = {
    {"client", NULL, client_subcommands, "connection", "2.4.0", "Commands about this connection", -2, 0, 0, 0,
     0},
    {"command", run_command, command_subcommands, "server", "2.8.13", "Describes the commands", -1, 0, 0, 0,
     0},
    {"config", NULL, config_subcommands, "server", "2.0.0", "Commands about the configuration", -2, A, 0, 0,
     0},
    {"dbsize", run_dbsize, NULL, "server", "1.0.0", "Counts the keys", 1, R | F, 0, 0, 0},
    {"del", run_del, NULL, "generic", "1.0.0", "Removes keys", -2, W, 1, -1, 1},
    {"echo", run_echo, NULL, "connection", "1.0.0", "Answers with its argument", 2, F, 0, 0, 0},
    {"exists", run_exists, NULL, "generic", "1.0.0", "Counts which of the keys exist", -2, R | F, 1, -1, 1},
    {"flushall", run_flushall, NULL, "server", "1.0.0", "Removes every key", -1, W, 0, 0, 0},
    {"get", run_get, NULL, "string", "1.0.0", "Gives the value of a key", 2, R | F, 1, 1, 1},
    {"incr", run_incr, NULL, "string", "1.0.0", "Adds one to the number at a key", 2, W | OOM | F, 1, 1, 1},
    {"info", run_info, NULL, "server", "1.0.0", "Tells about the server", -1, 0, 0, 0, 0},
    {"mget", run_mget, NULL, "string", "1.0.0", "Gives the values of several keys", -2, R | F, 1, -1, 1},
    {"mset", run_mset, NULL, "string", "1.0.1", "Sets several keys, all or none", -3, W | OOM, 1, -1, 2},
    {"ping", run_ping, NULL, "connection", "1.0.0", "Answers PONG, or its argument", -1, F, 0, 0, 0},
    {"quit", run_quit, NULL, "connection", "1.0.0", "Closes the connection", -1, F, 0, 0, 0},
    {"set", run_set, NULL, "string", "1.0.0",
     "Sets a key, with EX or PX for a time, with NX or XX on a condition", -3, W | OOM, 1, 1, 1},
};
enum { COMMANDS = sizeof commands / sizeof commands[0], SLOTS = 64, NAME_MAX = 16 };

const struct command *commands_all(unsigned *count) {
  *count = COMMANDS;
  return commands;
}

bool arg_is(const struct resp_arg *arg, const char *word) {
  uint32_t i = 0;
  for (; i < arg->len; i++) {
    uint8_t c = arg->data[i];
    if (c >= 'A' && c <= 'Z')
      c |= 0x20;
    if (word[i] == '\0' || c != (uint8_t)word[i])
      return false;
  }
  return word[i] == '\0';
}

/* Length, first and last letter tell all commands apart, or nearly: open addressing takes care of the rest.
 */
static const struct command *slots[SLOTS];
static_assert(COMMANDS < SLOTS, "a look-up ends at an empty slot");

static unsigned slot_of(const uint8_t *name, size_t len) {
  return (unsigned)(len * 5 + (name[0] | 0x20u) + 3u * (name[len - 1] | 0x20u)) % SLOTS;
}

void commands_init(void) {
  memset(slots, 0, sizeof slots);
  for (unsigned i = 0; i < COMMANDS; i++) {
    unsigned slot = slot_of((const uint8_t *)commands[i].name, strlen(commands[i].name));
    while (slots[slot] != NULL)
      slot = (slot + 1) % SLOTS;
    slots[slot] = &commands[i];
  }
  admin_init();
}

const struct command *command_find(const struct resp_arg *name) {
  if (name->len == 0 || name->len > NAME_MAX)
    return NULL;
  for (unsigned slot = slot_of(name->data, name->len); slots[slot] != NULL; slot = (slot + 1) % SLOTS)
    if (arg_is(name, slots[slot]->name))
      return slots[slot];
  return NULL;
}

static void unknown_command(const struct call *c) {
  /* Words of HTTP: somebody makes a browser talk to us. No reply, as Redis. */
  if (arg_is(&c->argv[0], "host:") || arg_is(&c->argv[0], "post")) {
    c->session->closing = 1;
    return;
  }
  char args[300] = "";
  size_t n = 0;
  for (uint32_t i = 1; i < c->argc && n < 128; i++)
    n += (size_t)snprintf(args + n, sizeof args - n, "'%.*s' ", ARG_FORMAT(&c->argv[i], 128 - (uint32_t)n));
  reply_error(c->reply, "unknown command '%.*s', with args beginning with: %s", ARG_FORMAT(&c->argv[0], 128u),
              args);
}

static bool arity_holds(const struct command *command, uint32_t argc) {
  return command->arity >= 0 ? argc == (uint32_t)command->arity : argc >= (uint32_t)-command->arity;
}

static void subcommand_run(const struct call *c, const struct command *parent) {
  const struct command *sub = parent->subcommands;
  while (sub->name != NULL && !arg_is(&c->argv[1], sub->name))
    sub++;
  if (sub->name == NULL) {
    char upper[NAME_MAX + 1] = "";
    for (unsigned i = 0; parent->name[i] != '\0'; i++)
      upper[i] = (char)(parent->name[i] & ~0x20);
    reply_error(c->reply, "unknown subcommand '%.*s'. Try %s HELP.", ARG_FORMAT(&c->argv[1], 128u), upper);
  } else if (!arity_holds(sub, c->argc)) {
    reply_error(c->reply, "wrong number of arguments for '%s|%s' command", parent->name, sub->name);
  } else {
    sub->run(c);
  }
}

void command_run(const struct call *c) {
  assert(c->argc > 0);
  const struct command *command = command_find(&c->argv[0]);
  if (command == NULL)
    unknown_command(c);
  else if (command->subcommands != NULL && c->argc > 1)
    subcommand_run(c, command);
  else if (!arity_holds(command, c->argc))
    wrong_arity(c, command->name);
  else
    command->run(c);
}
