/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AF_XDP device: one queue of an interface. What is public of it is
 * hy_afxdp_attach() in hybrid.h; this is for whoever has an arena and no shard.
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
 * where given, is taken over, also on failure; map_fd is copied. Errors are those
 * of xsk_open() (xsk.h) and of entering the map, and -ENOMEM.
 */
int afxdp_open(struct arena *arena, const hy_afxdp_config *config, hy_afxdp_obtained *obtained,
               struct hy_device **out);

#endif
