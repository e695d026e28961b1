/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transport moves bytes for queues. api.c checks arguments and takes tokens;
 * a transport does the rest and completes tokens when it can. The common stack
 * (tcp/) is one; it runs over any device.
 *
 * `token` arguments are waiting tokens: on success the transport owns them until
 * it completes them; on failure they stay the caller's.
 */
#ifndef HYBRID_CORE_TRANSPORT_H
#define HYBRID_CORE_TRANSPORT_H

#include "core/queue.h"

struct transport_ops {
  const char *name;
  int (*bind)(void *t, struct queue *q, const hy_addr *local);
  int (*listen)(void *t, struct queue *q, int backlog);
  int (*accept)(void *t, struct queue *q, uint32_t token);
  int (*connect)(void *t, struct queue *q, const hy_addr *peer, uint32_t token);
  /* give: the references of sga become the transport's. token may be TOKEN_NONE. */
  int (*push)(void *t, struct queue *q, const hy_sga *sga, const hy_addr *peer, uint32_t token, bool give);
  int (*pop)(void *t, struct queue *q, uint32_t token);
  int (*drain)(void *t, struct queue *q, uint32_t token);
  /* Takes a waiting token off whatever it waits on. */
  void (*cancel)(void *t, struct queue *q, uint32_t token);
  int (*shutdown)(void *t, struct queue *q);
  /* The queue is gone after this; hard: by reset. Completes every token of the queue. */
  void (*close)(void *t, struct queue *q, bool hard);
  int (*peer)(void *t, const struct queue *q, hy_addr *out);
  /*
   * Fills in what a completed token promised (data, the accepted qd), at the
   * moment it is handed out. False: what it stood for is gone and it waits again.
   */
  bool (*deliver)(void *t, struct queue *q, const struct token *token, hy_event *event);
};

#endif
