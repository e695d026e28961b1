/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EAL, DPDK's runtime, kept in its place.
 *
 * EAL expects to own the process: it pins the thread that starts it, prints to stdout, and where it sees no
 * way on it calls rte_exit() or rte_panic(), which end the process. Here
 *   - whatever may do such things runs as a *job* on a thread of its own, with all signals blocked, while the
 *     caller waits: affinity, signal mask and thread name of the caller stay as they are;
 *   - what DPDK logs or prints meanwhile goes into a few remembered lines, from which errors are made;
 *   - rte_exit() and __rte_panic() are defined in this plugin, in front of DPDK's (load.c says how): they
 * mark EAL as broken and leave the job, or the burst, by a jump. A thread that has neither (one of DPDK's
 * own) is parked for good. From then on no port is ever called into again.
 */
#ifndef HYBRID_DPDK_EAL_H
#define HYBRID_DPDK_EAL_H

#include "dpdk/dpdk.h"

/* Where a panic jumps to. One per call into DPDK; on the stack. */
struct eal_guard {
  void *env[5]; /* of __builtin_setjmp: three stores, where setjmp() would mangle and save more */
};

#define EAL_TLS __attribute__((tls_model("initial-exec")))
extern _Thread_local struct eal_guard *eal_guard EAL_TLS;

/*
 *     struct eal_guard guard;
 *     if (EAL_GUARD(&guard))
 *       return 0;                  // DPDK has given up in there
 *     ... call DPDK ...
 *     eal_unguard();
 */
#define EAL_GUARD(guard) (eal_guard = (guard), __builtin_setjmp((guard)->env) != 0)
static inline void eal_unguard(void) {
  eal_guard = NULL;
}

/* Starts it with the first caller's arguments; later ones must be the same. Jobs and this are serialised by
 * ports.c. */
int eal_start(const hy_dpdk_config *config, char *detail);
/* DPDK called rte_exit or rte_panic. */
bool eal_broken(void);
/* -EIO, and what it said then. */
int eal_explain_broken(char *detail);

/* Runs it on a thread of its own, as the caller (eal_self). -EIO where DPDK gave up. */
int eal_run(int (*job)(void *), void *arg);

/* Names the calling thread; in a job, the one that waits for it. */
const void *eal_self(void);

/* The last things that DPDK said since eal_hush(), as one line. */
void eal_hush(void);
const char *eal_said(char text[DPDK_DETAIL_BYTES]);

/* Fills detail; returns error. */
__attribute__((format(printf, 3, 4))) int dpdk_fail(char *detail, int error, const char *format, ...);

#endif
