/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An io_uring as everything in this folder wants it: one thread submits and reaps,
 * and the kernel does its part of the work only when that thread asks for it
 * (IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_DEFER_TASKRUN; Linux 6.1), so nothing
 * interrupts a burst. A flag in the shared ring says that there is work, so looking
 * for it costs no system call.
 *
 * The thread need not be the one that opens the ring: a ring belongs to whoever
 * starts it (uring_ring_start), which is the first one that uses it.
 */
#ifndef HYBRID_URING_RING_H
#define HYBRID_URING_RING_H

#include <liburing.h>
#include <stdbool.h>

/*
 * To sleep on a ring beside other things. poll(2) on the ring itself is not woken by work that the
 * kernel has deferred, whatever it says when it looks; a registered event descriptor is. It is
 * switched off while its owner is awake, when each signal would only cost.
 */
struct uring_bell {
  int fd; /* poll(2)-able for reading; -1: there is none */
  bool armed;
};

/*
 * `entries` may wait to be submitted at once, `completions` to be reaped. `deferred` says whether the
 * two flags were had; without them (before Linux 6.1) the kernel works when it likes. Sets hy_error_detail().
 * -EPERM  io_uring is switched off for this process;  -ENOSYS  the kernel has none;  -EMFILE, -ENOMEM
 */
int uring_ring_open(struct io_uring *ring, unsigned entries, unsigned completions, bool *deferred);
/* The sentence for an error that setting one up met; returns the error to pass on. */
int uring_explain(int status);
/* Before the first submission, once, in the thread that will use the ring. */
int uring_ring_start(struct io_uring *ring);

/* -EMFILE and what io_uring says; sets hy_error_detail(). What was opened is closed by uring_bell_close(). */
int uring_bell_open(struct uring_bell *bell, struct io_uring *ring);
/* The ring is closed by now. */
void uring_bell_close(struct uring_bell *bell);
/* From now on it rings. Whoever arms it looks afterwards whether there is something already. */
void uring_bell_arm(struct uring_bell *bell, struct io_uring *ring);
/* The owner is awake. */
void uring_bell_disarm(struct uring_bell *bell, struct io_uring *ring);

/* The kernel waits for a call before it completes what it could complete. */
static inline bool uring_ring_wants_call(const struct io_uring *ring) {
  unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED);
  return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

#endif
