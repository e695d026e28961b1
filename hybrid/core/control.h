/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a process that holds the privileges (the *launcher*: `hybrid run`) hands
 * a datapath to one that needs none (the *application*).
 *
 *   launcher                                      application
 *   socketpair(SEQPACKET), HYBRID_CONTROL=fd  ->  hy_shard_open_served()
 *   hy_handover + fds [host, stats, xsk...]   ->  maps the host table, registers
 *                                                 its arena as UMEM, binds
 *   enters sockets into the XSKMAP            <-  hy_shard_ready(): hy_ready
 *   hy_go                                     ->  returns
 *   resolves neighbours                       <-  hy_notice, any time
 *
 * Every message is one datagram in host byte order between two processes of one
 * build on one host; `magic` refuses another.
 */
#ifndef HYBRID_CORE_CONTROL_H
#define HYBRID_CORE_CONTROL_H

#include "core/hybrid.h"

enum { HY_CONTROL_MAGIC = 0x48594331, HY_CONTROL_DEVICES = 16 };

typedef struct hy_handover_device {
  uint32_t ifindex;
  uint32_t queue;
  uint32_t ring_size;
  uint8_t copy;      /* requested: enum hy_xdp_copy */
  uint8_t busy_poll; /* requested */
  uint8_t strict;
  uint8_t reserved;
} hy_handover_device;

/* With it travel 2 + ndevices descriptors: host table, statistics page, one AF_XDP socket per device. */
typedef struct hy_handover {
  uint32_t magic;
  uint32_t ndevices;
  uint16_t port_lo; /* ephemeral ports whose replies are steered here; 0: none are */
  uint16_t port_hi;
  uint32_t reserved;
  hy_handover_device devices[HY_CONTROL_DEVICES];
} hy_handover;

/* What each device obtained, as asked in the handover. */
typedef struct hy_ready {
  uint32_t magic;
  uint32_t ndevices;
  hy_afxdp_obtained obtained[HY_CONTROL_DEVICES];
} hy_ready;

/* The launcher's answer: 0, or why the queues could not be put into service. */
typedef struct hy_go {
  uint32_t magic;
  int32_t status;
} hy_go;

/*
 * The statistics page: a file of this layout that the shard writes its counters
 * to in place, so that anyone who may read the file can look without asking.
 * Names and order are hy_stat_name().
 */
enum { HY_STATS_MAX = 128 };
typedef struct hy_stats_page {
  uint32_t magic;
  uint32_t count;
  uint32_t pid;
  uint32_t reserved;
  uint64_t values[HY_STATS_MAX];
} hy_stats_page;

#endif
