/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps bursts and DPDK's interrupt callbacks apart.
 *
 * net_memif unmaps the memory that it shares with its peer in an interrupt callback, on EAL's own thread,
 * when the peer goes away; a shard that is in the middle of a burst then reads what is no longer there. So
 * the plugin stands in front of rte_intr_callback_register() (as of rte_panic: load.c), and a callback runs
 * only while no gated burst does:
 *
 *     shard: gate taken; closed? then leave      EAL: closed = 1; wait until every gate is free; callback;
 * closed = 0
 *
 * Each side writes its own word before it reads the other's, so at least one sees the other. Gates are for
 * good, so that EAL's thread may look at them while devices come and go.
 */
#ifndef HYBRID_DPDK_GATE_H
#define HYBRID_DPDK_GATE_H

#include <stdatomic.h>
#include <stdbool.h>

enum { GATES = 512 };

struct gate {
  _Alignas(64) atomic_bool busy;
  bool taken; /* under the ports' lock */
};

extern atomic_uint gates_closed; /* callbacks under way */

struct gate *gate_take(void); /* NULL: all are */
void gate_release(struct gate *gate);

static inline bool gate_enter(struct gate *gate) {
  atomic_store(&gate->busy, true);
  if (__builtin_expect(atomic_load(&gates_closed) == 0, 1))
    return true;
  atomic_store_explicit(&gate->busy, false, memory_order_release);
  return false;
}

static inline void gate_leave(struct gate *gate) {
  atomic_store_explicit(&gate->busy, false, memory_order_release);
}

#endif
