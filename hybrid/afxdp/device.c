/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving frames between an arena and one AF_XDP queue.
 *
 * Who holds a frame. A frame that the kernel may write (fill ring, its own
 * pockets, rx ring) carries the one reference that frame_alloc() gave, and moves
 * on to the caller of rx_burst(). A frame that the kernel may read carries the
 * reference that tx_burst() took over, dropped at its completion. The ledger
 * keeps one byte per frame with both facts, because the kernel does not show
 * which frames are in its pockets: it checks every descriptor that comes back, and
 * close() returns by it whatever is still out. FRAME_IN_DEVICE is one bit of the
 * frame: the caller offers a frame to one device at a time.
 *
 * How many frames a queue holds. The fill ring is kept at `fill_target`: an eighth
 * of the arena at most, so that four queues take half of it. Restocking stops
 * while fewer than arena_reserve() frames are free, which is where the stack stops
 * to keep data as well: those are to answer and to send with, however much arrives. Only the first
 * `fill_floor` frames of a queue are taken from the reserve as well: with none, the
 * acknowledgements that would free the frames in flight could not arrive, and
 * nothing would move again.
 *
 * When work is done. A burst that brought frames hands them on at once; taking
 * back completions and restocking wait for the next empty poll, unless much of
 * it has piled up. In copy mode (veth, and most virtual NICs) it is sendto() that
 * sends: a bounded number of descriptors per call (32 before Linux 6.18), and
 * none where the peer or the socket's buffer is full. So the transmit ring may
 * hold descriptors after the kick, and every poll kicks again until it is empty.
 *
 * A packet of several frames is as many descriptors, all but the last of them marked
 * XDP_PKT_CONTD. The kernel publishes a packet whole, but a burst may end within it:
 * what there is of it is kept (`partial`) until the rest is taken.
 */
#include "afxdp/afxdp.h"
#include "afxdp/newer.h"
#include "afxdp/xsk.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  LEDGER_LENT = 0x80,      /* the kernel has it to receive into */
  LEDGER_SENDS_MAX = 0x7f, /* transmissions of it outstanding: the other bits */

  FILL_SHARE = 8, /* of the arena's frames, one in so many at most */
  FILL_FLOOR = DEVICE_BURST,

  REAP_MAX = 4 * DEVICE_BURST, /* completions taken back at once */
  KICKS_MAX = 8,               /* calls in a row while each one makes the ring move */
  CLOSE_KICKS_MAX = 256,       /* attempts to send the last frames before closing */
  ARM_PATIENCE = 256,          /* polls that a completion is waited for before sleeping regardless */
};

struct afxdp {
  struct hy_device dev;
  struct xsk xsk;
  uint8_t *ledger;
  uint32_t fill_held; /* frames with LEDGER_LENT */
  uint32_t fill_target;
  uint32_t fill_floor;
  uint32_t tx_held; /* transmissions whose completion is outstanding */
  uint32_t patience;
  uint32_t queue;
  uint32_t partial, partial_tail; /* a packet of which not all frames were taken yet; FRAME_NONE */
  uint32_t partial_frames;
  int map_fd;     /* owned, or -1 */
  int lost;       /* what health() has found: 0, or a negative errno for good */
  int kick_error; /* of the last kick: 0, or the negative errno for which there is no sense in trying on */
  bool busy_poll;
  bool in_map;
  struct hy_device_stats counts;
};

static inline struct afxdp *afxdp_of(struct hy_device *dev) {
  return (struct afxdp *)dev;
}

/* ---- giving the kernel empty frames -------------------------------------- */

static void fill_stock(struct afxdp *x) {
  struct arena *arena = x->dev.arena;
  if (x->fill_held >= x->fill_target)
    return;
  uint32_t want = x->fill_target - x->fill_held;
  uint32_t reserve = arena_reserve(arena);
  uint32_t allowed = arena->free_count > reserve ? arena->free_count - reserve : 0;
  if (x->fill_held < x->fill_floor) {
    uint32_t least = x->fill_floor - x->fill_held;
    if (allowed < least)
      allowed = least < arena->free_count ? least : arena->free_count;
  }
  if (want > allowed)
    want = allowed;
  if (want == 0)
    return;
  struct ring *fill = &x->xsk.rings[XSK_FILL];
  uint32_t n = ring_reserve(fill, want);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t index = frame_alloc(arena);
    assert(index != FRAME_NONE && x->ledger[index] == 0);
    x->ledger[index] = LEDGER_LENT;
    *ring_addr(fill, fill->cached_prod + i) = (uint64_t)index << arena->frame_shift;
  }
  x->fill_held += n;
  ring_submit(fill, n);
}

/* ---- taking sent frames back ---------------------------------------------- */

static void tx_reap(struct afxdp *x) {
  struct arena *arena = x->dev.arena;
  struct ring *done = &x->xsk.rings[XSK_COMPLETION];
  uint32_t n = ring_peek(done, x->tx_held < REAP_MAX ? x->tx_held : REAP_MAX);
  if (n == 0)
    return;
  for (uint32_t i = 0; i < n; i++) {
    uint64_t index = *ring_addr(done, done->cached_cons + i) >> arena->frame_shift;
    assert(index < arena->frames && (x->ledger[index] & LEDGER_SENDS_MAX) != 0);
    if ((--x->ledger[index] & LEDGER_SENDS_MAX) == 0)
      frame_meta(arena, (uint32_t)index)->flags &= (uint8_t)~FRAME_SEND_FLAGS;
    frame_unref(arena, (uint32_t)index);
  }
  ring_release(done, n);
  x->tx_held -= n;
  x->patience = ARM_PATIENCE;
}

/*
 * Rings the doorbell, again while that makes the ring move and it is not empty.
 * EAGAIN (the budget of one call is used up, or the socket's buffer or the
 * completion ring is full), EBUSY (the wire refused the frame) and ENOBUFS lose
 * nothing that is in the ring: the next poll tries again. Any other error means
 * that the interface is down or gone.
 */
static void tx_kick(struct afxdp *x) {
  struct ring *tx = &x->xsk.rings[XSK_TX];
  for (int i = 0; i < KICKS_MAX; i++) {
    uint32_t before = tx->cached_cons;
    x->counts.kicks++;
    x->kick_error = 0;
    if (sendto(x->xsk.fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN && errno != EBUSY &&
        errno != ENOBUFS && errno != EINTR) {
      x->kick_error = -errno;
      x->counts.tx_errors++;
      return;
    }
    if (!ring_unconsumed(tx) || tx->cached_cons == before)
      return;
  }
}

static inline bool tx_wants_kick(const struct afxdp *x) {
  return x->busy_poll || ring_needs_wakeup(&x->xsk.rings[XSK_TX]);
}

/* ---- the device ------------------------------------------------------------ */

/*
 * A frame of a packet of several: joined to those before it. True: the packet, whose first frame goes to
 * *head, is whole. One of too many frames is dropped.
 */
static __attribute__((noinline)) bool rx_join(struct afxdp *x, uint32_t index, bool more, uint32_t *head) {
  struct arena *arena = x->dev.arena;
  if (x->partial == FRAME_NONE) {
    x->partial = index;
    x->partial_frames = 0;
  } else {
    packet_link(arena, x->partial_tail, index);
  }
  x->partial_tail = index;
  x->partial_frames++;
  if (more)
    return false;
  *head = x->partial;
  x->partial = FRAME_NONE;
  if (x->partial_frames <= PACKET_FRAMES_MAX)
    return true;
  packet_drop(arena, *head);
  x->counts.rx_dropped++;
  return false;
}

/*
 * Reads n descriptors into packets. Fewer come out where some have several frames, and where the kernel
 * named a frame that it doesn't have.
 */
static unsigned rx_take(struct afxdp *x, uint32_t *frames, uint32_t n) {
  struct arena *arena = x->dev.arena;
  struct ring *rx = &x->xsk.rings[XSK_RX];
  uint32_t offset_mask = arena->frame_size - 1;
  uint64_t bytes = 0;
  unsigned taken = 0;
  for (uint32_t i = 0; i < n; i++) {
    const struct xdp_desc *desc = ring_desc(rx, rx->cached_cons + i);
    uint64_t index = desc->addr >> arena->frame_shift;
    uint32_t off = (uint32_t)desc->addr & offset_mask;
    uint32_t len = desc->len;
    if (__builtin_expect(index >= arena->frames || len > arena->frame_size - off ||
                             !(x->ledger[index] & LEDGER_LENT),
                         0)) {
      x->counts.rx_dropped++;
      continue;
    }
    /* Written by another core a moment ago; whoever parses it wants it next. */
    __builtin_prefetch(arena->base + desc->addr);
    x->ledger[index] = (uint8_t)(x->ledger[index] & ~LEDGER_LENT);
    x->fill_held--;
    struct frame *f = &arena->meta[index];
    f->off = (uint16_t)off;
    f->len = (uint16_t)len;
    f->device = x->dev.index;
    bytes += len;
    uint32_t head = (uint32_t)index;
    if (__builtin_expect((desc->options & XDP_PKT_CONTD) || x->partial != FRAME_NONE, 0) &&
        !rx_join(x, (uint32_t)index, desc->options & XDP_PKT_CONTD, &head))
      continue;
    frames[taken++] = head;
  }
  ring_release(rx, n);
  x->counts.rx_frames += taken;
  x->counts.rx_bytes += bytes;
  return taken;
}

/* Nothing has arrived: the time for what can wait. */
static void rx_idle(struct afxdp *x) {
  tx_reap(x);
  fill_stock(x);
  if (x->busy_poll || ring_needs_wakeup(&x->xsk.rings[XSK_FILL])) {
    x->counts.kicks++;
    recvfrom(x->xsk.fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
  }
}

static unsigned afxdp_rx_burst(struct hy_device *dev, uint32_t *frames, unsigned max) {
  struct afxdp *x = afxdp_of(dev);
  struct ring *rx = &x->xsk.rings[XSK_RX];
  if (ring_unconsumed(&x->xsk.rings[XSK_TX]) && tx_wants_kick(x))
    tx_kick(x);
  uint32_t n = ring_peek(rx, max);
  if (n == 0) {
    rx_idle(x);
    n = ring_peek(rx, max);
    if (n == 0)
      return 0;
  }
  unsigned taken = rx_take(x, frames, n);
  if (x->tx_held >= DEVICE_BURST)
    tx_reap(x);
  if (x->fill_held + DEVICE_BURST <= x->fill_target || x->fill_held < x->fill_floor)
    fill_stock(x);
  return taken;
}

/* The descriptors that n packets take. */
static uint32_t descriptors_of(const struct arena *arena, const uint32_t *frames, unsigned n) {
  uint32_t sum = 0;
  for (unsigned i = 0; i < n; i++)
    sum += packet_frames(arena, frames[i]);
  return sum;
}

/* What the kernel is asked to do with the frame, in front of its first byte; returns the descriptor's option.
 */
static uint32_t tx_metadata_put(uint8_t *base, const struct frame *f) {
  struct tx_metadata meta = {
      .flags = XDP_TXMD_FLAGS_CHECKSUM,
      .csum_start = (uint16_t)(f->csum_start - f->off),
      .csum_offset = f->csum_offset,
  };
  assert(f->off >= sizeof meta);
  memcpy(base + f->off - sizeof meta, &meta, sizeof meta);
  return XDP_TX_METADATA;
}

/* Writes a packet's descriptors from `at` on; returns how many. */
static inline uint32_t tx_put(struct afxdp *x, uint32_t at, uint32_t index, uint64_t *bytes) {
  struct arena *arena = x->dev.arena;
  struct ring *tx = &x->xsk.rings[XSK_TX];
  for (uint32_t n = 1;; n++) {
    struct frame *f = frame_meta(arena, index);
    assert(f->refs > 0 && f->len > 0 && (uint32_t)f->off + f->len <= arena->frame_size);
    assert(x->ledger[index] < LEDGER_SENDS_MAX);
    x->ledger[index]++;
    f->flags |= FRAME_IN_DEVICE;
    uint32_t options = 0;
    if (__builtin_expect(f->flags & (FRAME_MORE | FRAME_CSUM_PARTIAL), 0)) {
      options = f->flags & FRAME_MORE ? XDP_PKT_CONTD : 0;
      if (f->flags & FRAME_CSUM_PARTIAL)
        options |= tx_metadata_put(frame_base(arena, index), f);
    }
    *ring_desc(tx, at++) = (struct xdp_desc){
        .addr = ((uint64_t)index << arena->frame_shift) + f->off,
        .len = f->len,
        .options = options,
    };
    *bytes += f->len;
    if (!(options & XDP_PKT_CONTD))
      return n;
    index = f->more;
  }
}

static unsigned afxdp_tx_burst(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  struct afxdp *x = afxdp_of(dev);
  struct arena *arena = dev->arena;
  struct ring *tx = &x->xsk.rings[XSK_TX];
  uint32_t wanted = dev->caps & DEVICE_MULTI ? descriptors_of(arena, frames, n) : n;
  if (x->tx_held + wanted > tx->size)
    tx_reap(x);
  /* The completion ring is as long as this one, and all that is outstanding must fit into it. */
  uint32_t room = x->tx_held < tx->size ? tx->size - x->tx_held : 0;
  room = ring_reserve(tx, wanted < room ? wanted : room);
  uint64_t bytes = 0;
  uint32_t put = 0, count = 0;
  for (; count < n; count++) {
    if (room < wanted && put + packet_frames(arena, frames[count]) > room)
      break;
    put += tx_put(x, tx->cached_prod + put, frames[count], &bytes);
  }
  if (count > 0) {
    ring_submit(tx, put);
    x->tx_held += put;
    x->patience = ARM_PATIENCE;
    x->counts.tx_frames += count;
    x->counts.tx_bytes += bytes;
  }
  if (count < n)
    x->counts.tx_full++;
  if ((count > 0 || (n > 0 && ring_unconsumed(tx))) && tx_wants_kick(x))
    tx_kick(x);
  return count;
}

static int afxdp_wait_fd(struct hy_device *dev) {
  return afxdp_of(dev)->xsk.fd;
}

/*
 * The socket becomes readable by arrivals only. So it is too early to sleep while
 * a completion is outstanding that somebody may be waiting for, or frames have
 * yet to leave; but not for ever, as a link that is down completes nothing.
 */
static int afxdp_wait_arm(struct hy_device *dev) {
  struct afxdp *x = afxdp_of(dev);
  if (ring_unconsumed(&x->xsk.rings[XSK_TX]) && tx_wants_kick(x))
    tx_kick(x);
  tx_reap(x);
  fill_stock(x);
  if (ring_peek(&x->xsk.rings[XSK_RX], 1) > 0)
    return 1;
  if (x->tx_held > 0 && x->kick_error == 0 && x->patience > 0) {
    x->patience--;
    return 1;
  }
  return 0;
}

static void afxdp_stats(struct hy_device *dev, struct hy_device_stats *out) {
  struct afxdp *x = afxdp_of(dev);
  *out = x->counts;
  struct xdp_statistics kernel = {0};
  socklen_t len = sizeof kernel;
  if (getsockopt(x->xsk.fd, SOL_XDP, XDP_STATISTICS, &kernel, &len) < 0 || len != sizeof kernel)
    return;
  /*
   * In copy mode a frame for which there was no empty one counts as rx_dropped and
   * as a miss of the fill ring; in zero-copy mode the driver's attempts do the latter.
   */
  out->rx_dropped += kernel.rx_dropped + kernel.rx_ring_full + kernel.rx_invalid_descs;
  out->rx_no_frames = kernel.rx_fill_ring_empty_descs;
  out->tx_invalid = kernel.tx_invalid_descs;
}

static void afxdp_free(struct afxdp *x) {
  /* Steering stops before the socket goes, so that no frame meets a closed one. */
  if (x->in_map)
    bpf_map_delete_elem(x->map_fd, &x->queue);
  if (x->map_fd >= 0)
    close(x->map_fd);
  xsk_close(&x->xsk);
  if (x->partial != FRAME_NONE)
    packet_drop(x->dev.arena, x->partial);
  if (x->ledger != NULL) {
    struct arena *arena = x->dev.arena;
    for (uint32_t i = 0; i < arena->frames; i++) {
      if (x->ledger[i] == 0)
        continue;
      frame_meta(arena, i)->flags &= (uint8_t)~FRAME_SEND_FLAGS;
      if (x->ledger[i] & LEDGER_LENT)
        frame_unref(arena, i);
      for (uint32_t sends = x->ledger[i] & LEDGER_SENDS_MAX; sends > 0; sends--)
        frame_unref(arena, i);
    }
    free(x->ledger);
  }
  free(x);
}

static void afxdp_close(struct hy_device *dev) {
  struct afxdp *x = afxdp_of(dev);
  /* What was queued last is often a reset or a FIN: it should leave before the ring does. */
  for (int i = 0; i < CLOSE_KICKS_MAX && ring_unconsumed(&x->xsk.rings[XSK_TX]); i++) {
    tx_kick(x);
    tx_reap(x);
    if (x->kick_error != 0)
      break;
  }
  afxdp_free(x);
}

/*
 * When the interface goes away the kernel unbinds the socket and leaves ENETDOWN in it. A link that is only
 * down, or whose driver is being reset, leaves the socket bound: it goes on when the link is up again.
 */
static int afxdp_health(struct hy_device *dev) {
  struct afxdp *x = afxdp_of(dev);
  if (x->lost == 0) {
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(x->xsk.fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0)
      x->lost = -error; /* reading it clears it */
  }
  return x->lost;
}

static const struct hy_device_ops afxdp_ops = {
    .name = "afxdp",
    .rx_burst = afxdp_rx_burst,
    .tx_burst = afxdp_tx_burst,
    .wait_arm = afxdp_wait_arm,
    .wait_fd = afxdp_wait_fd,
    .stats = afxdp_stats,
    .health = afxdp_health,
    .close = afxdp_close,
};

static bool wants_valid(const hy_afxdp_config *config) {
  return config->multi_buffer <= HY_REQUEST_MUST && config->shared_umem <= HY_REQUEST_MUST &&
         config->tx_checksum <= HY_REQUEST_ASK;
}

static bool config_valid(const hy_afxdp_config *config, const struct arena *arena) {
  uint32_t size = config->ring_size;
  return config->struct_size == sizeof *config && wants_valid(config) && config->ifindex != 0 &&
         config->copy <= HY_XDP_COPY && arena->frame_size > AFXDP_RX_HEADROOM &&
         (size == 0 || (size >= AFXDP_RING_SIZE_MIN && size <= AFXDP_RING_SIZE_MAX && !(size & (size - 1))));
}

static uint32_t least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

/* What packets may be, by what the socket came to. */
static void caps_set(struct afxdp *x, hy_afxdp_obtained *got) {
  struct hy_device *dev = &x->dev;
  uint32_t room = dev->arena->frame_size - AFXDP_RX_HEADROOM;
  dev->caps = (uint8_t)((got->multi_buffer ? DEVICE_MULTI : 0) | (got->tx_checksum ? DEVICE_TX_CSUM : 0));
  dev->packet_frames_max = got->multi_buffer ? PACKET_FRAMES_MAX : 1;
  dev->frame_bytes_max = got->multi_buffer ? PACKET_FRAMES_MAX / 2 * room : room;
  dev->tx_room = x->xsk.metadata ? sizeof(struct tx_metadata) : 0;
  got->packet_bytes_max = dev->frame_bytes_max;
}

bool afxdp_is(const struct hy_device *dev) {
  return dev->ops == &afxdp_ops;
}

int afxdp_open(struct arena *arena, const hy_afxdp_config *config, const struct hy_device *beside,
               hy_afxdp_obtained *obtained, struct hy_device **out) {
  int status = -EINVAL;
  if (!config_valid(config, arena))
    goto fail_fd;
  uint32_t ring_size = config->ring_size ? config->ring_size : AFXDP_RING_SIZE;
  status = -ENOMEM;
  struct afxdp *x = calloc(1, sizeof *x);
  if (x == NULL)
    goto fail_fd;
  x->dev = (struct hy_device){
      .ops = &afxdp_ops,
      .arena = arena,
      .ifindex = config->ifindex,
      .queue = config->queue,
  };
  x->queue = config->queue;
  x->partial = FRAME_NONE;
  x->map_fd = -1;
  x->xsk.fd = config->xsk_fd;
  x->fill_target = least(ring_size, arena->frames / FILL_SHARE);
  x->fill_floor = least(FILL_FLOOR, x->fill_target);

  x->ledger = calloc(arena->frames, sizeof *x->ledger);
  if (x->ledger == NULL)
    goto fail;
  hy_afxdp_obtained got;
  struct xsk_beside registered = {.fd = -1};
  if (beside != NULL)
    registered = (struct xsk_beside){.fd = ((const struct afxdp *)beside)->xsk.fd,
                                     .multi_buffer = (beside->caps & DEVICE_MULTI) != 0,
                                     .metadata = ((const struct afxdp *)beside)->xsk.metadata};
  status = xsk_open(&x->xsk, arena, config, &registered, ring_size, &got);
  if (status < 0)
    goto fail;
  caps_set(x, &got);
  fill_stock(x);
  x->busy_poll = got.busy_poll;
  if (config->map_fd >= 0) {
    x->map_fd = fcntl(config->map_fd, F_DUPFD_CLOEXEC, 0);
    if (x->map_fd < 0) {
      status = -errno;
      goto fail;
    }
    status = bpf_map_update_elem(x->map_fd, &x->queue, &x->xsk.fd, BPF_ANY);
    if (status < 0)
      goto fail;
    x->in_map = true;
  }
  if (obtained != NULL)
    *obtained = got;
  *out = &x->dev;
  return 0;

fail:
  afxdp_free(x);
  return status;

fail_fd:
  if (config->xsk_fd >= 0)
    close(config->xsk_fd);
  return status;
}
