/* SPDX-License-Identifier: Apache-2.0 */
/* The key-value server on hybrid's queues: server.c runs it, main.c reads the options. */
#ifndef KV_SERVER_H
#define KV_SERVER_H

#include "hybrid.h"
#include "session.h"

#include <signal.h>

enum { SERVER_BINDS_MAX = 16 };

struct server_options {
  struct kv_config kv;
  hy_addr binds[SERVER_BINDS_MAX]; /* with the port; none: every local address */
  unsigned nbinds;
  uint64_t spin_ns; /* as hy_config's; 0: its default */
};

/* What the shard needs for this many clients. */
void server_shard_config(const struct server_options *options, hy_config *config);
/*
 * Serves until *stop is set: 0, or the negative errno of what can't be mended.
 * Tells the launcher that it listens (hy_shard_ready); prints one line then.
 */
int server_run(hy_shard *shard, const struct server_options *options, const volatile sig_atomic_t *stop);

#endif
