/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our side of the stack benchmark: a shard with the public API on top and, below,
 * a device of this file's own that hands prepared frames over in place:
 *
 *     load:  frame_alloc, copy in          (before the clock starts)
 *     run:   rx_burst gives the indices -> stack -> hy_wait_any -> application
 *            stack -> tx_burst counts the frame and drops it
 *
 * The shard's clock is virtual and moved once per burst, so no subject reads a
 * clock inside the measured time (lwIP's input path doesn't either).
 */
#include "bench/bench.h"
#include "bench/stack.h"
#include "core/arena.h"
#include "core/device.h"
#include "core/hybrid.h"

#include <string.h>

enum { IFINDEX = 1, TICK_NS = 200 };

static struct {
  struct hy_device dev; /* first: the device is found again from it */
  uint32_t slots[STACK_BATCH];
  unsigned given;   /* slots that have been taken by rx_burst */
  unsigned allowed; /* slots that may be: the end of the current burst */
  struct peer *peer;
  hy_shard *shard;
  uint64_t now_ns;
  uint64_t app_bytes;
  bool echo;
  hy_qd listener;
} us;

static unsigned device_rx(struct hy_device *dev, uint32_t *frames, unsigned max) {
  unsigned n = us.allowed - us.given;
  if (n > max)
    n = max;
  for (unsigned i = 0; i < n; i++)
    frames[i] = us.slots[us.given + i];
  us.given += n;
  return n;
}

static unsigned device_tx(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  for (unsigned i = 0; i < n; i++) {
    peer_take(us.peer, frame_data(dev->arena, frames[i]), frame_meta(dev->arena, frames[i])->len);
    frame_unref(dev->arena, frames[i]);
  }
  return n;
}

static int device_wait_arm(struct hy_device *dev) {
  return us.given < us.allowed;
}

static int device_wait_fd(struct hy_device *dev) {
  return -1;
}

static void device_stats(struct hy_device *dev, struct hy_device_stats *out) {
  *out = (struct hy_device_stats){.rx_frames = us.given};
}

static void device_close(struct hy_device *dev) {}

static const struct hy_device_ops device_ops = {
    .name = "bench",
    .rx_burst = device_rx,
    .tx_burst = device_tx,
    .wait_arm = device_wait_arm,
    .wait_fd = device_wait_fd,
    .stats = device_stats,
    .close = device_close,
};

static void must(int status, const char *what) {
  if (status < 0)
    bench_fail("hybrid: %s: %s", what, hy_strerror(status));
}

static hy_addr address(const uint8_t ip[4], uint16_t port) {
  hy_addr addr = {.port = port, .family = 4};
  addr.ip[10] = addr.ip[11] = 0xff;
  memcpy(addr.ip + 12, ip, 4);
  return addr;
}

/* The subject's whole host: one link, one address, one neighbour. */
static void describe_host(void) {
  hy_host *host;
  must(hy_host_create(&host), "host table");
  hy_host_link link = {.ifindex = IFINDEX, .mtu_bytes = 1500};
  memcpy(link.mac, subject_mac, 6);
  hy_host_addr local = {.addr = address(subject_ip, 0), .ifindex = IFINDEX, .prefix_len = 24};
  hy_host_route route = {.dst = address(subject_ip, 0), .prefix_len = 24, .ifindex = IFINDEX};
  route.dst.ip[15] = 0;
  hy_host_neigh neigh = {.addr = address(peer_ip, 0), .ifindex = IFINDEX};
  memcpy(neigh.mac, peer_mac, 6);
  must(hy_host_update(host, &link, 1, &local, 1, &route, 1, &neigh, 1), "host table");
  must(hy_shard_set_host(us.shard, host), "host table");
}

static void subject_open(struct peer *peer, bool echo) {
  us.peer = peer;
  us.echo = echo;
  hy_config config;
  hy_config_default(&config);
  config.frames = 4096;
  config.connections = 1024;
  config.sockets = 1024;
  config.tokens = 4096;
  config.clock = HY_CLOCK_VIRTUAL;
  must(hy_shard_open(&config, &us.shard), "shard");
  us.now_ns = bench_now_ns();
  must(hy_clock_set(us.shard, us.now_ns), "clock");
  us.dev = (struct hy_device){.ops = &device_ops,
                              .arena = shard_arena(us.shard),
                              .ifindex = IFINDEX,
                              .frame_bytes_max = arena_frame_room(shard_arena(us.shard))};
  must(shard_add_device(us.shard, &us.dev), "device");
  describe_host();

  hy_addr local = address(subject_ip, PEER_SERVICE);
  must(hy_socket(us.shard, HY_STREAM, &us.listener), "socket");
  must(hy_bind(us.shard, us.listener, &local), "bind");
  must(hy_listen(us.shard, us.listener, PEER_CONNS_MAX), "listen");
  hy_qt qt;
  must(hy_accept(us.shard, us.listener, &qt), "accept");
}

/* Nothing of ours runs by itself; what has to catch up is the clock, with the time that crafting took. */
static void subject_lock(void) {
  uint64_t now = bench_now_ns();
  if (now > us.now_ns)
    us.now_ns = now;
}

static void subject_unlock(void) {}

static void subject_load(unsigned slot, const uint8_t *frame, size_t len) {
  uint32_t index = frame_alloc(us.dev.arena);
  if (index == FRAME_NONE)
    bench_fail("hybrid has no frames left");
  struct frame *meta = frame_meta(us.dev.arena, index);
  meta->len = (uint16_t)len;
  meta->device = us.dev.index;
  memcpy(frame_data(us.dev.arena, index), frame, len);
  us.slots[slot] = index;
  us.given = us.allowed = 0;
}

/* The application: what an echo server does with an event, or a reader that frees what it gets. */
static void application(hy_event *event) {
  hy_qt qt;
  if (event->status < 0)
    bench_fail("hybrid: an operation failed: %s", hy_strerror(event->status));
  if (event->op == HY_OP_ACCEPT) {
    must(hy_pop(us.shard, event->accepted, &qt), "pop");
    must(hy_accept(us.shard, us.listener, &qt), "accept");
    return;
  }
  us.app_bytes += hy_sga_bytes(&event->sga);
  if (us.echo)
    must(hy_push(us.shard, event->qd, &event->sga, NULL), "push"); /* takes the references over */
  else
    hy_sga_free(us.shard, &event->sga);
  must(hy_pop(us.shard, event->qd, &qt), "pop");
}

static void turn(void) {
  hy_event events[STACK_BATCH];
  us.now_ns += TICK_NS;
  hy_clock_set(us.shard, us.now_ns);
  int n = hy_wait_any(us.shard, events, STACK_BATCH, 0);
  must(n, "wait");
  for (int i = 0; i < n; i++)
    application(&events[i]);
}

static void subject_run(unsigned n, unsigned burst) {
  us.given = us.allowed = 0;
  while (us.allowed < n) {
    us.allowed += burst;
    turn();
  }
  if (us.echo)
    hy_poll(us.shard); /* the last burst's replies leave */
}

static void subject_settle(unsigned n) {
  us.given = 0;
  us.allowed = n;
  for (int i = 0; i < 4; i++)
    turn();
}

static void subject_empty(unsigned n, unsigned burst) {
  const struct hy_device_ops *volatile ops = &device_ops;
  uint32_t frames[DEVICE_BURST];
  us.given = us.allowed = 0;
  while (us.allowed < n) {
    us.allowed += burst;
    ops->rx_burst(&us.dev, frames, DEVICE_BURST);
    __asm__ volatile("" : : "r"(frames) : "memory");
  }
}

static uint64_t subject_app_bytes(void) {
  return us.app_bytes;
}

const struct stack_subject stack_subject = {
    .name = "hybrid",
    .open = subject_open,
    .lock = subject_lock,
    .unlock = subject_unlock,
    .load = subject_load,
    .settle = subject_settle,
    .empty = subject_empty,
    .run = subject_run,
    .app_bytes = subject_app_bytes,
};
