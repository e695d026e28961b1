/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire device of wire.h: two queues of frame indices.
 *
 *     wire_inject()  -> in  -> rx_burst -> stack
 *     wire_collect() <- out <- tx_burst <- stack
 *
 * A frame that was sent stays the device's (FRAME_IN_DEVICE) until it is
 * collected, as it would stay a network card's until it has left.
 */
#include "core/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct queue {
  uint32_t head, tail; /* free-running: put at tail, taken at head */
  uint32_t frames[WIRE_RING];
};

struct wire {
  struct hy_device dev;
  struct queue in, out;
  struct hy_device_stats stats;
};

static uint32_t queue_length(const struct queue *q) {
  return q->tail - q->head;
}
static void queue_put(struct queue *q, uint32_t frame) {
  q->frames[q->tail++ % WIRE_RING] = frame;
}
static uint32_t queue_take(struct queue *q) {
  return q->frames[q->head++ % WIRE_RING];
}

static struct wire *wire_of(struct hy_device *dev) {
  return (struct wire *)dev;
}

static unsigned wire_rx_burst(struct hy_device *dev, uint32_t *frames, unsigned max) {
  struct wire *w = wire_of(dev);
  unsigned n = 0;
  for (; n < max && queue_length(&w->in) > 0; n++) {
    frames[n] = queue_take(&w->in);
    frame_meta(dev->arena, frames[n])->device = dev->index;
    w->stats.rx_frames++;
    w->stats.rx_bytes += packet_bytes(dev->arena, frames[n]);
  }
  return n;
}

static unsigned wire_tx_burst(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  struct wire *w = wire_of(dev);
  for (unsigned i = 0; i < n; i++) {
    if (queue_length(&w->out) == WIRE_RING) {
      w->stats.tx_full++;
      return i;
    }
    frame_meta(dev->arena, frames[i])->flags |= FRAME_IN_DEVICE;
    queue_put(&w->out, frames[i]);
    w->stats.tx_frames++;
    w->stats.tx_bytes += packet_bytes(dev->arena, frames[i]);
  }
  return n;
}

static int wire_wait_arm(struct hy_device *dev) {
  return queue_length(&wire_of(dev)->in) > 0;
}

static int wire_wait_fd(struct hy_device *dev) {
  return -1;
}

static void wire_stats(struct hy_device *dev, struct hy_device_stats *out) {
  *out = wire_of(dev)->stats;
}

static void wire_close(struct hy_device *dev) {
  struct wire *w = wire_of(dev);
  while (queue_length(&w->in) > 0)
    packet_drop(dev->arena, queue_take(&w->in));
  while (queue_length(&w->out) > 0)
    packet_drop(dev->arena, queue_take(&w->out));
  free(w);
}

static const struct hy_device_ops wire_ops = {
    .name = "wire",
    .rx_burst = wire_rx_burst,
    .tx_burst = wire_tx_burst,
    .wait_arm = wire_wait_arm,
    .wait_fd = wire_wait_fd,
    .stats = wire_stats,
    .close = wire_close,
};

struct hy_device *wire_create(struct arena *arena, uint32_t ifindex) {
  struct wire *w = calloc(1, sizeof *w);
  if (w == NULL)
    return NULL;
  w->dev.ops = &wire_ops;
  w->dev.arena = arena;
  w->dev.ifindex = ifindex;
  w->dev.caps = DEVICE_MULTI;
  w->dev.packet_frames_max = PACKET_FRAMES_MAX;
  w->dev.frame_bytes_max = arena_packet_room(arena);
  return &w->dev;
}

int wire_inject(struct hy_device *dev, const void *frame, size_t len_bytes) {
  return wire_inject_split(dev, frame, len_bytes, arena_frame_room(dev->arena));
}

int wire_inject_split(struct hy_device *dev, const void *frame, size_t len_bytes, uint32_t piece_bytes) {
  struct wire *w = wire_of(dev);
  if (len_bytes > dev->frame_bytes_max)
    return -EMSGSIZE;
  if (queue_length(&w->in) == WIRE_RING) {
    w->stats.rx_dropped++;
    return -ENOBUFS;
  }
  uint32_t index = packet_make(dev->arena, frame, (uint32_t)len_bytes, piece_bytes);
  if (index == FRAME_NONE) {
    w->stats.rx_no_frames++;
    return -ENOBUFS;
  }
  queue_put(&w->in, index);
  return 0;
}

int wire_collect(struct hy_device *dev, void *frame, size_t capacity_bytes) {
  struct wire *w = wire_of(dev);
  if (queue_length(&w->out) == 0)
    return 0;
  uint32_t index = w->out.frames[w->out.head % WIRE_RING];
  uint32_t len = packet_bytes(dev->arena, index);
  if (len > capacity_bytes)
    return -EMSGSIZE;
  packet_copy(dev->arena, index, frame);
  packet_drop(dev->arena, queue_take(&w->out));
  return (int)len;
}

/* ---- hybrid.h ------------------------------------------------------------ */

int hy_wire_attach(hy_shard *shard, uint32_t ifindex, uint32_t *port) {
  struct hy_device *dev = wire_create(shard_arena(shard), ifindex);
  if (dev == NULL)
    return -ENOMEM;
  int rc = shard_add_device(shard, dev);
  if (rc < 0) {
    wire_close(dev);
    return rc;
  }
  *port = dev->index;
  return 0;
}

static struct hy_device *wire_at(hy_shard *shard, uint32_t port) {
  struct hy_device *dev = shard_device(shard, port);
  return dev != NULL && dev->ops == &wire_ops ? dev : NULL;
}

int hy_wire_inject(hy_shard *shard, uint32_t port, const void *frame, size_t len_bytes) {
  struct hy_device *dev = wire_at(shard, port);
  return dev == NULL ? -ENODEV : wire_inject(dev, frame, len_bytes);
}

int hy_wire_collect(hy_shard *shard, uint32_t port, void *frame, size_t capacity_bytes) {
  struct hy_device *dev = wire_at(shard, port);
  return dev == NULL ? -ENODEV : wire_collect(dev, frame, capacity_bytes);
}
