/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AF_XDP device: one queue of an interface. What is public of it is
 * hy_afxdp_attach() in hybrid.h; this is for whoever has an arena and no shard.
 *
 * What one has to know of the kernel's side (tried on Linux 6.18):
 *   - A socket gets frames only of the queue that it is bound to, so every queue to
 *     which the interface may deliver needs one. On veth the queue is the sender's
 *     transmit queue in native mode; in generic mode it is one less (0 and 1 both
 *     arrive at 0), because the number is read as "recorded queue plus one".
 *   - In copy mode (veth) sendto() does the sending, on this core, and on veth the
 *     receiving up to the other socket's ring as well: about 2 us a frame.
 *   - Busy polling wants a NAPI instance known for the queue when it is bound. veth
 *     names none, so there it is requested in vain and `obtained` says so.
 *   - RLIMIT_MEMLOCK counts arena bytes once per registration, over all processes of the
 *     user, unless CAP_IPC_LOCK; binding and moving frames need no privilege at all.
 *   - A packet that is longer than a frame needs a socket bound with XDP_USE_SG and an XDP
 *     program that takes fragments; without either the kernel drops it.
 *   - Once metadata on transmit is asked for, every descriptor must have its room in front.
 */
#ifndef HYBRID_AFXDP_AFXDP_H
#define HYBRID_AFXDP_AFXDP_H

#include "core/device.h"

enum {
  AFXDP_RING_SIZE = 2048, /* of each ring, where the configuration says 0 */
  AFXDP_RING_SIZE_MIN = DEVICE_BURST,
  AFXDP_RING_SIZE_MAX = 32768,
  /* The kernel leaves this much in front of a received frame (XDP_PACKET_HEADROOM). */
  AFXDP_RX_HEADROOM = 256,
};

/*
 * Opens the queue and stocks it with empty frames of the arena. config->xsk_fd,
 * where given, is taken over, also on failure; map_fd is copied. beside: a
 * device that has registered this arena, or NULL. Errors are those of xsk_open() (xsk.h)
 * and of entering the map, and -ENOMEM.
 */
int afxdp_open(struct arena *arena, const hy_afxdp_config *config, const struct hy_device *beside,
               hy_afxdp_obtained *obtained, struct hy_device **out);
bool afxdp_is(const struct hy_device *dev);

#endif
