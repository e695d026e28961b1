/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building a packet of several frames to send: headers in the first, payload behind
 * it. A piece of the application's that no device is reading is linked in as it lies;
 * what is too small for a frame of its own, or still on its way, is copied.
 *
 *     head                      shared            copied          shared
 *     | room | headers  |  ->   | piece |   ->    | several |  -> | piece |
 *
 * The payload is summed as it is added, or not where the device does that.
 */
#ifndef HYBRID_TCP_CHAIN_H
#define HYBRID_TCP_CHAIN_H

#include "tcp/stack.h"

#define CHAIN_SHARE_MIN 256 /* bytes: a smaller piece costs less to copy than a descriptor does */

struct chain {
  uint32_t head, tail;
  uint32_t frames, frames_max;
  uint32_t bytes; /* of payload so far */
  uint32_t room;  /* in front of a piece that is linked in: hy_device.tx_room */
  uint64_t sum;   /* of the payload */
  bool summed;
  bool open; /* the tail is a frame of ours with room behind what it holds */
};

/*
 * head: a fresh frame, or one whose valid bytes are the first payload and in front of which headers may
 * be written; takes over a reference. The packet is for `link`.
 */
void chain_begin(struct stack *st, struct chain *chain, const struct link *link, uint32_t head);
/*
 * Adds len bytes that lie at off in a frame, which keeps its references; share: they may be linked in.
 * Returns how many bytes were added: fewer where the chain or the arena is full.
 */
uint32_t chain_add(struct stack *st, struct chain *chain, uint32_t frame, uint32_t off, uint32_t len,
                   bool share);

static inline bool link_completes(const struct link *link) {
  return link->dev->caps & DEVICE_TX_CSUM;
}

/*
 * Leaves a checksum to the device: marks the frame, whose transport header lies at `header` and has the
 * checksum at check_at, and returns what is to be stored there.
 */
uint16_t packet_leave_checksum(struct stack *st, uint32_t frame, const uint8_t *header, uint64_t pseudo,
                               uint16_t check_at);

/* Sum of a received packet's transport header and payload, which may be in several frames. */
uint64_t chain_sum(const struct stack *st, const struct packet *p, uint32_t len);

#endif
