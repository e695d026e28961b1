/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory device of memory.h. A cable is one lane per direction; a lane is a
 * ring of frames that still lie in the sender's arena:
 *
 *        reclaimed        taken              put
 *            v              v                 v
 *     -------+--------------+-----------------+------
 *            | copied out:  | under way:      | free
 *            | the sender   | the receiver    |
 *            | drops them   | copies them     |
 *
 * The sender moves `put` and `reclaimed`, the receiver `taken`. The receiver reads
 * the sender's arena, so it holds the lane's lock while it copies, and a sender that
 * goes away takes the lock before its arena may be unmapped. Nobody else ever waits
 * for it.
 */
#include "core/memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct lane_frame {
  const uint8_t *data;
  uint32_t frame; /* in the sender's arena */
  uint32_t len;
  bool more; /* the next one belongs to the same packet */
};

struct lane {
  _Alignas(64) atomic_uint put;
  uint32_t reclaimed;
  _Alignas(64) atomic_uint taken;
  atomic_flag lock;
  bool sender_gone;     /* written under lock */
  atomic_bool deaf;     /* the receiver has gone */
  atomic_bool sleeping; /* the receiver wants a write to wake_fd */
  int wake_fd;
  struct lane_frame frames[MEMORY_RING];
};

struct cable {
  struct lane lanes[2];
  atomic_int ends; /* not closed yet; the last frees the cable */
};

struct memory {
  struct hy_device dev;
  struct cable *cable;
  struct lane *out, *in;
  struct hy_device_stats stats;
};

static struct memory *memory_of(struct hy_device *dev) {
  return (struct memory *)dev;
}

static void lane_lock(struct lane *lane) {
  while (atomic_flag_test_and_set_explicit(&lane->lock, memory_order_acquire))
    __builtin_ia32_pause();
}

static void lane_unlock(struct lane *lane) {
  atomic_flag_clear_explicit(&lane->lock, memory_order_release);
}

/* Sender: drops the frames that the receiver has taken, or all where there is no receiver any more. */
static void lane_reclaim(struct lane *lane, struct arena *arena) {
  bool all = lane->sender_gone || atomic_load_explicit(&lane->deaf, memory_order_acquire);
  uint32_t to = all ? atomic_load_explicit(&lane->put, memory_order_relaxed)
                    : atomic_load_explicit(&lane->taken, memory_order_acquire);
  for (; lane->reclaimed != to; lane->reclaimed++) {
    uint32_t index = lane->frames[lane->reclaimed % MEMORY_RING].frame;
    frame_meta(arena, index)->flags &= (uint8_t)~FRAME_SEND_FLAGS;
    frame_unref(arena, index);
  }
}

/* How many lane frames the packet at `at` has, which are all there, and how many bytes. */
static uint32_t lane_packet(const struct lane *lane, uint32_t at, uint32_t *bytes) {
  uint32_t n = 0;
  *bytes = 0;
  for (bool more = true; more; n++) {
    const struct lane_frame *f = &lane->frames[(at + n) % MEMORY_RING];
    *bytes += f->len;
    more = f->more;
  }
  return n;
}

/* Copies n lane frames into a packet of the receiver's arena, whose frames may be of another size. */
static uint32_t lane_copy(const struct lane *lane, uint32_t at, uint32_t n, struct arena *arena) {
  uint32_t head = frame_alloc(arena), tail = head, room = arena_frame_room(arena);
  for (uint32_t i = 0; i < n && head != FRAME_NONE; i++) {
    const struct lane_frame *from = &lane->frames[(at + i) % MEMORY_RING];
    for (uint32_t done = 0; done < from->len;) {
      struct frame *f = frame_meta(arena, tail);
      if (f->len == room) {
        uint32_t fresh = frame_alloc(arena);
        if (fresh == FRAME_NONE) {
          packet_drop(arena, head);
          return FRAME_NONE;
        }
        packet_link(arena, tail, fresh);
        tail = fresh;
        f = frame_meta(arena, tail);
      }
      uint32_t some = from->len - done < room - f->len ? from->len - done : room - f->len;
      memcpy(frame_data(arena, tail) + f->len, from->data + done, some);
      f->len = (uint16_t)(f->len + some);
      done += some;
    }
  }
  return head;
}

static unsigned memory_rx_burst(struct hy_device *dev, uint32_t *frames, unsigned max) {
  struct memory *m = memory_of(dev);
  lane_reclaim(m->out, dev->arena);

  struct lane *in = m->in;
  uint32_t taken = atomic_load_explicit(&in->taken, memory_order_relaxed);
  if (atomic_load_explicit(&in->put, memory_order_acquire) == taken)
    return 0;
  lane_lock(in);
  /* Again, under the lock: a sender that went away has withdrawn what was under way. */
  uint32_t put = atomic_load_explicit(&in->put, memory_order_acquire);
  taken = atomic_load_explicit(&in->taken, memory_order_relaxed);
  unsigned n = 0;
  for (uint32_t held, bytes; n < max && taken != put && !in->sender_gone; taken += held) {
    held = lane_packet(in, taken, &bytes);
    if (bytes > dev->frame_bytes_max) {
      m->stats.rx_dropped++;
      continue;
    }
    uint32_t index = lane_copy(in, taken, held, dev->arena);
    if (index == FRAME_NONE) {
      m->stats.rx_no_frames++;
      break;
    }
    frame_meta(dev->arena, index)->device = dev->index;
    m->stats.rx_frames++;
    m->stats.rx_bytes += bytes;
    frames[n++] = index;
  }
  atomic_store_explicit(&in->taken, taken, memory_order_release);
  lane_unlock(in);
  return n;
}

static unsigned memory_tx_burst(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  struct memory *m = memory_of(dev);
  struct lane *out = m->out;
  uint32_t put = atomic_load_explicit(&out->put, memory_order_relaxed);
  lane_reclaim(out, dev->arena);
  bool deaf = atomic_load_explicit(&out->deaf, memory_order_relaxed);
  unsigned accepted = 0;
  for (; accepted < n; accepted++) {
    uint32_t index = frames[accepted];
    if (!deaf && put - out->reclaimed + packet_frames(dev->arena, index) > MEMORY_RING)
      break;
    m->stats.tx_frames++;
    m->stats.tx_bytes += packet_bytes(dev->arena, index);
    if (deaf) {
      packet_drop(dev->arena, index);
      continue;
    }
    for (bool more = true; more;) {
      struct frame *f = frame_meta(dev->arena, index);
      f->flags |= FRAME_IN_DEVICE;
      more = f->flags & FRAME_MORE;
      out->frames[put++ % MEMORY_RING] = (struct lane_frame){
          .data = frame_data(dev->arena, index), .frame = index, .len = f->len, .more = more};
      index = f->more;
    }
  }
  if (accepted < n)
    m->stats.tx_full++;
  if (accepted > 0 && !deaf) {
    /* Sequentially consistent, as memory_wait_arm() is: either it sees these frames or we see it asleep. */
    atomic_store(&out->put, put);
    if (atomic_load(&out->sleeping) && atomic_exchange(&out->sleeping, false)) {
      m->stats.kicks++;
      if (eventfd_write(out->wake_fd, 1) < 0)
        assert(errno == EAGAIN); /* its counter is full: it is readable already */
    }
  }
  return accepted;
}

static int memory_wait_arm(struct hy_device *dev) {
  struct lane *in = memory_of(dev)->in;
  eventfd_t ignored;
  if (eventfd_read(in->wake_fd, &ignored) < 0)
    assert(errno == EAGAIN); /* nobody has woken us: as it should be */
  atomic_store(&in->sleeping, true);
  return atomic_load(&in->put) != atomic_load(&in->taken);
}

static int memory_wait_fd(struct hy_device *dev) {
  return memory_of(dev)->in->wake_fd;
}

static void memory_stats(struct hy_device *dev, struct hy_device_stats *out) {
  *out = memory_of(dev)->stats;
}

static void cable_release(struct cable *cable) {
  if (atomic_fetch_sub(&cable->ends, 1) > 1)
    return;
  for (unsigned i = 0; i < 2; i++)
    if (cable->lanes[i].wake_fd >= 0)
      close(cable->lanes[i].wake_fd);
  free(cable);
}

static void memory_close(struct hy_device *dev) {
  struct memory *m = memory_of(dev);
  atomic_store(&m->in->deaf, true);
  lane_lock(m->out);
  m->out->sender_gone = true;
  lane_unlock(m->out);
  lane_reclaim(m->out, dev->arena);
  cable_release(m->cable);
  free(m);
}

static const struct hy_device_ops memory_ops = {
    .name = "memory",
    .rx_burst = memory_rx_burst,
    .tx_burst = memory_tx_burst,
    .wait_arm = memory_wait_arm,
    .wait_fd = memory_wait_fd,
    .stats = memory_stats,
    .close = memory_close,
};

static struct memory *end_create(struct cable *cable, unsigned end, struct arena *arena, uint32_t ifindex) {
  struct memory *m = calloc(1, sizeof *m);
  if (m == NULL)
    return NULL;
  m->dev.ops = &memory_ops;
  m->dev.arena = arena;
  m->dev.ifindex = ifindex;
  m->dev.caps = DEVICE_MULTI;
  m->dev.packet_frames_max = PACKET_FRAMES_MAX;
  m->dev.frame_bytes_max = arena_packet_room(arena);
  m->cable = cable;
  m->out = &cable->lanes[end];
  m->in = &cable->lanes[1 - end];
  return m;
}

int memory_create(struct arena *a, uint32_t ifindex_a, struct arena *b, uint32_t ifindex_b,
                  struct hy_device *ends[2]) {
  struct cable *cable = aligned_alloc(64, sizeof *cable);
  if (cable == NULL)
    return -ENOMEM;
  memset(cable, 0, sizeof *cable);
  cable->lanes[0].wake_fd = cable->lanes[1].wake_fd = -1;
  int rc = -ENOMEM;
  struct memory *first = end_create(cable, 0, a, ifindex_a);
  struct memory *second = end_create(cable, 1, b, ifindex_b);
  if (first == NULL || second == NULL)
    goto fail;
  for (unsigned i = 0; i < 2; i++) {
    cable->lanes[i].wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (cable->lanes[i].wake_fd < 0) {
      rc = -errno;
      goto fail;
    }
  }
  atomic_init(&cable->ends, 2);
  ends[0] = &first->dev;
  ends[1] = &second->dev;
  return 0;

fail:
  free(second);
  free(first);
  atomic_init(&cable->ends, 1);
  cable_release(cable);
  assert(rc < 0);
  return rc;
}

int hy_memory_attach(hy_shard *a, uint32_t ifindex_a, hy_shard *b, uint32_t ifindex_b) {
  struct hy_device *ends[2];
  int rc = memory_create(shard_arena(a), ifindex_a, shard_arena(b), ifindex_b, ends);
  if (rc < 0)
    return rc;
  rc = shard_add_device(a, ends[0]);
  if (rc < 0)
    memory_close(ends[0]);
  int rc_b = rc < 0 ? rc : shard_add_device(b, ends[1]);
  if (rc_b < 0) /* a keeps an end with nobody at the other, until it is closed */
    memory_close(ends[1]);
  return rc_b;
}
