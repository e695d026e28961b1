/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port: what its queues share.
 *
 *   GATHERING --last queue attached--> RUNNING --a queue is closed, or hy_dpdk_stop()--> STOPPING
 *                                         \--removed, netdev gone, EAL broken--> (health() says so)
 *   STOPPING --nobody is in a burst any more--> CLOSED --last queue closed--> the slot is free
 *
 * Everything here but what bursts read (state, busy) happens under one lock and in jobs (eal.h). A port
 * lives as a whole: when one shard lets go of its queue, frames of its arena are in the driver's hands, so
 * the port is stopped and closed at once, and the other shards lose theirs with -ENETDOWN.
 */
#ifndef HYBRID_DPDK_PORT_H
#define HYBRID_DPDK_PORT_H

#include "bpf/steer.h"
#include "dpdk/pool.h"

#include <net/if.h>
#include <rte_ethdev.h>

enum {
  PORTS_MAX = 32,
  PORT_QUEUES_MAX = 64,
  PORT_NONE = RTE_MAX_ETHPORTS,
};

enum port_state { PORT_FREE = 0, PORT_GATHERING, PORT_RUNNING, PORT_STOPPING, PORT_CLOSED };

/* What one has to know of a driver that its dev_info does not say. */
struct driver {
  const char *name;
  uint16_t desc;     /* descriptors to ask for; 0: PORT_DESC */
  uint16_t keeps;    /* frames that a receive queue takes whatever it is asked for */
  uint16_t headroom; /* in front of a received frame, beside that of the mbuf */
  bool gated;        /* its interrupt callbacks take away what bursts work on (gate.h) */
  bool forgets;      /* frames it still has when it is closed are not given back */
};

/* Two rings between two shards of this process ("ring:NAME"). */
struct wires {
  struct rte_ring *rings[2]; /* rings[i]: from end i to the other */
  atomic_bool present[2];
  unsigned users;
};

struct dpdk; /* a queue: device.h */

struct port {
  char name[HY_DPDK_NAME_BYTES];
  atomic_int state; /* enum port_state */
  atomic_bool gone; /* the driver says that the hardware was removed */
  uint16_t id;      /* of DPDK */
  uint16_t queues;
  uint16_t rx_desc, tx_desc;
  uint16_t mtu_bytes;
  uint8_t slot; /* of this table: the pool's ledger names it */
  bool interrupt;
  bool steered;      /* a program that leaves the kernel its share is in front of it */
  unsigned attached; /* queues that have a device */
  const struct driver *driver;
  struct rte_eth_dev_info info;
  uint64_t rx_offloads, tx_offloads, rss;
  struct rte_ether_addr mac;
  int netns_socket; /* for asking whether the netdev behind the port is still there; -1: there is none */
  struct wires *wires;
  unsigned end; /* of wires: ours */
  uint16_t tap; /* the exception path; PORT_NONE */
  uint32_t tap_ifindex;
  hy_steer_rule *rules; /* in the order tried */
  uint32_t nrules;
  uint16_t flows;
  struct dpdk *devices[PORT_QUEUES_MAX];
};

/*
 * The port that config names, found or probed, with room for config->queue. Under the lock. rules and
 * exception are those of the first call for a port.
 */
int port_get(const hy_dpdk_config *config, struct port **out, char *detail);
/* A queue's device has come; the last one starts the port. On failure the port is closed. */
int port_join(struct port *port, const hy_dpdk_config *config, uint16_t queue, struct dpdk *dev,
              char *detail);
/* The device lets go: the port is stopped and closed if it isn't yet. */
void port_leave(struct port *port, uint16_t queue);
/* Frees the slot of a port that nobody joined. */
void port_drop_unused(struct port *port);
/* Is what is behind it gone? 0 or a negative errno. */
int port_health(const struct port *port);
/* Can it complete the checksums of both protocols? It is asked to then, unless the configuration says no. */
bool port_sends_checksums(const struct port *port);
void port_obtained(const struct port *port, hy_dpdk_obtained *out);

void ports_lock(void);
void ports_unlock(void);

/* ports.c's helpers in files of their own; all run inside jobs. */
int wires_open(const char *name, struct port *port, char *detail);
void wires_close(struct port *port);
int flows_isolate(struct port *port, char *detail);
int flows_install(struct port *port, char *detail);
int tap_open(struct port *port, const char *devargs, char *detail);
void tap_quieten(void);
void umems_of(const struct port *port); /* those made from now on */
void umems_delete(const struct port *port);
int probe(const char *devargs, uint16_t *id);
void unprobe(uint16_t id);

#endif
