/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack under test. stack_main.c drives it; stack_hybrid.c and stack_lwip.c
 * are one each, in programs of their own because their internal names collide.
 *
 * A batch of frames is loaded into the subject's own buffers before the clock
 * starts. Measured is run(): the stack's work from the first frame in to the
 * last one handled, with the application on top (one that frees what it reads,
 * or one that sends it back). Subtracted is empty(): the same loop handing the
 * same frames to nobody.
 */
#ifndef HYBRID_BENCH_STACK_H
#define HYBRID_BENCH_STACK_H

#include "bench/stack_peer.h"

enum { STACK_BATCH = 64 }; /* segments per sample */

struct stack_subject {
  const char *name;
  /* Starts the stack, listening on PEER_SERVICE; what it sends goes to peer_take(). */
  void (*open)(struct peer *peer, bool echo);
  /* Bracket everything between: the stack does nothing by itself meanwhile. */
  void (*lock)(void);
  void (*unlock)(void);
  /* Copies a frame into the subject's buffer number slot, 0..STACK_BATCH-1. */
  void (*load)(unsigned slot, const uint8_t *frame, size_t len_bytes);
  /* Hands over the first n slots and lets the stack settle; for handshakes. */
  void (*settle)(unsigned n);
  void (*empty)(unsigned n, unsigned burst);
  void (*run)(unsigned n, unsigned burst);
  /* Payload bytes that the application on top has read since open. */
  uint64_t (*app_bytes)(void);
};

extern const struct stack_subject stack_subject;

#endif
