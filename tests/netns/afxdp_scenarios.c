/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AF_XDP device against a real kernel: one scenario per run, on the veth pair
 * va-vb whose both ends are in this program's network namespace.
 *
 *     afxdp-scenarios SCENARIO native|generic
 *
 * test_afxdp_device.py makes the namespace and runs every scenario in both modes.
 * A scenario that does not hold says which line of it, and exits 1. It waits by
 * polling, with a deadline, never by sleeping for luck.
 */
#include "scenario.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAMES = 2048, FRAME_MAX = 1514 };

static void wire_up(void) {
  wire_up_frames(FRAMES);
}

/* ---- frames: the header that redirect.h matches, then bytes that follow from the number --------- */

static uint32_t length_of(uint32_t number) {
  return 60 + number * 37 % (FRAME_MAX - 60 + 1);
}

static uint32_t frame_make(struct arena *arena, uint32_t number, uint32_t len) {
  uint32_t index = frame_alloc(arena);
  CHECK(index != FRAME_NONE);
  datagram_write(frame_data(arena, index), number, len);
  frame_meta(arena, index)->len = (uint16_t)len;
  return index;
}

static uint32_t frame_number(const struct arena *arena, uint32_t index) {
  uint32_t number;
  memcpy(&number, frame_data(arena, index) + HEADERS, sizeof number);
  return number;
}

static void frame_check(const struct arena *arena, uint32_t index, uint32_t number, uint32_t len) {
  const struct frame *f = frame_meta(arena, index);
  CHECK(f->refs == 1 && f->len == len && f->flags == 0 && f->segs == 1);
  CHECK(f->off >= FRAME_HEADROOM && f->off + f->len <= arena->frame_size);
  CHECK(frame_number(arena, index) == number);
  const uint8_t *p = frame_data(arena, index);
  CHECK(p[0] == 0xff && p[6] == 2 && p[36] == PORT >> 8);
  for (uint32_t at = HEADERS + sizeof number; at < len; at++)
    CHECK(p[at] == byte_of(number, at));
}

/* Every frame of one burst-by-burst transfer, in order. The sender polls too, as a shard would. */
static void transfer(struct hy_device *from, struct hy_device *to, uint32_t first, uint32_t count,
                     uint32_t burst) {
  uint32_t frames[DEVICE_BURST];
  uint32_t sent = 0, received = 0;
  uint64_t deadline = in_seconds(5);
  while (received < count) {
    CHECK(before(deadline));
    uint32_t n = 0;
    while (n < burst && sent + n < count) {
      frames[n] = frame_make(from->arena, first + sent + n, length_of(first + sent + n));
      n++;
    }
    uint32_t taken = n > 0 ? from->ops->tx_burst(from, frames, n) : 0;
    CHECK(taken <= n);
    for (uint32_t i = taken; i < n; i++)
      frame_unref(from->arena, frames[i]);
    sent += taken;
    CHECK(from->ops->rx_burst(from, frames, DEVICE_BURST) == 0);
    n = to->ops->rx_burst(to, frames, DEVICE_BURST);
    for (uint32_t i = 0; i < n; i++, received++) {
      CHECK(frame_meta(to->arena, frames[i])->device == to->index);
      frame_check(to->arena, frames[i], first + received, length_of(first + received));
      frame_unref(to->arena, frames[i]);
    }
  }
}

static struct hy_device_stats stats_of(struct hy_device *dev) {
  struct hy_device_stats stats;
  dev->ops->stats(dev, &stats);
  return stats;
}

/* ---- scenarios ---------------------------------------------------------------------------------- */

/*
 * Where a frame of transmit queue q arrives. In generic mode a veth leaves the
 * queue in the packet as it was written by the sender, and the kernel reads it as
 * "receive queue plus one, 0: not known".
 */
static uint32_t arrives_at(uint32_t q) {
  return generic && q > 0 ? q - 1 : q;
}

static void frames_cross_both_ways_on_every_queue(void) {
  wire_up();
  struct hy_device *a[QUEUES], *b[QUEUES];
  for (uint32_t q = 0; q < QUEUES; q++) {
    a[q] = queue_open(&ends[0], q);
    b[q] = queue_open(&ends[1], q);
    a[q]->index = b[q]->index = (uint8_t)q;
  }
  uint64_t bytes[2] = {0};
  for (uint32_t q = 0; q < QUEUES; q++) {
    transfer(a[q], b[arrives_at(q)], 1000 * q, 700, DEVICE_BURST);
    transfer(b[q], a[arrives_at(q)], 1000 * q + 7, 700, DEVICE_BURST);
  }
  uint32_t frames[DEVICE_BURST];
  for (uint32_t q = 0; q < QUEUES; q++) {
    CHECK(a[q]->ops->rx_burst(a[q], frames, DEVICE_BURST) == 0);
    CHECK(stats_of(a[q]).tx_frames == 700 && stats_of(b[q]).tx_frames == 700);
    CHECK(stats_of(a[q]).rx_dropped == 0 && stats_of(b[q]).rx_dropped == 0);
    bytes[0] += stats_of(a[q]).tx_bytes;
    bytes[1] += stats_of(b[q]).rx_bytes;
    queue_close(a[q]);
    queue_close(b[q]);
  }
  CHECK(bytes[0] == bytes[1]);
  nothing_leaked();
}

static void the_longest_frame_fits_and_a_received_one_has_room_for_headers(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  CHECK(a->frame_bytes_max >= FRAME_MAX);
  uint32_t sent = frame_make(&ends[0].arena, 5, FRAME_MAX), got;
  CHECK(a->ops->tx_burst(a, &sent, 1) == 1);
  receive(b, &got, 1);
  frame_check(&ends[1].arena, got, 5, FRAME_MAX);
  CHECK(frame_meta(&ends[1].arena, got)->off == AFXDP_RX_HEADROOM);
  frame_unref(&ends[1].arena, got);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void a_frame_is_marked_until_it_has_left(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  interface_set("va", false);
  uint32_t frame = frame_make(&ends[0].arena, 1, 100), got;
  struct frame *f = frame_meta(&ends[0].arena, frame);
  frame_ref(&ends[0].arena, frame);
  CHECK(a->ops->tx_burst(a, &frame, 1) == 1);
  CHECK((f->flags & FRAME_IN_DEVICE) && f->refs == 2);
  interface_set("va", true);
  uint64_t deadline = in_seconds(5);
  while (f->flags & FRAME_IN_DEVICE) {
    CHECK(before(deadline));
    CHECK(a->ops->rx_burst(a, &got, 1) == 0);
    if (b->ops->rx_burst(b, &got, 1) == 1)
      frame_unref(&ends[1].arena, got);
  }
  CHECK(f->refs == 1);
  frame_unref(&ends[0].arena, frame);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void a_burst_beyond_the_kernels_budget_arrives_whole(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  uint32_t frames[3 * DEVICE_BURST];
  for (uint32_t burst = 0; burst < 3; burst++) {
    for (uint32_t i = 0; i < DEVICE_BURST; i++)
      frames[i] = frame_make(&ends[0].arena, burst * DEVICE_BURST + i, 80);
    CHECK(a->ops->tx_burst(a, frames, DEVICE_BURST) == DEVICE_BURST);
  }
  /* Nobody polls the sender: the doorbell alone has moved all of it. */
  receive(b, frames, 3 * DEVICE_BURST);
  for (uint32_t i = 0; i < 3 * DEVICE_BURST; i++) {
    frame_check(&ends[1].arena, frames[i], i, 80);
    frame_unref(&ends[1].arena, frames[i]);
  }
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

/* A link that is down refuses every kick, so the ring fills; once it is up, polling alone sends all of it. */
static void a_full_ring_takes_no_more_and_a_lost_kick_is_made_up_for(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  interface_set("va", false);
  uint32_t frames[256], extra[2];
  for (uint32_t i = 0; i < 256; i++)
    frames[i] = frame_make(&ends[0].arena, i, 64);
  for (uint32_t i = 0; i < 256; i += DEVICE_BURST)
    CHECK(a->ops->tx_burst(a, frames + i, DEVICE_BURST) == DEVICE_BURST);
  for (uint32_t i = 0; i < 2; i++)
    extra[i] = frame_make(&ends[0].arena, 256 + i, 64);
  CHECK(a->ops->tx_burst(a, extra, 2) == 0);
  CHECK(frame_meta(&ends[0].arena, extra[0])->refs == 1);
  CHECK(!(frame_meta(&ends[0].arena, extra[0])->flags & FRAME_IN_DEVICE));
  CHECK(stats_of(a).tx_full == 1 && stats_of(a).tx_errors > 0 && stats_of(a).tx_frames == 256);
  CHECK(a->ops->wait_arm(a) == 0); /* no sense in spinning for a link that is down */

  interface_set("va", true);
  uint64_t deadline = in_seconds(5);
  for (uint32_t have = 0; have < 256;) {
    CHECK(before(deadline));
    CHECK(a->ops->rx_burst(a, frames, 1) == 0);
    uint32_t n = b->ops->rx_burst(b, frames, DEVICE_BURST);
    for (uint32_t i = 0; i < n; i++, have++) {
      frame_check(&ends[1].arena, frames[i], have, 64);
      frame_unref(&ends[1].arena, frames[i]);
    }
  }
  CHECK(a->ops->tx_burst(a, extra, 2) == 2);
  receive(b, frames, 2);
  for (uint32_t i = 0; i < 2; i++) {
    frame_check(&ends[1].arena, frames[i], 256 + i, 64);
    frame_unref(&ends[1].arena, frames[i]);
  }
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void closing_returns_every_frame_wherever_it_is(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  uint32_t frames[DEVICE_BURST];
  for (uint32_t i = 0; i < DEVICE_BURST; i++)
    frames[i] = frame_make(&ends[0].arena, i, 100);
  CHECK(a->ops->tx_burst(a, frames, DEVICE_BURST) == DEVICE_BURST);
  /* b: some taken by us and given back, others waiting in the rx ring. a: completions unread, then
   * descriptors unsent. */
  receive(b, frames, 10);
  for (uint32_t i = 0; i < 10; i++)
    frame_unref(&ends[1].arena, frames[i]);
  interface_set("va", false);
  for (uint32_t i = 0; i < DEVICE_BURST; i++)
    frames[i] = frame_make(&ends[0].arena, i, 100);
  frame_ref(&ends[0].arena, frames[3]);
  CHECK(a->ops->tx_burst(a, frames, DEVICE_BURST) == DEVICE_BURST);
  CHECK(ends[0].arena.free_count < FRAMES && ends[1].arena.free_count < FRAMES);
  queue_close(a);
  queue_close(b);
  CHECK(frame_meta(&ends[0].arena, frames[3])->refs == 1); /* ours */
  frame_unref(&ends[0].arena, frames[3]);
  nothing_leaked();
  interface_set("va", true);
}

static void what_was_queued_last_leaves_before_the_queue_closes(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  interface_set("va", false);
  uint32_t frame = frame_make(&ends[0].arena, 9, 64), got;
  CHECK(a->ops->tx_burst(a, &frame, 1) == 1);
  interface_set("va", true);
  queue_close(a);
  receive(b, &got, 1);
  frame_check(&ends[1].arena, got, 9, 64);
  frame_unref(&ends[1].arena, got);
  queue_close(b);
  nothing_leaked();
}

static void what_is_sent_is_received_or_counted_as_dropped(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  uint32_t frames[DEVICE_BURST];
  uint64_t deadline = in_seconds(5);
  while (stats_of(a).tx_frames < 1024) { /* four times what b has empty frames for, and b does not look */
    CHECK(before(deadline));
    for (uint32_t i = 0; i < DEVICE_BURST; i++)
      frames[i] = frame_make(&ends[0].arena, i, 64);
    uint32_t taken = a->ops->tx_burst(a, frames, DEVICE_BURST);
    for (uint32_t i = taken; i < DEVICE_BURST; i++)
      frame_unref(&ends[0].arena, frames[i]);
    CHECK(a->ops->rx_burst(a, frames, DEVICE_BURST) == 0);
  }
  uint64_t sent = stats_of(a).tx_frames;
  struct hy_device_stats s;
  do {
    CHECK(before(deadline));
    uint32_t n = b->ops->rx_burst(b, frames, DEVICE_BURST);
    for (uint32_t i = 0; i < n; i++)
      frame_unref(&ends[1].arena, frames[i]);
    s = stats_of(b);
  } while (s.rx_frames + s.rx_dropped < sent);
  CHECK(s.rx_frames + s.rx_dropped == sent);
  CHECK(s.rx_dropped > 0 && s.rx_no_frames > 0 && s.rx_no_frames <= s.rx_dropped && s.tx_invalid == 0);
  /* And the queue has recovered. */
  transfer(a, b, 5000, 300, DEVICE_BURST);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void a_frame_goes_out_by_another_queue_than_it_came_by(void) {
  wire_up();
  struct hy_device *a0 = queue_open(&ends[0], 0), *b0 = queue_open(&ends[1], 0);
  struct hy_device *a2 = queue_open(&ends[0], arrives_at(2)), *b2 = queue_open(&ends[1], 2);
  uint32_t frame = frame_make(&ends[0].arena, 77, 900), through, got;
  CHECK(a0->ops->tx_burst(a0, &frame, 1) == 1);
  receive(b0, &through, 1);
  CHECK(b2->ops->tx_burst(b2, &through, 1) == 1);
  receive(a2, &got, 1);
  frame_check(&ends[0].arena, got, 77, 900);
  frame_unref(&ends[0].arena, got);
  queue_close(a0);
  queue_close(b0);
  queue_close(a2);
  queue_close(b2);
  nothing_leaked();
}

static void a_queue_leaves_frames_to_the_stack_but_never_starves_itself(void) {
  wire_up_frames(256);
  struct arena *arena = &ends[1].arena;
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  CHECK(arena->free_count == 256 - 256 / 8);
  /* The stack takes everything. What the queue holds still arrives, and is restocked from what comes back. */
  uint32_t held[256], nheld = 0;
  while ((held[nheld] = frame_alloc(arena)) != FRAME_NONE)
    nheld++;
  CHECK(nheld == 256 - 256 / 8);
  transfer(a, b, 0, 500, 16);
  for (uint32_t i = 0; i < nheld; i++)
    frame_unref(arena, held[i]);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void an_arrival_wakes_a_sleeper(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  struct pollfd on = {.fd = b->ops->wait_fd(b), .events = POLLIN};
  CHECK(b->ops->wait_arm(b) == 0);
  CHECK(poll(&on, 1, 0) == 0);
  uint32_t frame = frame_make(&ends[0].arena, 3, 64), got;
  CHECK(a->ops->tx_burst(a, &frame, 1) == 1);
  CHECK(poll(&on, 1, 5000) == 1 && (on.revents & POLLIN));
  CHECK(b->ops->wait_arm(b) == 1);
  receive(b, &got, 1);
  frame_unref(&ends[1].arena, got);
  uint64_t deadline = in_seconds(5);
  while (a->ops->wait_arm(a) == 1) /* until its completion has been taken back */
    CHECK(before(deadline));
  CHECK(frame_meta(&ends[0].arena, frame)->refs == 0);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static int open_status(hy_afxdp_config config, hy_afxdp_obtained *obtained) {
  struct hy_device *dev;
  int status = afxdp_open(&ends[0].arena, &config, NULL, obtained, &dev);
  if (status == 0)
    queue_close(dev);
  return status;
}

static void what_cannot_be_had_is_refused_if_strict_and_reported_if_not(void) {
  wire_up();
  hy_afxdp_obtained got;
  hy_afxdp_config config = config_of(&ends[0], 0);
  CHECK(open_status(config, &got) == 0);
  CHECK(got.zerocopy == 0 && got.need_wakeup == 1 && got.ring_size == 256 && got.busy_poll == 0);
  config.copy = HY_XDP_COPY;
  config.strict = 1;
  CHECK(open_status(config, &got) == 0 && got.zerocopy == 0);
  config.copy = HY_XDP_ZEROCOPY;
  CHECK(open_status(config, &got) == -EOPNOTSUPP);
  config.strict = 0;
  CHECK(open_status(config, &got) == 0 && got.zerocopy == 0);
  nothing_leaked();
}

static void what_makes_no_sense_is_refused_and_leaks_nothing(void) {
  wire_up();
  hy_afxdp_config good = config_of(&ends[0], 0), c;
  c = good, c.struct_size--;
  CHECK(open_status(c, NULL) == -EINVAL);
  c = good, c.ring_size = 100;
  CHECK(open_status(c, NULL) == -EINVAL);
  c = good, c.ring_size = 1u << 20;
  CHECK(open_status(c, NULL) == -EINVAL);
  c = good, c.copy = 3;
  CHECK(open_status(c, NULL) == -EINVAL);
  c = good, c.queue = QUEUES + 60;
  CHECK(open_status(c, NULL) == -EINVAL);
  c = good, c.ifindex = 99999;
  CHECK(open_status(c, NULL) == -ENODEV);
  c = good, c.xsk_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(open_status(c, NULL) == -EAFNOSUPPORT);
  c = good, c.xsk_fd = dup(STDIN_FILENO);
  CHECK(open_status(c, NULL) == -ENOTSOCK);
  c = good, c.map_fd = STDIN_FILENO;
  CHECK(open_status(c, NULL) == -EINVAL);
  struct hy_device *first = queue_open(&ends[0], 0);
  CHECK(open_status(good, NULL) == -EBUSY);
  queue_close(first);
  CHECK(open_status(good, NULL) == 0);
  nothing_leaked();
}

/* ---- a socket handed to a process without privileges -------------------------------------------- */

static void socket_send(int over, int fd) {
  char byte = 0;
  struct iovec iov = {&byte, 1};
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof fd)];
  } control = {0};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  CHECK(sendmsg(over, &message, 0) == 1);
}

static int socket_receive(int over) {
  char byte;
  struct iovec iov = {&byte, 1};
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
  } control;
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  CHECK(recvmsg(over, &message, MSG_CMSG_CLOEXEC) == 1);
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  CHECK(c != NULL && c->cmsg_type == SCM_RIGHTS);
  int fd;
  memcpy(&fd, CMSG_DATA(c), sizeof fd);
  return fd;
}

/* Child: registers an arena of its own with the socket, says so, echoes 100 frames, closes. */
static void unprivileged_child(int over, uint32_t frames, int expected) {
  privileges_drop();
  hy_afxdp_config config = config_of(&ends[1], 0);
  config.map_fd = -1;
  config.xsk_fd = socket_receive(over);
  struct arena arena;
  CHECK(arena_init(&arena, frames, 2048, 0, HY_HUGEPAGES_NO) == 0);
  struct hy_device *dev;
  int status = afxdp_open(&arena, &config, NULL, NULL, &dev);
  CHECK(status == expected);
  if (status == 0) {
    CHECK(write(over, "r", 1) == 1);
    uint32_t got[100];
    receive(dev, got, 100);
    for (uint32_t i = 0; i < 100; i += 50)
      CHECK(dev->ops->tx_burst(dev, got + i, 50) == 50);
    char byte;
    CHECK(read(over, &byte, 1) == 1);
    queue_close(dev);
  }
  CHECK(arena.free_count == frames);
  _exit(0);
}

static pid_t child_start(int pair[2], uint32_t frames, int expected, int *xsk_fd) {
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
  *xsk_fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
  CHECK(*xsk_fd >= 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    close(pair[0]);
    unprivileged_child(pair[1], frames, expected);
  }
  close(pair[1]);
  socket_send(pair[0], *xsk_fd);
  return pid;
}

static void child_end(pid_t pid, int pair[2], int xsk_fd) {
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  close(pair[0]);
  close(xsk_fd);
}

static void a_handed_socket_serves_a_process_without_privileges(void) {
  wire_up();
  struct hy_device *a = queue_open(&ends[0], 0);
  int pair[2], xsk_fd;
  pid_t pid = child_start(pair, 2048, 0, &xsk_fd); /* 4 MiB of the 8 that it may lock */
  char byte;
  CHECK(read(pair[0], &byte, 1) == 1);
  CHECK(redirect_enter(&ends[1].redirect, 0, xsk_fd) == 0);
  uint32_t frames[100];
  for (uint32_t i = 0; i < 100; i++)
    frames[i] = frame_make(&ends[0].arena, i, length_of(i));
  for (uint32_t i = 0; i < 100; i += 50)
    CHECK(a->ops->tx_burst(a, frames + i, 50) == 50);
  receive(a, frames, 100);
  for (uint32_t i = 0; i < 100; i++) {
    frame_check(&ends[0].arena, frames[i], i, length_of(i));
    frame_unref(&ends[0].arena, frames[i]);
  }
  CHECK(write(pair[0], "q", 1) == 1);
  child_end(pid, pair, xsk_fd);
  queue_close(a);
  nothing_leaked();
}

static void an_arena_beyond_the_lock_limit_is_refused_by_name(void) {
  wire_up();
  int pair[2], xsk_fd;
  pid_t pid = child_start(pair, 8192, -ENOLCK, &xsk_fd); /* 16 MiB of the 8 that it may lock */
  child_end(pid, pair, xsk_fd);
}

static void the_lock_limit_counts_the_arena_once_for_every_socket(void) {
  wire_up();
  int pair[2], sockets[2];
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
  for (int i = 0; i < 2; i++) {
    sockets[i] = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    CHECK(sockets[i] >= 0);
    socket_send(pair[0], sockets[i]);
  }
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    privileges_drop();
    struct arena arena;
    CHECK(arena_init(&arena, 3072, 2048, 0, HY_HUGEPAGES_NO) == 0); /* 6 MiB of the 8 that it may lock */
    struct hy_device *dev, *second;
    hy_afxdp_config config = config_of(&ends[1], 0);
    config.map_fd = -1;
    config.xsk_fd = socket_receive(pair[1]);
    CHECK(afxdp_open(&arena, &config, NULL, NULL, &dev) == 0);
    config.queue = 1;
    config.xsk_fd = socket_receive(pair[1]);
    CHECK(afxdp_open(&arena, &config, NULL, NULL, &second) == -ENOLCK);
    queue_close(dev);
    CHECK(arena.free_count == 3072);
    _exit(0);
  }
  close(pair[1]);
  close(sockets[1]);
  child_end(pid, pair, sockets[0]);
}

/* ---- which ------------------------------------------------------------------------------------- */

#define SCENARIO(name)                                                                                       \
  { #name, name }
static const struct scenario scenarios[] = {
    SCENARIO(frames_cross_both_ways_on_every_queue),
    SCENARIO(the_longest_frame_fits_and_a_received_one_has_room_for_headers),
    SCENARIO(a_frame_is_marked_until_it_has_left),
    SCENARIO(a_burst_beyond_the_kernels_budget_arrives_whole),
    SCENARIO(a_full_ring_takes_no_more_and_a_lost_kick_is_made_up_for),
    SCENARIO(closing_returns_every_frame_wherever_it_is),
    SCENARIO(what_was_queued_last_leaves_before_the_queue_closes),
    SCENARIO(what_is_sent_is_received_or_counted_as_dropped),
    SCENARIO(a_frame_goes_out_by_another_queue_than_it_came_by),
    SCENARIO(a_queue_leaves_frames_to_the_stack_but_never_starves_itself),
    SCENARIO(an_arrival_wakes_a_sleeper),
    SCENARIO(what_cannot_be_had_is_refused_if_strict_and_reported_if_not),
    SCENARIO(what_makes_no_sense_is_refused_and_leaks_nothing),
    SCENARIO(a_handed_socket_serves_a_process_without_privileges),
    SCENARIO(an_arena_beyond_the_lock_limit_is_refused_by_name),
    SCENARIO(the_lock_limit_counts_the_arena_once_for_every_socket),
};

int main(int argc, char **argv) {
  return scenario_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
