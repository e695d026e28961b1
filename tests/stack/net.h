/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two hosts on a bad wire, in one process and in virtual time: what the
 * simulation tests run on.
 *
 *     shard 0 --collect--> impair: lose, repeat, damage, delay --inject--> shard 1
 *             <-inject---                                      <-collect--
 *
 * Every decision comes from one seed, so that a failure is replayed by its number.
 * Host 0 is 10.0.0.1 and 2001:db8::1 on interface 1, host 1 ends in 2.
 */
#ifndef HYBRID_TESTS_STACK_NET_H
#define HYBRID_TESTS_STACK_NET_H

#include "check.h"
#include "core/shard.h"

/* In thousandths, of each frame. */
struct impairments {
  uint32_t lost, repeated, damaged, late;
  uint64_t delay_ns; /* of every frame */
  uint64_t late_ns;  /* at most, on top, of a late one: this reorders */
};

/* Some packets arrive in frames that are not full, of so many bytes at least: eight hold the longest. */
enum { NET_FLYING = 4096, NET_FRAME_BYTES = 9216, NET_PIECE_MIN = 1200 };

struct flying {
  uint64_t at;
  uint64_t order; /* of two that arrive at once, the first sent is the first */
  uint32_t to;
  uint32_t len;
  uint8_t *bytes;
};

struct net {
  struct dice dice;
  hy_shard *shards[2];
  hy_host *hosts[2];
  uint32_t ports[2];
  uint32_t frames[2]; /* free in each arena before anything happened */
  uint64_t now;
  uint32_t mtu_bytes;
  uint64_t cut_at; /* from then on nothing arrives any more */
  struct impairments impair;
  struct flying flying[NET_FLYING]; /* a heap, soonest first */
  uint32_t nflying;
  uint64_t sent;
  bool trace; /* HYBRID_TRACE=1: prints every frame */
};

/* config: virtual clock and seeds are set by net_open. 0, or a negative errno. */
int net_open(struct net *net, uint64_t seed, const hy_config *config, uint32_t mtu_bytes);
void net_close(struct net *net);
/* The address of a host, 0 or 1. */
hy_addr net_addr(uint32_t host, int family, uint16_t port);
/* Lets one shard run, and puts what it sends on the wire. */
void net_run(struct net *net, uint32_t host);
/* Moves what has arrived by now into the shards. */
void net_deliver(struct net *net);
/* When something will happen next if the applications do nothing; UINT64_MAX: never. */
uint64_t net_next(struct net *net);
void net_set_time(struct net *net, uint64_t now);
/*
 * What must hold when every queue descriptor has been closed and time has passed: 0, or the line of net.c.
 */
int net_check_clean(const struct net *net);

#endif
