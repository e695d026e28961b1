/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving frames by io_uring; frames.h says how.
 *
 * Who holds a frame. A receive slot keeps one frame with one reference, in the
 * kernel's hands or waiting to be; it leaves with what arrived in it. A transmit
 * slot carries the reference that tx_burst() took over until its completion, which
 * for a device that has room comes with the submission. At most RX_SLOTS frames
 * are kept, and none but the sentinel's while fewer than a quarter of the arena is
 * free: those are the stack's.
 */
#include "uring/frames.h"

#include "core/error.h"
#include "uring/cut.h"
#include "uring/ring.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
  RX_READS = 32,            /* that don't wait, at most */
  RX_SLOTS = RX_READS + 1,  /* and the sentinel */
  TX_SLOTS = 256,           /* frames under way at most */
  RING_ENTRIES = 512,       /* more than all of these together: never full */
  OVERFLOW_BYTES = 1 << 16, /* the longest merged packet */
  RESERVE_SHARE = 4,        /* one in so many frames of the arena is left to the stack */
  CLOSE_ROUNDS = 256,       /* calls to wait for what was cancelled */
  REGISTER_SHIFT = 30,      /* the largest buffer that can be registered is 1 GiB */
  HEADER_BYTES = sizeof(struct virtio_net_hdr),
};

/* What a completion is of: in the upper half of user_data, with the slot in the lower. */
enum { OF_RX = 1, OF_TX = 2, OF_CANCEL = 3 };

struct rx_slot {
  uint32_t frame; /* FRAME_NONE: none */
  int32_t result;
  struct iovec iov[2];
  struct msghdr message;
};

struct frames {
  struct hy_device dev;
  struct io_uring ring;
  struct uring_bell bell;
  enum frames_kind kind;
  int fd;
  uint32_t interface;
  uint32_t header; /* bytes in front of a frame: HEADER_BYTES or 0 */
  uint32_t room;   /* bytes for a frame's front, in a frame of the arena */
  uint32_t reserve;
  bool started, registered;
  int error; /* why no frame can come or go any more: 0, or a negative errno */

  struct rx_slot rx[RX_SLOTS];
  uint8_t idle[RX_SLOTS]; /* slots with nothing to do, as a stack */
  uint8_t nidle;
  uint8_t done[RX_SLOTS]; /* completed in this order, not yet handed up: a ring */
  uint32_t done_head, done_tail;
  bool sentinel;   /* it waits in the kernel, or is about to */
  bool asked;      /* it goes with the next submission */
  uint8_t waiter;  /* its slot */
  uint32_t reads;  /* beside it, in the next submission */
  uint32_t filled; /* of the last ones */
  struct cut cut;  /* the merged packet at the head of `done`, while cut.left > 0 */
  uint8_t *overflow;

  uint32_t tx[TX_SLOTS]; /* frames */
  uint16_t tx_free[TX_SLOTS];
  uint32_t ntx_free;

  struct hy_device_stats counts;
  void *companion;
  void (*companion_tick)(void *);
  void (*companion_close)(void *);
};

static inline struct frames *frames_of(const struct hy_device *dev) {
  return (struct frames *)(uintptr_t)dev;
}

static inline uint64_t tag(uint64_t of, uint32_t slot) {
  return of << 32 | slot;
}

/* In front of it the kernel's end of a read may spill, so that a merged packet's payload is in one piece. */
static inline uint8_t *overflow_of(const struct frames *d, uint32_t slot) {
  return d->overflow + (size_t)slot * (d->dev.arena->frame_size + OVERFLOW_BYTES) + d->dev.arena->frame_size;
}

/* ---- completions ------------------------------------------------------------ */

static void tx_done(struct frames *d, uint32_t slot, int32_t result) {
  uint32_t index = d->tx[slot];
  frame_meta(d->dev.arena, index)->flags &= (uint8_t)~FRAME_SEND_FLAGS;
  frame_unref(d->dev.arena, index);
  d->tx[slot] = FRAME_NONE;
  d->tx_free[d->ntx_free++] = (uint16_t)slot;
  if (result >= 0)
    return;
  if (result == -ENOBUFS || result == -EAGAIN) /* the interface's own queue is full: lost on the wire */
    d->counts.tx_full++;
  else if (result == -EMSGSIZE || result == -EINVAL)
    d->counts.tx_invalid++;
  else
    d->counts.tx_errors++;
  if (result == -EBADFD)
    d->error = -ENODEV;
}

static void reap(struct frames *d) {
  struct io_uring_cqe *cqe;
  unsigned head, n = 0;
  io_uring_for_each_cqe(&d->ring, head, cqe) {
    uint32_t slot = (uint32_t)cqe->user_data;
    n++;
    if (cqe->user_data >> 32 == OF_TX) {
      tx_done(d, slot, cqe->res);
    } else if (cqe->user_data >> 32 == OF_RX) {
      d->rx[slot].result = cqe->res;
      if (d->sentinel && slot == d->waiter)
        d->sentinel = false;
      else if (cqe->res >= 0)
        d->filled++;
      d->done[d->done_tail++ % RX_SLOTS] = (uint8_t)slot;
    }
  }
  io_uring_cq_advance(&d->ring, n);
}

/* One call: submits what is prepared and has the kernel complete what it can. */
static void call(struct frames *d) {
  bool asked = d->asked;
  d->asked = false;
  d->filled = 0;
  d->counts.kicks++;
  int status = io_uring_submit_and_get_events(&d->ring);
  if (status < 0 && status != -EINTR && status != -EAGAIN && status != -EBUSY) {
    d->error = status; /* another thread's ring */
    return;
  }
  reap(d);
  if (!asked)
    return;
  if (d->sentinel) /* it found nothing: so many were enough */
    d->reads = d->filled;
  else if (d->reads < RX_READS)
    d->reads = d->reads == 0 ? 1 : 2 * d->reads;
}

static bool start(struct frames *d) {
  if (d->started)
    return d->error == 0;
  d->started = true;
  d->error = uring_ring_start(&d->ring);
  return d->error == 0;
}

/* ---- asking for frames -------------------------------------------------------- */

/* False: no frame may be spent on it. */
static bool rx_prepare(struct frames *d, bool waits) {
  struct arena *arena = d->dev.arena;
  if (d->nidle == 0)
    return false;
  uint8_t number = d->idle[d->nidle - 1];
  struct rx_slot *slot = &d->rx[number];
  if (slot->frame == FRAME_NONE) {
    if (!waits && arena->free_count <= d->reserve)
      return false;
    slot->frame = frame_alloc(arena);
    if (slot->frame == FRAME_NONE) {
      d->counts.rx_no_frames++;
      return false;
    }
    uint8_t *at = frame_data(arena, slot->frame) - d->header;
    slot->iov[0] = (struct iovec){.iov_base = at, .iov_len = d->header + d->room};
  }
  struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);
  assert(sqe != NULL);
  if (d->kind == FRAMES_PACKET) {
    io_uring_prep_recvmsg(sqe, 0, &slot->message, MSG_TRUNC | (waits ? 0u : (unsigned)MSG_DONTWAIT));
  } else {
    io_uring_prep_readv(sqe, 0, slot->iov, 2, 0);
    sqe->rw_flags = waits ? 0 : RWF_NOWAIT;
  }
  sqe->flags |= IOSQE_FIXED_FILE;
  io_uring_sqe_set_data64(sqe, tag(OF_RX, number));
  d->nidle--;
  if (waits) {
    d->sentinel = d->asked = true;
    d->waiter = number;
  }
  return true;
}

/* The next reads, for the next submission. */
static void rx_ask(struct frames *d) {
  if (d->sentinel || d->error != 0)
    return;
  uint32_t n = 0;
  while (n < d->reads && d->nidle > 1 && rx_prepare(d, false))
    n++;
  d->reads = n;
  rx_prepare(d, true);
}

/* ---- handing frames up ------------------------------------------------------------ */

static void hand_up(struct frames *d, uint32_t index, uint32_t len, bool checked, uint32_t *frames,
                    unsigned *n) {
  struct frame *f = frame_meta(d->dev.arena, index);
  f->len = (uint16_t)len;
  f->device = d->dev.index;
  if (checked)
    f->flags |= FRAME_CSUM_GOOD;
  d->counts.rx_frames++;
  d->counts.rx_bytes += len;
  frames[(*n)++] = index;
}

/* As many segments of the merged packet as there is room for; true when it is used up. */
static bool cut_on(struct frames *d, uint32_t *frames, unsigned *n, unsigned max) {
  struct arena *arena = d->dev.arena;
  while (d->cut.left > 0) {
    if (*n == max)
      return false;
    uint32_t index = arena->free_count > d->reserve ? frame_alloc(arena) : FRAME_NONE;
    if (index == FRAME_NONE) { /* the sender sends the rest again */
      d->counts.rx_no_frames++;
      d->cut.left = 0;
      break;
    }
    uint32_t len = cut_next(&d->cut, frame_data(arena, index));
    hand_up(d, index, len, true, frames, n);
  }
  return true;
}

/* Readies a merged packet to be cut; false: it cannot be. */
static bool cut_slot(struct frames *d, uint32_t number, const struct virtio_net_hdr *header, uint32_t len) {
  const uint8_t *front = frame_data(d->dev.arena, d->rx[number].frame);
  uint32_t in_frame = len < d->room ? len : d->room;
  uint32_t headers = cut_begin(&d->cut, header, front, in_frame);
  if (headers == 0 || headers == len || cut_most(&d->cut) > d->room) {
    d->cut.left = 0;
    return false;
  }
  uint8_t *payload = overflow_of(d, number) - (in_frame - headers);
  memcpy(payload, front + headers, in_frame - headers);
  d->cut.payload = payload;
  d->cut.left = len - headers;
  return true;
}

/* What one slot has brought; true when the slot is done with. */
static bool take(struct frames *d, uint32_t number, uint32_t *frames, unsigned *n, unsigned max) {
  struct rx_slot *slot = &d->rx[number];
  if (slot->result < 0) {
    if (slot->result == -EBADFD || slot->result == -EBADF || slot->result == -ENODEV)
      d->error = -ENODEV;
    return true;
  }
  if (d->cut.left > 0)
    return cut_on(d, frames, n, max);
  uint32_t total = (uint32_t)slot->result;
  if (total <= d->header || total > d->header + d->room + (d->header > 0 ? OVERFLOW_BYTES : 0)) {
    d->counts.rx_dropped++;
    return true;
  }
  uint32_t len = total - d->header;
  struct virtio_net_hdr header = {0};
  memcpy(&header, slot->iov[0].iov_base, d->header);
  if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
    if (cut_slot(d, number, &header, len))
      return cut_on(d, frames, n, max);
    d->counts.rx_dropped++;
    return true;
  }
  if (len > d->room) {
    d->counts.rx_dropped++;
    return true;
  }
  bool checked = (header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) != 0;
  hand_up(d, slot->frame, len, checked, frames, n);
  slot->frame = FRAME_NONE;
  return true;
}

static unsigned rx_hand_up(struct frames *d, uint32_t *frames, unsigned max) {
  unsigned n = 0;
  while (d->done_head != d->done_tail && n < max) {
    uint8_t number = d->done[d->done_head % RX_SLOTS];
    if (!take(d, number, frames, &n, max))
      break;
    d->done_head++;
    d->idle[d->nidle++] = number;
  }
  return n;
}

/* ---- the table ------------------------------------------------------------------ */

static unsigned frames_rx_burst(struct hy_device *dev, uint32_t *frames, unsigned max) {
  struct frames *d = frames_of(dev);
  if (!start(d))
    return 0;
  if (d->bell.armed)
    uring_bell_disarm(&d->bell, &d->ring);
  rx_ask(d);
  if (io_uring_sq_ready(&d->ring) > 0 || uring_ring_wants_call(&d->ring))
    call(d);
  else
    reap(d);
  unsigned n = rx_hand_up(d, frames, max);
  rx_ask(d); /* leaves with what the answer to these frames is, or in the next poll */
  return n;
}

/* In the room that the stack leaves in front of a frame: what is left undone of it. */
static void header_write(const struct frames *d, uint8_t *to, struct frame *f) {
  struct virtio_net_hdr header = {0};
  if (f->flags & FRAME_CSUM_PARTIAL) {
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = (uint16_t)(f->csum_start - f->off);
    header.csum_offset = f->csum_offset;
  }
  memcpy(to, &header, d->header);
}

static unsigned frames_tx_burst(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  struct frames *d = frames_of(dev);
  struct arena *arena = dev->arena;
  if (!start(d)) { /* as a cable that has been cut */
    for (unsigned i = 0; i < n; i++)
      frame_unref(arena, frames[i]);
    d->counts.tx_errors += n;
    return n;
  }
  if (d->ntx_free < n)
    call(d);
  unsigned count = n < d->ntx_free ? n : d->ntx_free;
  uint64_t bytes = 0;
  for (unsigned i = 0; i < count; i++) {
    uint32_t index = frames[i];
    struct frame *f = frame_meta(arena, index);
    assert(f->refs > 0 && f->len > 0 && f->off >= arena->prefix + d->header);
    uint16_t slot = d->tx_free[--d->ntx_free];
    d->tx[slot] = index;
    f->flags |= FRAME_IN_DEVICE;
    uint8_t *data = frame_data(arena, index) - d->header;
    header_write(d, data, f);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);
    assert(sqe != NULL);
    if (d->kind == FRAMES_PACKET)
      io_uring_prep_send(sqe, 0, data, d->header + f->len, 0);
    else if (d->registered)
      io_uring_prep_write_fixed(sqe, 0, data, d->header + f->len, 0,
                                (int)((size_t)(data - arena->base) >> REGISTER_SHIFT));
    else
      io_uring_prep_write(sqe, 0, data, d->header + f->len, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, tag(OF_TX, slot));
    bytes += f->len;
  }
  d->counts.tx_frames += count;
  d->counts.tx_bytes += bytes;
  if (count < n)
    d->counts.tx_full++;
  if (count > 0)
    call(d);
  return count;
}

static int frames_wait_fd(struct hy_device *dev) {
  return frames_of(dev)->bell.fd;
}

/* The bell rings when something has completed, or could if it were asked to. */
static int frames_wait_arm(struct hy_device *dev) {
  struct frames *d = frames_of(dev);
  if (!start(d))
    return 0;
  if (d->done_head != d->done_tail)
    return 1;
  rx_ask(d);
  call(d);
  if (d->done_head != d->done_tail || (!d->sentinel && d->error == 0))
    return 1;
  uring_bell_arm(&d->bell, &d->ring);
  return io_uring_cq_ready(&d->ring) > 0 || uring_ring_wants_call(&d->ring);
}

static void frames_stats(struct hy_device *dev, struct hy_device_stats *out) {
  struct frames *d = frames_of(dev);
  struct tpacket_stats kernel = {0};
  socklen_t len = sizeof kernel;
  if (d->kind == FRAMES_PACKET && /* each reading starts its counters anew */
      getsockopt(d->fd, SOL_PACKET, PACKET_STATISTICS, &kernel, &len) == 0)
    d->counts.rx_dropped += kernel.tp_drops;
  *out = d->counts;
}

static int frames_health(struct hy_device *dev) {
  struct frames *d = frames_of(dev);
  if (d->companion_tick != NULL)
    d->companion_tick(d->companion);
  if (d->error != 0)
    return d->error;
  struct ifreq request = {.ifr_ifindex = (int)d->interface};
  if (d->kind == FRAMES_PACKET ? ioctl(d->fd, SIOCGIFNAME, &request) < 0
                               : ioctl(d->fd, TUNGETIFF, &request) < 0)
    return -ENODEV;
  return 0;
}

static void cancel_all(struct frames *d) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);
  assert(sqe != NULL);
  io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY);
  io_uring_sqe_set_data64(sqe, tag(OF_CANCEL, 0));
  for (int i = 0; i < CLOSE_ROUNDS; i++) {
    call(d);
    d->nidle = (uint8_t)(d->nidle + (d->done_tail - d->done_head));
    d->done_head = d->done_tail;
    if (d->nidle == RX_SLOTS && d->ntx_free == TX_SLOTS)
      return;
  }
}

static void frames_free(struct frames *d) {
  struct arena *arena = d->dev.arena;
  if (d->companion_close != NULL)
    d->companion_close(d->companion);
  if (d->ring.ring_fd >= 0) {
    /* The ring itself ends a little later, from a work queue: what it holds should not wait for that. */
    io_uring_unregister_files(&d->ring);
    if (d->registered)
      io_uring_unregister_buffers(&d->ring);
    io_uring_queue_exit(&d->ring);
  }
  uring_bell_close(&d->bell);
  close(d->fd);
  for (uint32_t i = 0; i < RX_SLOTS; i++)
    if (d->rx[i].frame != FRAME_NONE)
      frame_unref(arena, d->rx[i].frame);
  for (uint32_t i = 0; i < TX_SLOTS; i++) {
    if (d->tx[i] == FRAME_NONE)
      continue;
    frame_meta(arena, d->tx[i])->flags &= (uint8_t)~FRAME_SEND_FLAGS;
    frame_unref(arena, d->tx[i]);
  }
  if (d->overflow != NULL)
    munmap(d->overflow, RX_SLOTS * (size_t)(arena->frame_size + OVERFLOW_BYTES));
  free(d);
}

static void frames_close(struct hy_device *dev) {
  struct frames *d = frames_of(dev);
  if (d->started)
    cancel_all(d);
  frames_free(d);
}

#define FRAMES_OPS(label)                                                                                    \
  {                                                                                                          \
    .name = (label), .rx_burst = frames_rx_burst, .tx_burst = frames_tx_burst, .wait_arm = frames_wait_arm,  \
    .wait_fd = frames_wait_fd, .stats = frames_stats, .health = frames_health, .close = frames_close,        \
  }
static const struct hy_device_ops tap_ops = FRAMES_OPS("tap"), packet_ops = FRAMES_OPS("packet");

/* ---- opening ---------------------------------------------------------------------- */

/* The arena as buffers to send from, so that its pages are looked up once and not for every frame. */
static int register_arena(struct frames *d) {
  const struct arena *arena = d->dev.arena;
  size_t most = (size_t)1 << REGISTER_SHIFT, at = 0;
  struct iovec buffers[16];
  unsigned n = 0;
  for (; at < arena->size_bytes && n < 16; at += most, n++) {
    size_t left = arena->size_bytes - at;
    buffers[n] = (struct iovec){.iov_base = arena->base + at, .iov_len = left < most ? left : most};
  }
  int status = at < arena->size_bytes ? -EINVAL : io_uring_register_buffers(&d->ring, buffers, n);
  d->registered = status == 0;
  return status;
}

static struct frames *frames_make(struct arena *arena, const struct frames_setup *setup) {
  struct frames *d = calloc(1, sizeof *d);
  if (d == NULL)
    return NULL;
  uint32_t room = arena_frame_room(arena);
  d->dev = (struct hy_device){
      .ops = setup->kind == FRAMES_TAP ? &tap_ops : &packet_ops,
      .arena = arena,
      .ifindex = setup->ifindex,
      .queue = setup->queue,
      .frame_bytes_max = room,
      .caps = setup->header ? DEVICE_TX_CSUM : 0,
      .packet_frames_max = 1,
      .tx_room = setup->header ? HEADER_BYTES : 0,
  };
  d->ring.ring_fd = d->bell.fd = -1;
  d->kind = setup->kind;
  d->fd = setup->fd;
  d->interface = setup->interface;
  d->header = setup->header ? HEADER_BYTES : 0;
  d->room = room;
  d->reserve = arena->frames / RESERVE_SHARE;
  for (uint32_t i = 0; i < TX_SLOTS; i++) {
    d->tx[i] = FRAME_NONE;
    d->tx_free[d->ntx_free++] = (uint16_t)i;
  }
  /* Memory that nothing merged is ever put in is never touched, and so costs nothing. */
  void *overflow = mmap(NULL, RX_SLOTS * (size_t)(arena->frame_size + OVERFLOW_BYTES), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  d->overflow = overflow == MAP_FAILED ? NULL : overflow;
  for (uint32_t i = 0; i < RX_SLOTS; i++) {
    struct rx_slot *slot = &d->rx[i];
    slot->frame = FRAME_NONE;
    if (d->overflow != NULL)
      slot->iov[1] = (struct iovec){.iov_base = overflow_of(d, i), .iov_len = OVERFLOW_BYTES};
    slot->message = (struct msghdr){.msg_iov = slot->iov, .msg_iovlen = 2};
    d->idle[d->nidle++] = (uint8_t)i;
  }
  return d;
}

int frames_open(struct arena *arena, const struct frames_setup *setup, struct frames_obtained *obtained,
                struct hy_device **out) {
  struct frames *d = frames_make(arena, setup);
  if (d == NULL || d->overflow == NULL) {
    if (d == NULL)
      close(setup->fd);
    else
      frames_free(d);
    return error_detail_set(-ENOMEM, "there is no memory for the device's buffers: about 2 MiB are needed");
  }
  struct io_uring ring;
  int status = uring_ring_open(&ring, RING_ENTRIES, RING_ENTRIES, &obtained->deferred);
  if (status < 0)
    goto fail;
  d->ring = ring;
  status = uring_bell_open(&d->bell, &d->ring);
  if (status < 0)
    goto fail;
  status = io_uring_register_files(&d->ring, &d->fd, 1);
  if (status < 0) {
    error_detail_set(status, "io_uring does not take the device's descriptor: %s", strerror(-status));
    goto fail;
  }
  if (setup->kind == FRAMES_TAP && setup->registered != HY_REQUEST_NO) {
    status = register_arena(d);
    if (status < 0 && setup->registered == HY_REQUEST_MUST) {
      status = error_detail_set(
          -ENOLCK,
          "the packet memory (%zu MiB) cannot be registered: raise RLIMIT_MEMLOCK, give the process "
          "CAP_IPC_LOCK, or do not insist on registered buffers",
          arena->size_bytes >> 20);
      goto fail;
    }
  }
  obtained->registered = d->registered;
  *out = &d->dev;
  return 0;

fail:
  frames_free(d);
  return status;
}

void frames_set_companion(struct hy_device *dev, void *companion, void (*tick)(void *),
                          void (*close_it)(void *)) {
  struct frames *d = frames_of(dev);
  d->companion = companion;
  d->companion_tick = tick;
  d->companion_close = close_it;
}

void *frames_companion(const struct hy_device *dev) {
  return dev->ops == &packet_ops ? frames_of(dev)->companion : NULL;
}
