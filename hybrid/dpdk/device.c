/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving frames between an arena and one queue of a DPDK port, in place in both directions (pool.h).
 *
 * Copies, each counted: a frame that was received into somebody else's pool (the other end of a ring) moves
 * into this arena; a frame that a device is still sending, and that is to be sent again, leaves as a copy,
 * because its mbuf is in the driver's hands.
 */
#include "dpdk/device.h"

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RETURN_TRIES = 1000, TOLD_MAX = 255 };

static struct dpdk *dpdk_of(struct hy_device *dev) {
  return (struct dpdk *)dev;
}

/* ---- guarded calls: functions of their own, so that a jump finds no live variable --------------- */

__attribute__((noinline)) unsigned dpdk_receive(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
                                                unsigned max) {
  struct eal_guard guard;
  if (EAL_GUARD(&guard))
    return 0;
  unsigned n = rte_eth_rx_burst(port, queue, mbufs, (uint16_t)max);
  eal_unguard();
  return n;
}

__attribute__((noinline)) unsigned dpdk_send(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
                                             unsigned n) {
  struct eal_guard guard;
  if (EAL_GUARD(&guard))
    return 0;
  unsigned sent = rte_eth_tx_burst(port, queue, mbufs, (uint16_t)n);
  eal_unguard();
  return sent;
}

__attribute__((noinline)) void dpdk_free(struct rte_mbuf **mbufs, unsigned n) {
  struct eal_guard guard;
  if (EAL_GUARD(&guard))
    return;
  for (unsigned i = 0; i < n; i++)
    rte_pktmbuf_free(mbufs[i]);
  eal_unguard();
}

/* ---- receiving ------------------------------------------------------------------------------------ */

/* From somebody else's pool into ours. */
static uint32_t take_copy(struct dpdk *x, struct rte_mbuf *m) {
  struct arena *arena = x->dev.arena;
  uint32_t index = m->nb_segs == 1 && m->data_len <= x->dev.frame_bytes_max ? frame_alloc(arena) : FRAME_NONE;
  if (index != FRAME_NONE) {
    memcpy(frame_data(arena, index), rte_pktmbuf_mtod(m, void *), m->data_len);
    frame_meta(arena, index)->len = m->data_len;
    x->counts.copied++;
  } else {
    x->counts.rx_dropped++;
  }
  dpdk_free(&m, 1);
  return index;
}

static uint32_t take_in_place(struct dpdk *x, struct rte_mbuf *m) {
  if (__builtin_expect(m->nb_segs != 1, 0)) { /* longer than a frame holds */
    x->counts.rx_dropped++;
    dpdk_free(&m, 1);
    return FRAME_NONE;
  }
  uint32_t index = pool_index(x->pool, m);
  struct frame *f = frame_meta(x->dev.arena, index);
  assert(f->refs == 1 && x->pool->ledger[index] == x->port->slot + 1);
  x->pool->ledger[index] = 0;
  f->off = (uint16_t)(HY_DPDK_PREFIX + m->data_off);
  f->len = m->data_len;
  return index;
}

static unsigned take(struct dpdk *x, struct rte_mbuf **mbufs, unsigned n, uint32_t *frames) {
  unsigned taken = 0;
  uint64_t bytes = 0;
  for (unsigned i = 0; i < n; i++) {
    struct rte_mbuf *m = mbufs[i];
    uint64_t flags = m->ol_flags;
    __builtin_prefetch(rte_pktmbuf_mtod(m, void *));
    uint32_t index = __builtin_expect(m->pool == x->pool->mempool, 1) ? take_in_place(x, m) : take_copy(x, m);
    if (index == FRAME_NONE)
      continue;
    struct frame *f = frame_meta(x->dev.arena, index);
    f->device = x->dev.index;
    if ((flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
      f->flags |= FRAME_CSUM_GOOD;
    bytes += f->len;
    frames[taken++] = index;
  }
  x->counts.rx_frames += taken;
  x->counts.rx_bytes += bytes;
  return taken;
}

__attribute__((noinline)) static int interrupt_set(struct dpdk *x, bool on) {
  struct eal_guard guard;
  if (EAL_GUARD(&guard))
    return -EIO;
  int rc = on ? rte_eth_dev_rx_intr_enable(x->port->id, x->queue)
              : rte_eth_dev_rx_intr_disable(x->port->id, x->queue);
  eal_unguard();
  return rc;
}

static bool is_eventfd(int fd) {
  char link[64], target[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, target, sizeof target - 1);
  target[n > 0 ? n : 0] = '\0';
  return strstr(target, "eventfd") != NULL;
}

/*
 * A driver may hand out a descriptor and then not be able to use it. One whose descriptor is that of its
 * device (net_tap) needs nothing enabled: it is readable while something is there.
 */
static void interrupt_open(struct dpdk *x) {
  x->fd = -1;
  if (!x->port->interrupt)
    return;
  int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(x->port->id, x->queue);
  if (fd < 0)
    return;
  x->eventfd = is_eventfd(fd);
  int rc = interrupt_set(x, true);
  if (rc == 0)
    interrupt_set(x, false);
  if (rc == 0 || (rc == -ENOTSUP && !x->eventfd))
    x->fd = fd;
}

/* The port has started: what was set aside for that comes back. */
static void settle(struct dpdk *x) {
  pool_unstock(x->pool);
  interrupt_open(x);
  x->settled = true;
}

static void awake(struct dpdk *x) {
  x->armed = false;
  interrupt_set(x, false);
  eventfd_t ignored;
  if (x->eventfd && eventfd_read(x->fd, &ignored) < 0)
    assert(errno == EAGAIN); /* something else has woken us */
}

static unsigned dpdk_rx_burst(struct hy_device *dev, uint32_t *frames, unsigned max) {
  struct dpdk *x = dpdk_of(dev);
  if (!dpdk_enter(x))
    return 0;
  if (__builtin_expect(!x->settled, 0))
    settle(x);
  pool_take_back(x->pool);
  if (x->armed)
    awake(x);
  struct rte_mbuf *received[DEVICE_BURST];
  struct rte_mbuf **mbufs = received;
  unsigned n = x->npending;
  if (n > 0 && n <= max) {
    x->npending = 0;
    mbufs = x->pending;
  } else {
    n = dpdk_receive(x->port->id, x->queue, received, max);
    if (x->port->tap != PORT_NONE)
      n = exception_pass(x, received, n);
  }
  if (x->told != NULL) {
    for (unsigned i = 0; i < n; i++)
      tell_others(x, mbufs[i]);
    if (mbufs == received && n < max)
      n += told(x, received + n, max - n);
  }
  unsigned taken = n > 0 ? take(x, mbufs, n, frames) : 0;
  dpdk_leave(x);
  return taken;
}

/* ---- sending ---------------------------------------------------------------------------------------- */

/*
 * The checksum is left to the port. Whatever protocol it is, the port wants to be told the lengths of what is
 * in front of it; the field holds the pseudo-header's sum already.
 */
static void want_checksum(const struct frame *f, const uint8_t *bytes, struct rte_mbuf *m) {
  uint32_t l2 = 14;
  while (bytes[l2 - 2] == 0x81 || bytes[l2 - 2] == 0x88) /* VLAN tags */
    l2 += 4;
  bool four = bytes[l2] >> 4 == 4;
  uint8_t protocol = four ? bytes[l2 + 9] : bytes[l2 + 6];
  m->l2_len = l2 & 0x7f;
  uint32_t l4 = (uint32_t)(f->csum_start - f->off);
  m->l3_len = (l4 - l2) & 0x1ff;
  m->l4_len =
      protocol == IPPROTO_TCP ? (bytes[l4 + 12] >> 4) * 4u : 8; /* net_tap works on a copy of so much */
  m->ol_flags = (four ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) |
                (protocol == IPPROTO_TCP ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM);
}

/* The mbuf of a frame that is to be sent, or of a copy of it; NULL: no frame for the copy. */
static struct rte_mbuf *to_mbuf(struct dpdk *x, uint32_t index, uint32_t *sent_as) {
  struct arena *arena = x->dev.arena;
  struct frame *f = frame_meta(arena, index);
  assert(f->refs > 0 && f->len > 0 && f->off >= HY_DPDK_PREFIX && f->off + f->len <= arena->frame_size);
  *sent_as = index;
  if (__builtin_expect(x->pool->ledger[index] != 0, 0)) {
    uint32_t copy = frame_alloc(arena);
    if (copy == FRAME_NONE)
      return NULL;
    struct frame *c = frame_meta(arena, copy);
    c->off = f->off;
    c->len = f->len;
    c->flags = f->flags & FRAME_CSUM_PARTIAL;
    c->csum_start = f->csum_start;
    memcpy(frame_data(arena, copy), frame_data(arena, index), f->len);
    x->counts.copied++;
    *sent_as = copy;
    f = c;
  }
  f->flags |= FRAME_IN_DEVICE;
  x->pool->ledger[*sent_as] = (uint8_t)(x->port->slot + 1);
  struct rte_mbuf *m = pool_mbuf(x->pool, *sent_as);
  m->data_off = (uint16_t)(f->off - HY_DPDK_PREFIX);
  m->data_len = f->len;
  m->pkt_len = f->len;
  m->ol_flags = 0;
  if (f->flags & FRAME_CSUM_PARTIAL)
    want_checksum(f, frame_data(arena, *sent_as), m);
  return m;
}

/* What the driver did not take is the caller's again. */
static void not_sent(struct dpdk *x, uint32_t index, uint32_t sent_as, uint8_t flags) {
  x->pool->ledger[sent_as] = 0;
  frame_meta(x->dev.arena, sent_as)->flags = flags;
  if (sent_as != index)
    frame_unref(x->dev.arena, sent_as);
}

/* Nobody is at the other end: what is sent now is lost, as on a cable that is not plugged in. */
static bool unplugged(struct dpdk *x) {
  const struct wires *wires = x->port->wires;
  if (wires != NULL)
    return !atomic_load_explicit(&wires->present[1 - x->port->end], memory_order_acquire);
  struct rte_eth_link link = {0};
  return rte_eth_link_get_nowait(x->port->id, &link) == 0 && link.link_status == RTE_ETH_LINK_DOWN;
}

static unsigned dpdk_tx_burst(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  struct dpdk *x = dpdk_of(dev);
  if (n > DEVICE_BURST)
    n = DEVICE_BURST;
  if (!dpdk_enter(x))
    return 0;
  struct rte_mbuf *mbufs[DEVICE_BURST];
  uint32_t sent_as[DEVICE_BURST];
  uint16_t lengths[DEVICE_BURST]; /* a frame that has left may be somebody else's already */
  uint8_t flags[DEVICE_BURST];
  unsigned ready = 0;
  while (ready < n) {
    flags[ready] = frame_meta(dev->arena, frames[ready])->flags;
    struct rte_mbuf *m = to_mbuf(x, frames[ready], &sent_as[ready]);
    if (m == NULL)
      break;
    lengths[ready] = m->data_len;
    mbufs[ready++] = m;
  }
  unsigned sent = 0;
  if (x->port->wires == NULL || !unplugged(x))
    sent = dpdk_send(x->port->id, x->queue, mbufs, ready);
  for (unsigned i = 0; i < sent; i++) {
    x->counts.tx_bytes += lengths[i];
    if (sent_as[i] != frames[i])
      frame_unref(dev->arena, frames[i]);
  }
  x->counts.tx_frames += sent;
  for (unsigned i = sent; i < ready && !eal_broken(); i++)
    not_sent(x, frames[i], sent_as[i], flags[i]);
  if (sent < n) {
    x->counts.tx_full++;
    if (sent == 0 && !eal_broken() && unplugged(x)) {
      for (unsigned i = 0; i < n; i++)
        frame_unref(dev->arena, frames[i]);
      x->counts.tx_errors += n;
      sent = n;
    }
  }
  dpdk_leave(x);
  return sent;
}

/* ---- sleeping ----------------------------------------------------------------------------------------- */

static int dpdk_wait_fd(struct hy_device *dev) {
  return dpdk_of(dev)->fd;
}

static int dpdk_wait_arm(struct hy_device *dev) {
  struct dpdk *x = dpdk_of(dev);
  if (!dpdk_enter(x))
    return 0;
  if (!x->armed) {
    interrupt_set(x, true);
    x->armed = true;
  }
  if (x->npending == 0) {
    unsigned n = dpdk_receive(x->port->id, x->queue, x->pending, DEVICE_BURST);
    if (x->port->tap != PORT_NONE)
      n = exception_pass(x, x->pending, n);
    x->npending = (uint16_t)n;
  }
  int waiting = x->npending > 0;
  dpdk_leave(x);
  return waiting;
}

/* ---- the rest --------------------------------------------------------------------------------------------
 */

__attribute__((noinline)) static void port_counts(const struct dpdk *x, struct hy_device_stats *out) {
  struct rte_eth_stats stats = {0};
  struct eal_guard guard;
  if (EAL_GUARD(&guard))
    return;
  if (rte_eth_stats_get(x->port->id, &stats) == 0) {
    out->rx_dropped += stats.imissed + stats.ierrors;
    out->rx_no_frames += stats.rx_nombuf;
  }
  eal_unguard();
}

static void dpdk_stats(struct hy_device *dev, struct hy_device_stats *out) {
  struct dpdk *x = dpdk_of(dev);
  *out = x->counts;
  /* Drivers count what they dropped per port: it is shown once. */
  if (x->queue == 0 && dpdk_enter(x)) {
    port_counts(x, out);
    dpdk_leave(x);
  }
}

static int dpdk_health(struct hy_device *dev) {
  struct dpdk *x = dpdk_of(dev);
  if (eal_broken())
    return -EIO;
  return port_health(x->port);
}

static void device_free(struct dpdk *x) {
  if (x == NULL)
    return;
  if (x->gate != NULL)
    gate_release(x->gate);
  free(x->told);
  free(x);
}

static void dpdk_close(struct hy_device *dev) {
  struct dpdk *x = dpdk_of(dev);
  struct port *port = x->port;
  ports_lock();
  pool_enter(x->pool, port->slot);
  if (x->npending > 0)
    dpdk_free(x->pending, x->npending);
  uint8_t slot = port->slot;
  bool forgets = port->driver != NULL && port->driver->forgets, wired = port->wires != NULL;
  port_leave(port, x->queue);
  pool_unstock(x->pool);
  pool_take_back(x->pool);
  if (forgets && !eal_broken())
    pool_forget(x->pool, slot);
  /* A frame that the other end has just taken out of the ring comes back once it is copied. */
  for (unsigned i = 0; wired && i < RETURN_TRIES && pool_held(x->pool, slot) > 0; i++) {
    sched_yield();
    pool_take_back(x->pool);
  }
  pool_put(x->pool);
  device_free(x);
  ports_unlock();
}

static const struct hy_device_ops dpdk_ops = {
    .name = "dpdk",
    .rx_burst = dpdk_rx_burst,
    .tx_burst = dpdk_tx_burst,
    .wait_arm = dpdk_wait_arm,
    .wait_fd = dpdk_wait_fd,
    .stats = dpdk_stats,
    .health = dpdk_health,
    .close = dpdk_close,
};

/* ---- opening
 * ------------------------------------------------------------------------------------------------ */

static struct dpdk *device_make(struct arena *arena, const hy_dpdk_config *config, struct port *port) {
  struct dpdk *x = calloc(1, sizeof *x);
  if (x == NULL)
    return NULL;
  uint32_t front = arena->headroom + (port->driver != NULL ? port->driver->headroom : 0);
  x->dev = (struct hy_device){
      .ops = &dpdk_ops,
      .arena = arena,
      .ifindex = config->ifindex,
      .queue = config->queue,
      .frame_bytes_max = arena->frame_size - front,
      .packet_frames_max = 1,
  };
  x->port = port;
  x->queue = config->queue;
  if (config->checksum != HY_REQUEST_NO && port_sends_checksums(port))
    x->dev.caps |= DEVICE_TX_CSUM;
  x->fd = -1;
  if (port->queues > 1 || (port->driver != NULL && port->driver->gated)) {
    x->gate = gate_take();
    if (x->gate == NULL) {
      free(x);
      return NULL;
    }
  }
  if (port->queues > 1 && (x->told = ring_make(TOLD_MAX)) == NULL) {
    device_free(x);
    return NULL;
  }
  return x;
}

/* The receive queue's frames must be there, and leave enough to answer with. */
static int frames_suffice(const struct arena *arena, const struct port *port, char *detail) {
  uint32_t needs =
      port->driver != NULL && port->driver->keeps > port->rx_desc ? port->driver->keeps : port->rx_desc;
  if (arena->free_count >= needs + needs / 4 + POOL_KEEP)
    return 0;
  return dpdk_fail(detail, -ENOMEM,
                   "%s takes %u of the shard's frames to receive into, and %u are free: open the "
                   "shard with frames = %u",
                   port->info.driver_name, needs, arena->free_count, 4 * needs);
}

static int strictly(const hy_dpdk_config *config, const struct dpdk *x, char *detail) {
  const struct port *port = x->port;
  assert(port != NULL);
  const char *what = NULL;
  if (config->checksum == HY_REQUEST_MUST && (port->rx_offloads == 0 || port->tx_offloads == 0))
    what = "checksums";
  else if (config->interrupt == HY_REQUEST_MUST && x->fd < 0 && port->attached == port->queues)
    what = "receive interrupts";
  else if (config->strict && port->queues > 1 && port->rss == 0)
    what = "receive-side scaling over its queues";
  else if (config->strict && config->rx_desc != 0 && config->rx_desc != port->rx_desc)
    what = "as many descriptors as asked for";
  if (what == NULL)
    return 0;
  return dpdk_fail(detail, -EOPNOTSUPP,
                   "%s has no %s: ask for it without `strict` or `must`, or take another driver",
                   port->info.driver_name, what);
}

int dpdk_open(struct arena *arena, const hy_dpdk_config *config, hy_dpdk_obtained *obtained,
              struct hy_device **out, char *detail) {
  ports_lock();
  struct pool *pool = NULL;
  struct dpdk *x = NULL;
  struct port *port = NULL;
  int rc = eal_start(config, detail);
  if (rc == 0)
    rc = port_get(config, &port, detail);
  if (rc < 0)
    goto out;
  assert(port != NULL);
  rc = frames_suffice(arena, port, detail);
  if (rc == 0)
    rc = pool_get(arena, &pool, detail);
  if (rc == 0 && (x = device_make(arena, config, port)) == NULL)
    rc = dpdk_fail(detail, -ENOMEM, "out of memory");
  if (rc < 0)
    goto fail;
  assert(x != NULL);
  x->pool = pool;
  pool_enter(pool, port->slot);
  if (port->queues > 1) {
    uint32_t keeps = port->driver != NULL ? port->driver->keeps : 0;
    rc = pool_stock(pool, port->slot, (keeps > port->rx_desc ? keeps : port->rx_desc) + DEVICE_BURST);
    if (rc < 0)
      rc = dpdk_fail(detail, -ENOMEM, "too few frames are free in the shard: open it with more");
  }
  if (rc == 0)
    rc = port_join(port, config, config->queue, x, detail);
  if (rc < 0)
    goto fail;
  if (atomic_load(&port->state) == PORT_RUNNING)
    settle(x);
  rc = strictly(config, x, detail);
  if (rc < 0) {
    ports_unlock();
    dpdk_close(&x->dev);
    return rc;
  }
  port_obtained(port, obtained);
  obtained->interrupt = x->fd >= 0;
  *out = &x->dev;
  goto out;

fail:
  if (pool != NULL) {
    pool_unstock(pool);
    pool_take_back(pool);
    if (port->driver != NULL && port->driver->forgets && !eal_broken())
      pool_forget(pool, port->slot);
    pool_put(pool);
  }
  port_drop_unused(port);
  device_free(x);
out:
  ports_unlock();
  return rc;
}
