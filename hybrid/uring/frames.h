/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device under TAP and packet socket alike: frames between an arena and a
 * descriptor that gives and takes one frame per call, moved by io_uring. Both put
 * the same header in front of a frame (struct virtio_net_hdr), which tells of
 * checksums that are left to the receiver and of packets that are merged.
 *
 * Receiving. Each read has a frame of the arena, and behind it 64 KiB of overflow:
 *
 *        frame of the arena                       overflow
 *     | headroom |hdr| Ethernet frame ......|    | the rest of a merged packet ... |
 *                 ^ iov[0]                        ^ iov[1]
 *
 * so that an ordinary frame arrives in place and a merged one arrives whole, to be cut
 * into frames of its segments' size (cut.h). One read, the sentinel, waits in the
 * kernel. When it has brought something, the next submission carries, before the new
 * sentinel, as many reads that do not wait as the last one filled: under load a call
 * brings up to 32 frames, idle it costs one frame's.
 *
 * Calls. A burst sent and the sentinel go in the same submission. A poll that finds the
 * shared flags unset makes no call at all.
 */
#ifndef HYBRID_URING_FRAMES_H
#define HYBRID_URING_FRAMES_H

#include "core/device.h"

enum frames_kind { FRAMES_TAP, FRAMES_PACKET };

struct frames_setup {
  enum frames_kind kind;
  int fd;             /* taken over, also on failure */
  uint32_t interface; /* the kernel's index: for health */
  uint32_t ifindex;   /* the host table's row */
  uint32_t queue;     /* and which of its devices */
  bool header;        /* virtio_net_hdr in front of each frame */
  uint8_t registered; /* enum hy_request */
};

struct frames_obtained {
  bool deferred;
  bool registered;
};

/* -EPERM, -ENOSYS and so on of uring_ring_open(); -ENOLCK; -ENOMEM. Sets hy_error_detail(). */
int frames_open(struct arena *arena, const struct frames_setup *setup, struct frames_obtained *obtained,
                struct hy_device **out);

/*
 * Something that lives as long as the device: tick is called with every look at its health, close when it
 * closes.
 */
void frames_set_companion(struct hy_device *dev, void *companion, void (*tick)(void *),
                          void (*close_it)(void *));
/* NULL: it has none, or isn't a packet device. */
void *frames_companion(const struct hy_device *dev);

#endif
