/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transport moves bytes for queues. api.c checks arguments and takes tokens;
 * a transport does the rest and completes tokens when it can. The common stack
 * (tcp/) is one; it runs over any device. Others bring their own streams: kernel
 * sockets through io_uring (uring/). A shard has one of each kind at most, and a
 * queue belongs to one of them from its bind or connect on (place.h).
 *
 * `token` arguments are waiting tokens: on success the transport owns them until
 * it completes them; on failure they stay the caller's.
 */
#ifndef HYBRID_CORE_TRANSPORT_H
#define HYBRID_CORE_TRANSPORT_H

#include "core/queue.h"

struct transport_ops;

/* Embedded first in each transport's own structure, which is what the functions below are given. */
struct transport {
  const struct transport_ops *ops;
};

struct transport_ops {
  const char *name;
  int (*bind)(void *t, struct queue *q, const hy_addr *local);
  int (*listen)(void *t, struct queue *q, int backlog);
  int (*accept)(void *t, struct queue *q, uint32_t token);
  /* peer: an address that can be connected to, of the family that the queue is bound to. */
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

  /*
   * A second listener for a queue that another transport owns (place.h: fallback). What it
   * accepts is this transport's. Sets q->also, which is not 0 while it stands; completes
   * the queue's accepts as its own listeners would. All NULL: cannot be a fallback.
   */
  int (*listen_also)(void *t, struct queue *q, int backlog);
  bool (*also_ready)(void *t, const struct queue *q); /* a connection waits to be accepted */
  /* As deliver of an accept; false: none is there any more. */
  bool (*accept_also)(void *t, struct queue *q, hy_event *event);
  void (*close_also)(void *t, struct queue *q);

  /* The loop. All NULL for the common stack, which the shard drives itself. */
  /* One pass: submits what was asked for, reaps what completed. How much it found. */
  unsigned (*progress)(void *t, uint64_t now);
  /* When progress wants to run although nothing happens; UINT64_MAX: never. */
  uint64_t (*deadline)(void *t);
  /* Makes wait_fd() become readable on the next completion; 1 if something is there already. */
  int (*wait_arm)(void *t);
  /* A descriptor to poll(2) for reading, or -1: can only be polled. */
  int (*wait_fd)(void *t);
  /*
   * Where nothing else is to be waited for: sleeps until there is something or ns have passed, for less than
   * arming and poll(2). -EINTR. May be NULL.
   */
  int (*sleep)(void *t, uint64_t ns);
  /* At the shard's end, when every queue has been closed: frees the structure. */
  void (*fini)(void *t);
};

/* For backends: makes t the shard's transport of this kind (enum hy_backend). -EBUSY: it has one. */
int shard_add_transport(hy_shard *shard, int backend, struct transport *t);

#endif
