/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A relay: takes TCP connections and forwards each to another address, both ways,
 * across backends. What one side receives lies in frames of the shard's arena, and
 * the other side sends from there: a byte that came by AF_XDP and leaves by a
 * kernel socket, or the other way, is copied by neither this program nor the library
 * where the backends allow it.
 *
 *        client                    pair                      target
 *          |  pop -->  half 0   =========>   half 1  --> push  |
 *          |  push <-- half 1's unsent <===  half 1  <-- pop   |
 *
 * Each direction is in one of these states:
 *
 *     popping --> pushed on --> popping ...          the rule
 *                 no room: the other half keeps it, drains, pushes --> popping
 *     the peer has ended --> the other side is shut down, and its own direction goes on
 *
 * So a direction holds one scatter-gather array here and at most what the send queue
 * takes in the library; meanwhile nothing more is popped, and the sender stops when its
 * window is full. A connection that is reset resets its other half.
 */
#ifndef HYBRID_EXAMPLES_RELAY_H
#define HYBRID_EXAMPLES_RELAY_H

#include "hybrid.h"

#include <signal.h>

enum { RELAY_PAIRS = 4096 };

struct relay_pair;

/* One connection. `unsent` is what it has yet to send for the other. */
struct relay_half {
  struct relay_pair *pair;
  hy_qd qd; /* -1: none */
  hy_sga unsent;
  bool ended; /* its peer has sent all it will */
};

struct relay_pair {
  struct relay_half halves[2]; /* the client's, the target's */
  uint32_t pending;            /* operations whose event has not come: until then the pair is not used anew */
  bool over;
  struct relay_pair *next_free;
};

struct relay {
  hy_shard *shard;
  hy_addr target;
  int target_backend; /* enum hy_backend */
  uint64_t relayed;   /* connections that a target has been found for */
  uint64_t refused;   /* that none was found for, or that there was no pair for */
  struct relay_pair *free;
  struct relay_pair pairs[RELAY_PAIRS];
};

/* Listens on a port of every local address. What the library says where it fails. */
int relay_open(struct relay *relay, int listen_backend, uint16_t port);
/* Relays until *stop. */
int relay_run(struct relay *relay, const volatile sig_atomic_t *stop);

#endif
