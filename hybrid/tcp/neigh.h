/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Neighbours. Behind a kernel netdev the kernel resolves them: what is missing is
 * asked for by a notice and found in the host table later. A device without a
 * kernel (memory, wire) is resolved here, by ARP (RFC 826) and neighbour
 * discovery (RFC 4861), as far as two ends of a wire need it. In both cases the
 * packet that found no neighbour waits in a bounded queue.
 */
#ifndef HYBRID_TCP_NEIGH_H
#define HYBRID_TCP_NEIGH_H

#include <stdbool.h>
#include <stdint.h>

#define NEIGH_CACHE 256             /* entries of our own; a power of two */
#define NEIGH_WAITING 64            /* packets that may wait */
#define NEIGH_WAIT_NS 3000000000ull /* as long as Linux tries: 3 requests, 1 s apart */
#define NEIGH_RETRY_NS 1000000000ull

struct stack;
struct path;
struct packet;

struct neigh_entry {
  uint8_t ip[16];
  uint32_t ifindex; /* 0: free */
  uint8_t mac[6];
};

struct neigh_waiting {
  uint64_t since_ns, asked_ns;
  uint32_t frame; /* complete but for the destination MAC */
  uint32_t ifindex;
  uint8_t nexthop[16];
  uint8_t link;
};

struct neigh_table {
  uint32_t version; /* grows with every change of our own entries */
  uint32_t nwaiting;
  uint32_t evict;
  struct neigh_entry cache[NEIGH_CACHE];
  struct neigh_waiting waiting[NEIGH_WAITING];
};

/* The MAC address of a next hop, or NULL. */
const uint8_t *neigh_find(struct stack *st, uint8_t link, uint32_t ifindex, const uint8_t ip[16]);
/* Takes over a frame whose destination MAC is not known; asks for it. */
__attribute__((noinline, cold)) void neigh_wait(struct stack *st, const struct path *path, uint32_t frame);
/* Sends what can be sent by now, drops what has waited too long, asks again. */
void neigh_retry(struct stack *st);
/* Drops what waits for a neighbour behind this link. */
void neigh_forget_link(struct stack *st, uint8_t link);
/* When neigh_retry has something to do; UINT64_MAX: never. */
uint64_t neigh_deadline(const struct stack *st);
/* An ARP frame, or a neighbour solicitation or advertisement. The frame stays the caller's. */
void neigh_arp_input(struct stack *st, uint8_t link, uint32_t frame);
void neigh_nd_input(struct stack *st, const struct packet *p);
void neigh_fini(struct stack *st);

#endif
