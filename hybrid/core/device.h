/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device moves Ethernet frames between a wire and an arena. It knows nothing
 * of what is in them.
 *
 * One hy_device is one *queue* of a port and belongs to one shard. A backend
 * embeds struct hy_device first in its own structure, fills in the public part,
 * and hands it to shard_add_device(), which from then on calls the table below,
 * per burst, never per frame.
 */
#ifndef HYBRID_CORE_DEVICE_H
#define HYBRID_CORE_DEVICE_H

#include "core/arena.h"
#include "core/plugin.h"

#define DEVICE_BURST 64 /* most frames per rx_burst or tx_burst */

struct hy_device;

struct hy_device_stats {
  uint64_t rx_frames, rx_bytes;
  uint64_t tx_frames, tx_bytes;
  uint64_t rx_dropped;   /* by the kernel or the wire, before we saw them */
  uint64_t rx_no_frames; /* because we gave the device no frames to fill */
  uint64_t tx_full;      /* bursts that were cut short by a full transmit ring */
  uint64_t tx_invalid;   /* descriptors that the kernel refused */
  uint64_t kicks;        /* system calls made to make the device move */
  uint64_t tx_errors;    /* of these, refused for good: the interface is down or gone */
  uint64_t copied;       /* frames that had to be copied because the device could not take them in place */
  uint64_t passed;       /* frames moved between the kernel and the wire by an exception path */
};

enum device_caps {
  DEVICE_MULTI = 1,   /* packets may be chains of up to packet_frames_max frames, both ways */
  DEVICE_TX_CSUM = 2, /* it completes the checksum of frames with FRAME_CSUM_PARTIAL */
};

struct hy_device_ops {
  const char *name; /* of the backend: "afxdp", "memory", "wire" */
  /*
   * Up to max packets that have arrived, each named by its first frame; each of their
   * frames carries one reference, now the caller's, with off and len set. The first
   * starts with the Ethernet header. Also takes back frames whose transmission has
   * completed and gives the device empty ones.
   */
  unsigned (*rx_burst)(struct hy_device *dev, uint32_t *frames, unsigned max);
  /*
   * Queues packets for transmission in order and starts it. Takes over the
   * references of each packet it accepts (FRAME_IN_DEVICE is set on its frames until
   * it drops them, with the other FRAME_SEND_FLAGS) and returns how many that was:
   * less than n when the ring is full, and then the rest is still the caller's, to be
   * offered again. Chains, and checksums to complete, only to whoever has the caps.
   */
  unsigned (*tx_burst)(struct hy_device *dev, const uint32_t *frames, unsigned n);
  /* Makes wait_fd() become readable on the next arrival; 1 if something is there already. */
  int (*wait_arm)(struct hy_device *dev);
  /* A descriptor to poll(2) for reading, or -1: this device can only be polled. */
  int (*wait_fd)(struct hy_device *dev);
  void (*stats)(struct hy_device *dev, struct hy_device_stats *out);
  /*
   * 0, or why the device will never move a frame again: -ENETDOWN, -ENODEV. The shard asks now and
   * then and takes such a device out. NULL: it cannot fail.
   */
  int (*health)(struct hy_device *dev);
  /* Returns every frame it holds to the arena and frees the structure. */
  void (*close)(struct hy_device *dev);
};

struct hy_device {
  const struct hy_device_ops *ops;
  struct arena *arena;       /* set by the backend's attach, from shard_arena() */
  uint32_t ifindex;          /* row of the host table that describes the link */
  uint32_t queue;            /* of that interface */
  uint32_t frame_bytes_max;  /* longest packet, from the Ethernet header on: bounds the MTU in use */
  uint8_t caps;              /* enum device_caps */
  uint8_t packet_frames_max; /* 1 without DEVICE_MULTI; PACKET_FRAMES_MAX at most */
  uint16_t tx_room;          /* bytes that it wants in front of what it sends; FRAME_TX_ROOM at most */
  uint8_t index;             /* in its shard; set by shard_add_device() */
  uint8_t link;              /* the stack's number for ifindex; set by shard_add_device() */
};

/* For backends: the shard's arena, and joining it. -ENOSPC: 16 devices already. */
HY_PLUGIN struct arena *shard_arena(hy_shard *shard);
HY_PLUGIN int shard_add_device(hy_shard *shard, struct hy_device *dev);
/*
 * The end of a device: connections over it fail with status (a negative errno), its frames come back,
 * it is closed.
 */
void shard_remove_device(hy_shard *shard, struct hy_device *dev, int status);
/* The device with this index; NULL: there is none. */
struct hy_device *shard_device(const hy_shard *shard, uint32_t index);

#endif
