/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of <linux/if_xdp.h> that the header of an older distribution lacks. The kernel that runs says by
 * its answer whether it knows them. Linux 6.6: several buffers per packet. 6.8: metadata on transmit.
 * 6.18: how many descriptors one sendto() moves in copy mode (32 before).
 */
#ifndef HYBRID_AFXDP_NEWER_H
#define HYBRID_AFXDP_NEWER_H

#include <linux/if_xdp.h>

#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#define XDP_PKT_CONTD (1 << 0)
#endif

#ifndef XDP_TX_METADATA
#define XDP_TX_METADATA (1 << 1)
#define XDP_TXMD_FLAGS_CHECKSUM (1 << 1)
#define XDP_UMEM_TX_METADATA_LEN (1 << 2)
#endif

#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

/* struct xdp_umem_reg, and struct xsk_tx_metadata as we fill it in. */
struct umem_reg {
  uint64_t addr, len;
  uint32_t chunk_size, headroom, flags, tx_metadata_len;
};

struct tx_metadata {
  uint64_t flags;
  uint16_t csum_start;  /* from the descriptor's first byte */
  uint16_t csum_offset; /* from there */
  uint32_t unused[3];   /* when to send it: not asked for */
};
static_assert(sizeof(struct tx_metadata) == 24 && sizeof(struct tx_metadata) <= FRAME_TX_ROOM,
              "fits in front");

#endif
