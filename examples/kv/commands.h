/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands: a table of names, how many arguments each takes, and what runs.
 * Replies, errors included, are those of Redis 7.0, word for word.
 */
#ifndef KV_COMMANDS_H
#define KV_COMMANDS_H

#include "session.h"

#define KV_OUT_OF_MEMORY "-OOM command not allowed when used memory > 'maxmemory'."

/* One command being run. */
struct call {
  struct kv *kv;
  struct session *session;
  struct reply *reply;
  const struct resp_arg *argv;
  uint32_t argc;
};

enum command_flags {
  COMMAND_WRITE = 1,
  COMMAND_READONLY = 2,
  COMMAND_DENYOOM = 4,
  COMMAND_ADMIN = 8,
  COMMAND_FAST = 16,
};

struct command {
  const char *name;                     /* lower case; of a subcommand: without its parent's */
  void (*run)(const struct call *call); /* NULL: subcommands only */
  const struct command *subcommands;    /* ends with a name of NULL */
  const char *group, *since, *summary;  /* for COMMAND DOCS */
  int8_t arity;                         /* words, the name included; negative: at least */
  uint8_t flags;                        /* enum command_flags */
  int8_t first_key, last_key, key_step; /* positions, as COMMAND tells them */
};

/* Builds the look-up table and the replies of COMMAND; again does no harm. */
void commands_init(void);
/* Finds the command, checks its arity, runs it. Always writes exactly one reply (or closes the session). */
void command_run(const struct call *call);

const struct command *commands_all(unsigned *count);
/* NULL: no such command. */
const struct command *command_find(const struct resp_arg *name);

/* Whether the argument is this word, upper or lower case. `word` is lower case. */
bool arg_is(const struct resp_arg *arg, const char *word);
#define ARG_FORMAT(arg, most) (int)((arg)->len < (most) ? (arg)->len : (most)), (const char *)(arg)->data

/* admin.c: what is about the server, not about keys. */
extern const struct command client_subcommands[], command_subcommands[], config_subcommands[];
void admin_init(void);
void run_command(const struct call *call);
void run_info(const struct call *call);

#endif
