/* SPDX-License-Identifier: Apache-2.0 */
/* A shard's life, its polling loop and its statistics. */
#include "core/shard.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static_assert(STATS_COUNT <= HY_STATS_MAX, "the statistics page holds every counter");

/* What needs system calls and is not urgent: devices' health, their counters. */
#define CHORES_EVERY_NS (20 * NS_PER_MS)
#define STATS_EVERY_NS (100 * NS_PER_MS)

#define FRAME_PREFIX_MAX 256

/* ---- configuration --------------------------------------------------------- */

void hy_config_default(hy_config *config) {
  *config = (hy_config){
      .struct_size = sizeof(hy_config),
      .frames = 16384,
      .frame_size = 2048,
      .sockets = 65536,
      .connections = 16384,
      .tokens = 65536,
      .rcvbuf_bytes = 1 << 20,
      .sndbuf_bytes = 1 << 20,
      .clock = HY_CLOCK_MONOTONIC,
      .hugepages = HY_HUGEPAGES_TRY,
      .port_lo = 32768,
      .port_hi = 60999,
      .spin_ns = 50 * NS_PER_US,
  };
}

static int config_resolve(const hy_config *given, hy_config *out) {
  hy_config d;
  hy_config_default(&d);
  if (!given)
    given = &d;
  if (given->struct_size != sizeof(hy_config))
    return -EINVAL;
  *out = *given;
#define OR_DEFAULT(field)                                                                                    \
  if (out->field == 0)                                                                                       \
  out->field = d.field
  OR_DEFAULT(frames);
  OR_DEFAULT(frame_size);
  OR_DEFAULT(sockets);
  OR_DEFAULT(connections);
  OR_DEFAULT(tokens);
  OR_DEFAULT(rcvbuf_bytes);
  OR_DEFAULT(sndbuf_bytes);
  OR_DEFAULT(port_lo);
  OR_DEFAULT(port_hi);
  OR_DEFAULT(spin_ns);
#undef OR_DEFAULT
  if (out->app_frames_max == 0)
    out->app_frames_max = out->frames / 2;
  bool ok = out->frames >= 64 && out->frames <= 1u << 22 &&
            (out->frame_size == 2048 || out->frame_size == 4096) && out->sockets <= QUEUE_MAX &&
            out->connections <= 1u << 22 && out->tokens <= 1u << 22 && out->rcvbuf_bytes >= 4096 &&
            out->rcvbuf_bytes <= 1u << 30 && out->sndbuf_bytes >= 4096 && out->sndbuf_bytes <= 1u << 30 &&
            out->app_frames_max <= out->frames && out->clock <= HY_CLOCK_VIRTUAL &&
            out->hugepages <= HY_HUGEPAGES_MUST && out->port_lo <= out->port_hi &&
            out->frame_prefix_bytes <= FRAME_PREFIX_MAX && out->frame_prefix_bytes % 64 == 0;
  return ok ? 0 : -EINVAL;
}

/* ---- life ------------------------------------------------------------------- */

static uint64_t monotonic_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t shard_clock(const struct hy_shard *shard) {
  return shard->config.clock == HY_CLOCK_VIRTUAL ? shard->virtual_now : monotonic_ns();
}

void shard_notice(struct hy_shard *shard, const hy_notice *notice) {
  if (shard->notice_fd >= 0) /* not waited for: a missed one is repeated by whoever needs it */
    (void)!send(shard->notice_fd, notice, sizeof *notice, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void stack_notice(void *ctx, const hy_notice *notice) {
  shard_notice(ctx, notice);
}

int hy_shard_open(const hy_config *config, hy_shard **out) {
  *out = NULL;
  struct hy_shard *shard = aligned_alloc(64, (sizeof *shard + 63) / 64 * 64);
  if (!shard)
    return -ENOMEM;
  memset(shard, 0, sizeof *shard);
  shard->notice_fd = shard->control_fd = -1;
  shard->stats = &shard->own_stats;
  int rc = config_resolve(config, &shard->config);
  if (rc < 0)
    goto err_free;
  uint8_t seed[32];
  if (shard->config.seeded)
    memcpy(seed, shard->config.seed, sizeof seed);
  else if (getrandom(seed, sizeof seed, 0) != sizeof seed) {
    rc = -EIO;
    goto err_free;
  }
  rc = arena_init(&shard->arena, shard->config.frames, shard->config.frame_size,
                  shard->config.frame_prefix_bytes, shard->config.hugepages);
  if (rc < 0)
    goto err_free;
  rc = tokens_init(&shard->tokens, shard->config.tokens);
  if (rc < 0)
    goto err_arena;
  rc = queues_init(&shard->queues, shard->config.sockets);
  if (rc < 0)
    goto err_tokens;
  shard->idle_since = shard_clock(shard);
  struct stack_config stack = {
      .arena = &shard->arena,
      .tokens = &shard->tokens,
      .queues = &shard->queues,
      .stats = shard->stats,
      .app_frames = &shard->app_frames,
      .limits = &shard->config,
      .seed = seed,
      .now = shard->idle_since,
      .notice = stack_notice,
      .notice_ctx = shard,
  };
  rc = stack_init(&shard->stack, &stack);
  if (rc < 0)
    goto err_queues;
  shard->transports[HY_BACKEND_BYPASS] = &shard->stack.transport;
  *out = shard;
  return 0;

err_queues:
  queues_fini(&shard->queues);
err_tokens:
  tokens_fini(&shard->tokens);
err_arena:
  arena_fini(&shard->arena);
err_free:
  free(shard);
  return rc;
}

static void flush_tx(struct hy_shard *shard);
static void let_go(struct hy_shard *shard, uint32_t index);

void hy_shard_close(hy_shard *shard) {
  if (!shard)
    return;
  /* Peers are told: every queue is closed by reset, and the resets are given to the devices. */
  for (uint32_t i = 0; i < shard->queues.count; i++) {
    struct queue *q = &shard->queues.slots[i];
    if (q->kind == QUEUE_FREE)
      continue;
    shard_close_queue(shard, q, true);
    if (i % 64 == 63)
      flush_tx(shard);
  }
  flush_tx(shard);
  shard_collect_device_stats(shard);
  for (uint32_t i = 0; i < PLACE_BACKENDS; i++)
    if (shard->transports[i] && shard->transports[i]->ops->fini)
      shard->transports[i]->ops->fini(shard->transports[i]);
  for (uint32_t i = 0; i < shard->ndevices; i++)
    if (shard->devices[i]) {
      shard->devices[i]->ops->close(shard->devices[i]);
      let_go(shard, i);
    }
  stack_fini(&shard->stack);
  if (shard->host)
    hy_host_close((hy_host *)shard->host);
  if (shard->stats_page)
    munmap(shard->stats_page, sizeof *shard->stats_page);
  if (shard->control_fd >= 0)
    close(shard->control_fd);
  queues_fini(&shard->queues);
  tokens_fini(&shard->tokens);
  arena_fini(&shard->arena);
  free(shard);
}

/* ---- joining parts ------------------------------------------------------------ */

struct arena *shard_arena(hy_shard *shard) {
  return &shard->arena;
}

int shard_add_device(hy_shard *shard, struct hy_device *dev) {
  uint32_t index = 0;
  while (index < shard->ndevices && shard->devices[index])
    index++;
  if (index == SHARD_DEVICES)
    return -ENOSPC;
  int link = stack_add_link(&shard->stack, dev);
  if (link < 0)
    return link;
  dev->index = (uint8_t)index;
  dev->link = (uint8_t)link;
  shard->devices[index] = dev;
  shard->held[index] = -1;
  shard->last_device = index;
  if (index == shard->ndevices)
    shard->ndevices++;
  shard->live_devices++;
  shard->stats->devices_added++;
  return 0;
}

static void stats_add(struct hy_device_stats *to, const struct hy_device_stats *from) {
  to->rx_frames += from->rx_frames;
  to->rx_bytes += from->rx_bytes;
  to->tx_frames += from->tx_frames;
  to->tx_bytes += from->tx_bytes;
  to->rx_dropped += from->rx_dropped;
  to->rx_no_frames += from->rx_no_frames;
  to->tx_full += from->tx_full;
  to->tx_invalid += from->tx_invalid;
  to->kicks += from->kicks;
  to->tx_errors += from->tx_errors;
  to->copied += from->copied;
  to->passed += from->passed;
}

void shard_hold(struct hy_shard *shard, uint32_t queue, int fd) {
  assert(shard->devices[shard->last_device] && shard->held[shard->last_device] < 0);
  shard->devices[shard->last_device]->queue = queue;
  shard->held[shard->last_device] = fd;
}

static void let_go(struct hy_shard *shard, uint32_t index) {
  if (shard->held[index] >= 0)
    close(shard->held[index]);
}

void shard_remove_device(hy_shard *shard, struct hy_device *dev, int status) {
  assert(shard->devices[dev->index] == dev);
  stack_remove_link(&shard->stack, dev->link, status);
  struct hy_device_stats last = {0};
  dev->ops->stats(dev, &last);
  stats_add(&shard->gone, &last);
  shard->devices[dev->index] = NULL;
  shard->live_devices--;
  let_go(shard, dev->index);
  dev->ops->close(dev);
}

int hy_shard_remove_device(hy_shard *shard, uint32_t ifindex, uint32_t queue) {
  for (uint32_t i = 0; i < shard->ndevices; i++) {
    struct hy_device *dev = shard->devices[i];
    if (dev && dev->ifindex == ifindex && dev->queue == queue) {
      shard_remove_device(shard, dev, -ENETDOWN);
      return 0;
    }
  }
  return -ENODEV;
}

void shard_follow_host(struct hy_shard *shard, hy_host *host) {
  if (shard->host)
    hy_host_close((hy_host *)shard->host);
  shard->host = host;
  host_view_forget(&shard->stack.host);
  if (host_view_refresh(&shard->stack.host, host))
    stack_host_changed(&shard->stack);
}

int hy_shard_set_host(hy_shard *shard, const hy_host *host) {
  int fd = hy_host_fd(host);
  hy_host *reader;
  int rc = hy_host_open(fd, &reader);
  if (rc < 0)
    return rc;
  shard_follow_host(shard, reader);
  return 0;
}

int hy_shard_set_notice_fd(hy_shard *shard, int fd) {
  shard->notice_fd = fd;
  return 0;
}

void shard_set_ports(struct hy_shard *shard, uint16_t lo, uint16_t hi) {
  shard->stack.port_lo = shard->config.port_lo = lo;
  shard->stack.port_hi = shard->config.port_hi = hi;
}

int shard_set_stats_page(struct hy_shard *shard, hy_stats_page *page) {
  assert(!shard->stats_page);
  struct stats *values = (struct stats *)page->values;
  *values = *shard->stats;
  page->count = STATS_COUNT;
  page->pid = (uint32_t)getpid();
  shard->stats = shard->stack.stats = values;
  shard->stats_page = page;
  page->magic = HY_CONTROL_MAGIC; /* last: whoever sees it sees the rest */
  return 0;
}

/* ---- the loop ------------------------------------------------------------------ */

static void flush_link(struct stack *st, struct link *l) {
  while (l->tx_head != l->tx_tail) {
    uint32_t at = l->tx_head & (LINK_TX_FRAMES - 1);
    uint32_t run = l->tx_tail - l->tx_head;
    if (run > LINK_TX_FRAMES - at)
      run = LINK_TX_FRAMES - at;
    if (run > DEVICE_BURST)
      run = DEVICE_BURST;
    unsigned taken = l->dev->ops->tx_burst(l->dev, &l->tx[at], run);
    l->tx_head += taken;
    st->tx_waiting -= taken;
    if (taken < run) /* full: the rest is offered again in the next pass */
      return;
  }
}

static void flush_tx(struct hy_shard *shard) {
  for (uint32_t i = 0; i < shard->stack.nlinks; i++)
    flush_link(&shard->stack, &shard->stack.links[i]);
}

/* Most passes have nothing to send in one of the two places that ask. */
static inline void output(struct hy_shard *shard) {
  struct stack *st = &shard->stack;
  if (stack_wants_output(st))
    stack_output(st);
  if (st->tx_waiting > 0)
    flush_tx(shard);
}

static void check_health(struct hy_shard *shard) {
  for (uint32_t i = 0; i < shard->ndevices; i++) {
    struct hy_device *dev = shard->devices[i];
    int status = dev && dev->ops->health ? dev->ops->health(dev) : 0;
    if (status == 0)
      continue;
    hy_notice notice = {.kind = HY_NOTICE_DEVICE_LOST, .ifindex = dev->ifindex, .arg = dev->queue};
    shard_remove_device(shard, dev, status);
    shard->stats->devices_lost++;
    shard_notice(shard, &notice);
  }
}

/* What is not looked at in every pass. */
static __attribute__((noinline)) void shard_chores(struct hy_shard *shard) {
  uint64_t now = shard->stack.now;
  shard->chores_at = now + CHORES_EVERY_NS;
  check_health(shard);
  if (shard->serving)
    served_chores(shard);
  if (shard->stats_page && now - shard->stats_at >= STATS_EVERY_NS)
    shard_collect_device_stats(shard);
}

unsigned shard_poll(struct hy_shard *shard) {
  struct stack *st = &shard->stack;
  uint64_t now = shard_clock(shard);
  shard->stats->polls++;
  st->now = now > st->now ? now : st->now;
  if (shard->host && host_view_refresh(&st->host, shard->host))
    stack_host_changed(st);
  output(shard);
  unsigned received = 0;
  for (uint32_t i = 0; i < shard->ndevices; i++) {
    uint32_t frames[DEVICE_BURST];
    struct hy_device *dev = shard->devices[i];
    if (__builtin_expect(dev == NULL, 0))
      continue;
    unsigned n = dev->ops->rx_burst(dev, frames, DEVICE_BURST);
    if (n > 0)
      stack_input(st, dev->link, frames, n);
    received += n;
  }
  for (uint32_t i = 0; i < shard->ndriven; i++)
    received += shard->driven[i]->ops->progress(shard->driven[i], st->now);
  stack_tick(st, st->now);
  if (shard->tokens.ready_head == TOKEN_NONE)
    output(shard);
  if (received > 0)
    shard->idle_since = st->now;
  if (st->now >= shard->chores_at)
    shard_chores(shard);
  return received;
}

/* Adds what to wait on; false: there is something to do already. */
static bool arm_devices(struct hy_shard *shard, struct pollfd *fds, nfds_t *nfds) {
  for (uint32_t i = 0; i < shard->ndevices; i++) {
    struct hy_device *dev = shard->devices[i];
    if (!dev)
      continue;
    int fd = dev->ops->wait_fd(dev);
    if (fd < 0 || dev->ops->wait_arm(dev)) /* can only be polled, or has something already */
      return false;
    fds[(*nfds)++] = (struct pollfd){.fd = fd, .events = POLLIN};
    const struct link *l = &shard->stack.links[dev->link];
    if (l->tx_head != l->tx_tail) /* frames wait for room in the ring */
      return false;
  }
  return true;
}

static bool arm_transports(struct hy_shard *shard, struct pollfd *fds, nfds_t *nfds) {
  for (uint32_t i = 0; i < shard->ndriven; i++) {
    struct transport *t = shard->driven[i];
    int fd = t->ops->wait_fd(t);
    if (fd < 0 || t->ops->wait_arm(t))
      return false;
    fds[(*nfds)++] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
  return true;
}

uint64_t shard_next_deadline(struct hy_shard *shard) {
  uint64_t first = stack_next_deadline(&shard->stack);
  for (uint32_t i = 0; i < shard->ndriven; i++) {
    uint64_t at = shard->driven[i]->ops->deadline(shard->driven[i]);
    first = at < first ? at : first;
  }
  return first;
}

/* The one transport that can be waited for by itself; NULL: there is more than one thing to wait for. */
static struct transport *only_transport(const struct hy_shard *shard) {
  bool only = shard->ndriven == 1 && shard->live_devices == 0 && !shard->serving;
  return only && shard->driven[0]->ops->sleep ? shard->driven[0] : NULL;
}

int shard_sleep(struct hy_shard *shard, uint64_t until) {
  struct pollfd fds[SHARD_DEVICES + PLACE_BACKENDS + 1];
  nfds_t nfds = 0;
  struct transport *only = only_transport(shard);
  if (!only && (!arm_devices(shard, fds, &nfds) || !arm_transports(shard, fds, &nfds)))
    return 0;
  if (stack_wants_output(&shard->stack)) /* what couldn't be sent for want of a frame is tried again */
    return 0;
  uint64_t deadline = shard_next_deadline(shard);
  if (until < deadline)
    deadline = until;
  uint64_t now = shard_clock(shard);
  if (deadline <= now)
    return 0;
  /* The host table has no descriptor to wait on: look at it now and then while something waits for it. */
  uint64_t most = shard->stack.neigh.nwaiting > 0 ? NS_PER_MS : 100 * NS_PER_MS;
  uint64_t ns = deadline - now < most ? deadline - now : most;
  struct timespec ts = {.tv_sec = 0, .tv_nsec = (long)ns};
  shard->stats->sleeps++;
  if (only)
    return only->ops->sleep(only, ns);
  shard_collect_device_stats(shard);
  nfds_t control = nfds;
  if (shard->serving)
    fds[nfds++] = (struct pollfd){.fd = shard->control_fd, .events = POLLIN};
  int ready = ppoll(fds, nfds, &ts, NULL);
  if (ready < 0)
    return -errno;
  for (nfds_t i = 0; ready > 0 && i < nfds; i++)
    if (fds[i].revents & (POLLERR | POLLHUP | POLLNVAL) || /* it wakes us for nothing else from now on */
        (i == control && fds[i].revents))
      shard->chores_at = 0;
  return 0;
}

/* ---- statistics ------------------------------------------------------------------ */

void shard_collect_device_stats(struct hy_shard *shard) {
  struct stats *s = shard->stats;
  struct hy_device_stats sum = shard->gone;
  for (uint32_t i = 0; i < shard->ndevices; i++) {
    struct hy_device_stats one = {0};
    if (!shard->devices[i])
      continue;
    shard->devices[i]->ops->stats(shard->devices[i], &one);
    stats_add(&sum, &one);
  }
  s->device_rx_frames = sum.rx_frames;
  s->device_rx_bytes = sum.rx_bytes;
  s->device_tx_frames = sum.tx_frames;
  s->device_tx_bytes = sum.tx_bytes;
  s->device_rx_dropped = sum.rx_dropped;
  s->device_rx_no_frames = sum.rx_no_frames;
  s->device_tx_full = sum.tx_full;
  s->device_tx_invalid = sum.tx_invalid;
  s->device_kicks = sum.kicks;
  s->device_tx_errors = sum.tx_errors;
  s->device_copied = sum.copied;
  s->device_passed = sum.passed;
  shard->stats_at = shard->stack.now;
}

struct stat_name {
  const char *name, *help;
};

static const struct stat_name stat_names[] = {
#define STATS_NAME(name, help) {#name, help},
    STATS(STATS_NAME)
#undef STATS_NAME
};

unsigned hy_stat_count(void) {
  return STATS_COUNT;
}
const char *hy_stat_name(unsigned index) {
  return index < STATS_COUNT ? stat_names[index].name : NULL;
}
const char *hy_stat_help(unsigned index) {
  return index < STATS_COUNT ? stat_names[index].help : NULL;
}

uint64_t hy_stat(const hy_shard *shard, unsigned index) {
  if (index >= STATS_COUNT)
    return 0;
  if (index == 0) /* reading them from the first on sees one moment */
    shard_collect_device_stats((hy_shard *)(uintptr_t)shard);
  return ((const uint64_t *)shard->stats)[index];
}

struct hy_device *shard_device(const hy_shard *shard, uint32_t index) {
  return index < shard->ndevices ? shard->devices[index] : NULL;
}
