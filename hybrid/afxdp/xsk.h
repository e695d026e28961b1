/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An AF_XDP socket: its memory registered, its rings mapped, bound to a queue.
 * Set-up and take-down only; frames are moved by device.c.
 *
 * The first socket of a shard registers its whole arena as a UMEM; the others share
 * that (XDP_SHARED_UMEM), so that the memory is locked and counted once. Where they
 * can't, as when one is zero-copy and another is not, which sharing forces upon all,
 * a socket registers the arena again. It is the same memory all the same, so a frame
 * received through one socket can be sent through another. Each has its own four rings.
 */
#ifndef HYBRID_AFXDP_XSK_H
#define HYBRID_AFXDP_XSK_H

#include "afxdp/ring.h"
#include "core/arena.h"
#include "core/hybrid.h"

enum xsk_ring { XSK_RX, XSK_TX, XSK_FILL, XSK_COMPLETION, XSK_RINGS };

/* A bound socket whose registration may be shared, and what came with it. */
struct xsk_beside {
  int fd; /* -1: there is none */
  bool multi_buffer, metadata;
};

struct xsk {
  int fd;        /* owned */
  bool metadata; /* every descriptor has room for metadata in front */
  struct ring rings[XSK_RINGS];
  void *maps[XSK_RINGS];
  size_t map_bytes[XSK_RINGS];
};

/*
 * Sets up config->xsk_fd, or a new socket where that is -1, and binds it. A given
 * one is taken over, and closed on failure: a socket can be set up only once.
 *
 * -EPERM        no CAP_NET_RAW to open one (a given one needs no privilege)
 * -ENOLCK       the arena exceeds what this user may lock (RLIMIT_MEMLOCK counts
 *               every registration, over all of the user's processes), and
 *               CAP_IPC_LOCK is missing
 * -EBUSY        the queue has an AF_XDP socket and keeps it (tried for 0.3 s), or xsk_fd has been
 *               set up before
 * -ENODEV       no such interface;  -EINVAL  no such queue
 * -ENOTSOCK, -EAFNOSUPPORT   xsk_fd isn't an AF_XDP socket
 * -EOPNOTSUPP   strict, and what was requested can't be had
 */
int xsk_open(struct xsk *xsk, const struct arena *arena, const hy_afxdp_config *config,
             const struct xsk_beside *beside, uint32_t ring_size, hy_afxdp_obtained *obtained);
/* After this the kernel uses neither rings nor frames, unless somebody else holds the socket as well. */
void xsk_close(struct xsk *xsk);

#endif
