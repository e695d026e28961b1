/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard: one thread's world. It owns the arena, the tables, the stack and the
 * devices, and its polling loop joins them:
 *
 *   output --> devices        what the application pushed since the last pass
 *   devices --> input         one burst each
 *   other transports          submit, reap
 *   timers
 *   output --> devices        unless completions wait: then the application's
 *                             answers go out with the ACKs in the next pass
 */
#ifndef HYBRID_CORE_SHARD_H
#define HYBRID_CORE_SHARD_H

#include "core/control.h"
#include "core/device.h"
#include "core/host.h"
#include "core/place.h"
#include "core/queue.h"
#include "core/stats.h"
#include "tcp/stack.h"

#define SHARD_DEVICES STACK_LINKS

struct hy_shard {
  struct arena arena;
  struct tokens tokens;
  struct queues queues;
  struct stats *stats; /* own_stats, or in the statistics page */
  struct stats own_stats;
  hy_stats_page *stats_page;                /* mapped; NULL: none */
  hy_config config;                         /* as obtained: defaults filled in */
  struct hy_device *devices[SHARD_DEVICES]; /* NULL: the place is free */
  uint32_t ndevices;                        /* places in use, up to the last */
  uint32_t live_devices;
  uint32_t last_device;                         /* place of the one that was added last */
  int held[SHARD_DEVICES];                      /* descriptors that end with a device; -1 */
  struct hy_device_stats gone;                  /* counters of devices that have left */
  struct transport *transports[PLACE_BACKENDS]; /* by enum hy_backend; NULL: there is none */
  struct transport *driven[PLACE_BACKENDS];     /* those of them that the loop runs */
  uint32_t ndriven;
  struct placement placement;
  uint32_t app_frames; /* pieces that the application holds */
  const hy_host *host; /* reader's mapping; NULL: none */
  uint64_t virtual_now;
  uint64_t idle_since; /* ns: last time a pass found work */
  uint64_t stats_at;   /* when device counters were last summed */
  uint64_t chores_at;  /* when shard_chores() is due */
  int notice_fd;
  int control_fd; /* served: to the launcher; -1 */
  hy_ready ready; /* served: what each device obtained */
  bool serving;   /* served: the launcher may send more devices */
  struct stack stack;
};

/* One pass: returns frames received. flush: output may leave although completions wait. */
unsigned shard_poll(struct hy_shard *shard);
/* Sleeps until a device has something or `until` (ns); -EINTR. */
int shard_sleep(struct hy_shard *shard, uint64_t until);
/* From now on counters live in the page (mapped shared by the caller; the shard unmaps it). */
int shard_set_stats_page(struct hy_shard *shard, hy_stats_page *page);
/* When the shard wants to be polled though nothing arrives. */
uint64_t shard_next_deadline(struct hy_shard *shard);
/* Everything that a queue has at its transports is closed; its slot is the caller's to release. */
void shard_close_queue(struct hy_shard *shard, struct queue *q, bool hard);
/* Sums the devices' counters into the shard's. */
void shard_collect_device_stats(struct hy_shard *shard);
/* Takes over a reader's mapping of a host table. */
void shard_follow_host(struct hy_shard *shard, hy_host *host);
/* Ephemeral ports whose replies reach this shard. */
void shard_set_ports(struct hy_shard *shard, uint16_t lo, uint16_t hi);
void shard_notice(struct hy_shard *shard, const hy_notice *notice);

/* The device that was added last is known by this number of its queue, and fd is closed when it goes. */
void shard_hold(struct hy_shard *shard, uint32_t queue, int fd);

/* served.c: takes the devices that the launcher has sent meanwhile. */
void served_chores(struct hy_shard *shard);

#endif
