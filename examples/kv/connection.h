/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the server: a session between two queues.
 *
 *     hy_pop -> in: the pieces being read -> session -> out: frames being filled -> hy_push
 *
 * It is always in exactly one of these states, each with at most one operation
 * under way, so nothing is ever waited for twice:
 *
 *     READING    hy_pop: waits for the client to say something
 *     DRAINING   hy_drain: the send queue is full; input waits in `in`
 *     STARVED    no operation: the shard had no frame to give; tried again soon
 *     LINGERING  hy_pop: all is said and shut down; what still comes is dropped,
 *                so that the client gets our last reply instead of a reset
 */
#ifndef KV_CONNECTION_H
#define KV_CONNECTION_H

#include "hybrid.h"
#include "session.h"

enum connection_state {
  CONNECTION_FREE,
  CONNECTION_READING,
  CONNECTION_DRAINING,
  CONNECTION_STARVED,
  CONNECTION_LINGERING
};

struct connection_list {
  struct connection *first, *last;
};

struct connection {
  struct session session;
  struct connection *previous, *next; /* in a list of its state */
  hy_shard *shard;
  hy_qd qd;
  uint8_t state;      /* enum connection_state */
  uint8_t want_drain; /* the sink was refused because the send queue is full, not for want of frames */
  uint8_t broken;     /* the sink was refused for good */
  uint32_t in_seg;    /* where reading has come to: piece, and byte within it */
  uint32_t in_byte;
  uint32_t out_seg; /* the piece being written */
  uint32_t lingered_bytes;
  uint64_t since_ns;    /* in this state */
  uint32_t piece_bytes; /* payload of one frame */
  hy_sga in;
  hy_sga out; /* len_bytes of each piece is its room until it is pushed */
};

void connection_list_add(struct connection_list *list, struct connection *c);
void connection_list_remove(struct connection_list *list, struct connection *c);

void connection_open(struct kv *kv, struct connection *c, hy_shard *shard, hy_qd qd);
/* Gives back whatever it holds, and the qd: in order, or by reset. */
void connection_close(struct kv *kv, struct connection *c, bool reset);

enum connection_next {
  NEXT_POP,    /* wants input */
  NEXT_DRAIN,  /* wants room in the send queue */
  NEXT_RETRY,  /* wants frames */
  NEXT_FINISH, /* everything is said */
  NEXT_RESET,  /* lost */
};
/* Reads what is in `in` and writes replies, as far as that goes now. */
enum connection_next connection_run(struct kv *kv, struct connection *c);

#endif
