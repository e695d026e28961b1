/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "ring:NAME": two net_ring ports that cross, for two shards of one process. (The port that net_ring makes
 * from its own arguments is a loop: what it sends it receives.)
 *
 *     end 0  tx --> rings[0] --> rx  end 1
 *            rx <-- rings[1] <-- tx
 */
#include "dpdk/device.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eth_ring.h>

enum { RING_FRAMES = 1024, PAIRS_MAX = PORTS_MAX, PATIENCE = 1 << 16 };

static struct {
  char name[HY_DPDK_NAME_BYTES];
  struct wires wires;
} pairs[PAIRS_MAX];

static struct wires *wires_named(const char *name, char *detail) {
  unsigned unused = PAIRS_MAX;
  for (unsigned i = 0; i < PAIRS_MAX; i++) {
    if (pairs[i].wires.users > 0 && strcmp(pairs[i].name, name) == 0)
      return &pairs[i].wires;
    if (pairs[i].wires.users == 0)
      unused = i;
  }
  if (unused == PAIRS_MAX) {
    dpdk_fail(detail, -ENOSPC, "the process has %d rings already: close one", PAIRS_MAX);
    return NULL;
  }
  struct wires *wires = &pairs[unused].wires;
  memset(wires, 0, sizeof *wires);
  snprintf(pairs[unused].name, sizeof pairs[unused].name, "%s", name);
  for (unsigned i = 0; i < 2; i++) {
    char ring[RTE_RING_NAMESIZE];
    snprintf(ring, sizeof ring, "hy%u_%u_%.10s", unused, i, name);
    wires->rings[i] = rte_ring_create(ring, RING_FRAMES, SOCKET_ID_ANY, 0);
    if (wires->rings[i] == NULL) {
      rte_ring_free(wires->rings[0]);
      dpdk_fail(detail, -ENOMEM, "EAL has no memory for a ring: give it more (-m in the eal arguments)");
      return NULL;
    }
  }
  return wires;
}

int wires_open(const char *name, struct port *port, char *detail) {
  struct wires *wires = wires_named(name, detail);
  if (wires == NULL)
    return -ENOMEM;
  /* port.c has chosen the end by the name: NAME/0 or NAME/1. */
  unsigned end = port->name[strlen(port->name) - 1] == '1';
  char ethernet[RTE_ETH_NAME_MAX_LEN];
  snprintf(ethernet, sizeof ethernet, "%.20s_%u", name, end);
  int id =
      rte_eth_from_rings(ethernet, &wires->rings[1 - end], 1, &wires->rings[end], 1, (unsigned)SOCKET_ID_ANY);
  if (id < 0) {
    if (wires->users == 0) {
      rte_ring_free(wires->rings[0]);
      rte_ring_free(wires->rings[1]);
    }
    return -ENODEV;
  }
  wires->users++;
  atomic_store(&wires->present[end], true);
  port->id = (uint16_t)id;
  port->wires = wires;
  port->end = end;
  return 0;
}

static void drain(struct rte_ring *ring) {
  void *mbuf;
  while (rte_ring_dequeue(ring, &mbuf) == 0)
    rte_pktmbuf_free(mbuf);
}

/*
 * What is in the rings is taken out: ours comes back, the other's goes back. A frame of ours that the other
 * shard has just taken comes back when it has copied it, which is waited for.
 */
void wires_close(struct port *port) {
  struct wires *wires = port->wires;
  atomic_store(&wires->present[port->end], false);
  unprobe(port->id);
  drain(wires->rings[port->end]);
  drain(wires->rings[1 - port->end]);
  if (--wires->users > 0)
    return;
  rte_ring_free(wires->rings[0]);
  rte_ring_free(wires->rings[1]);
}
