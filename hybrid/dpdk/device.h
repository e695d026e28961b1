/* SPDX-License-Identifier: Apache-2.0 */
/* One queue of a port: the hy_device. */
#ifndef HYBRID_DPDK_DEVICE_H
#define HYBRID_DPDK_DEVICE_H

#include "dpdk/gate.h"
#include "dpdk/port.h"

struct dpdk {
  struct hy_device dev;
  struct port *port;
  struct pool *pool;
  /*
   * Taken while a burst is under way, where another thread may have to wait for its end: EAL's (gate.h), or
   * that of the shard that stops a port of several queues. NULL: there is no such thread.
   */
  struct gate *gate;
  struct rte_ring *told; /* what the port's other shards have received for all (tell.c); NULL: it has one */
  bool settled;          /* frames stocked for the start of the port have been taken back */
  bool armed;
  bool eventfd; /* fd is one to be read; else it is the driver's own, and becomes unreadable by itself */
  int fd;       /* of the receive interrupt; -1 */
  uint16_t queue;
  uint16_t npending;
  struct rte_mbuf *pending[DEVICE_BURST]; /* received when asked whether it is safe to sleep */
  struct hy_device_stats counts;
};

static inline void dpdk_leave(struct dpdk *x) {
  if (x->gate != NULL)
    gate_leave(x->gate);
}

/* May DPDK be called for it now? Each true is followed by dpdk_leave(). */
static inline bool dpdk_enter(struct dpdk *x) {
  if (x->gate != NULL && !gate_enter(x->gate))
    return false;
  if (__builtin_expect(atomic_load(&x->port->state) != PORT_RUNNING || eal_broken(), 0)) {
    dpdk_leave(x);
    return false;
  }
  pool_enter(x->pool, x->port->slot);
  return true;
}

int dpdk_open(struct arena *arena, const hy_dpdk_config *config, hy_dpdk_obtained *obtained,
              struct hy_device **out, char *detail);

/* Guarded calls: 0 frames where DPDK has given up. */
unsigned dpdk_receive(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, unsigned max);
unsigned dpdk_send(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, unsigned n);
void dpdk_free(struct rte_mbuf **mbufs, unsigned n);

/* tell.c: a received frame may be news for all; news for us; at the end. */
void tell_others(struct dpdk *x, const struct rte_mbuf *m);
unsigned told(struct dpdk *x, struct rte_mbuf **mbufs, unsigned max);
void tell_nobody(struct dpdk *x);

/*
 * The exception path: of n received mbufs those that a rule names stay in front (their number is returned),
 * the others go to the kernel by the tap, and what the kernel sends goes out by the port.
 */
unsigned exception_pass(struct dpdk *x, struct rte_mbuf **mbufs, unsigned n);

#endif
