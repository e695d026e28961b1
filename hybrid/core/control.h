/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a process that holds the privileges (the *launcher*: `hybrid run`) hands
 * a datapath to one that needs none (the *application*).
 *
 *   launcher                                      application
 *   socketpair(SEQPACKET), HYBRID_CONTROL=fd  ->  hy_shard_open_served()
 *   hy_handover + fds [host, stats, device...] -> maps the host table, attaches the
 *                                                 devices, sets up kernel sockets
 *   enters sockets into the XSKMAP            <-  hy_shard_ready(): hy_ready
 *   hy_go                                     ->  returns
 *   resolves neighbours                       <-  hy_notice, any time
 *   hy_handover_more + fd                     ->  attaches a device while it runs, when
 *   enters it                                 <-  hy_attached    one that was lost is back
 *
 * Every message is one datagram in host byte order between two processes of one
 * build on one host; `magic` refuses another.
 */
#ifndef HYBRID_CORE_CONTROL_H
#define HYBRID_CORE_CONTROL_H

#include "core/hybrid.h"

enum {
  HY_CONTROL_MAGIC = 0x48594332,
  HY_CONTROL_DEVICES = 16,
  HY_CONTROL_ARGS_BYTES = 192,
  HY_CONTROL_NOTE_BYTES = 160,
  HY_CONTROL_EAL_BYTES = 2048,
  HY_CONTROL_PORT_QUEUE = 256, /* queues of a DPDK port count from here: the interface has some of its own */
};

/* Frame devices, and the descriptor that comes with one. */
enum hy_control_kind {
  HY_CONTROL_AFXDP = 1,  /* an AF_XDP socket, not bound yet */
  HY_CONTROL_PACKET = 2, /* a packet socket on the interface */
  HY_CONTROL_TAP = 3,    /* a queue of the TAP device */
  HY_CONTROL_DPDK = 4,   /* the lease of the port (bpf/layout.h), to be held; args: the port's devargs */
};

typedef struct hy_handover_device {
  uint32_t ifindex; /* row of the host table */
  uint32_t queue;
  uint32_t ring_size;
  uint8_t copy;      /* requested: enum hy_xdp_copy */
  uint8_t busy_poll; /* requested */
  uint8_t strict;
  uint8_t kind;        /* enum hy_control_kind */
  uint16_t queues;     /* of the whole port, for DPDK */
  uint8_t tx_checksum; /* requested */
  uint8_t reserved;
  char args[HY_CONTROL_ARGS_BYTES];
} hy_handover_device;

/* Kernel sockets by io_uring. */
typedef struct hy_handover_kernel {
  uint8_t wanted; /* 0: no; 1: as a fallback, so not having them is no failure; 2: they are needed */
  uint8_t sqpoll, busy_poll, zerocopy, strict; /* requested */
  uint8_t reserved[3];
} hy_handover_kernel;

/* With it travel 2 + ndevices descriptors: host table, statistics page, one for each device. */
typedef struct hy_handover {
  uint32_t magic;
  uint32_t ndevices;
  uint16_t port_lo; /* ephemeral ports whose replies are steered here; 0: none are */
  uint16_t port_hi;
  uint8_t lenient; /* 1: a device that cannot be had is no failure, its ports have a fallback */
  uint8_t reserved[3];
  uint32_t nplacements;
  hy_handover_kernel kernel;
  char eal[HY_CONTROL_EAL_BYTES]; /* arguments of DPDK's, each ends with a newline */
  hy_placement placements[HY_PLACEMENTS];
  hy_handover_device devices[HY_CONTROL_DEVICES];
} hy_handover;

/* A device that is given later: with its descriptor. Answered by hy_attached. */
typedef struct hy_handover_more {
  uint32_t magic;
  uint32_t reserved;
  hy_handover_device device;
  char eal[HY_CONTROL_EAL_BYTES]; /* as in hy_handover */
} hy_handover_more;

/* What a device came to. */
typedef struct hy_attached {
  uint32_t magic;
  uint32_t ifindex;
  uint32_t queue;
  int32_t status;                   /* 0, or the negative errno of its attach */
  hy_afxdp_obtained afxdp;          /* zeroes for other kinds */
  char note[HY_CONTROL_NOTE_BYTES]; /* what else there is to say: of a failure, of other kinds; ends with a
                                       zero */
} hy_attached;

typedef struct hy_ready {
  uint32_t magic;
  uint32_t ndevices;
  int32_t kernel; /* 1: kernel sockets were not asked for; 0: they are there; or why not: a negative errno */
  uint32_t reserved;
  char kernel_note[HY_CONTROL_NOTE_BYTES];
  hy_attached devices[HY_CONTROL_DEVICES];
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
