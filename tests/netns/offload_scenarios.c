/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What later kernels can do for AF_XDP, against a real one: packets of several
 * buffers, one registration for several queues, checksums completed on the way; and
 * an interface that goes away. As afxdp_scenarios.c: one scenario per run, on va-vb.
 */
#include "scenario.h"
#include "tcp/csum.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAMES = 2048, JUMBO = 9000, PACKET_MAX = JUMBO + 14 };

static uint32_t packet_max; /* that the wire takes */

static void wire_up(int mtu_bytes) {
  packet_max = (uint32_t)mtu_bytes + 14;
  mtu_set(mtu_bytes);
  wire_up_frames(FRAMES);
}

static struct hy_device *open_as(struct end *end, uint32_t queue, const struct hy_device *beside,
                                 hy_afxdp_config config, hy_afxdp_obtained *got) {
  config.queue = queue;
  struct hy_device *dev = NULL;
  CHECK(afxdp_open(&end->arena, &config, beside, got, &dev) == 0);
  return dev;
}

/* A datagram of len bytes with its headers, in frames of uneven lengths. */
static uint32_t packet_of(struct arena *arena, uint32_t number, uint32_t len) {
  uint8_t bytes[PACKET_MAX] = {0};
  datagram_write(bytes, number, len);
  uint32_t head = FRAME_NONE, tail = FRAME_NONE;
  for (uint32_t done = 0, some; done < len; done += some) {
    some = head == FRAME_NONE ? 64 + number % 100 : 1001 + number % 700;
    if (some > len - done)
      some = len - done;
    uint32_t index = frame_alloc(arena);
    CHECK(index != FRAME_NONE);
    memcpy(frame_data(arena, index), bytes + done, some);
    frame_meta(arena, index)->len = (uint16_t)some;
    if (head == FRAME_NONE) {
      head = index;
    } else {
      packet_link(arena, tail, index);
    }
    tail = index;
  }
  return head;
}

static void packet_check(struct arena *arena, uint32_t head, uint32_t number, uint32_t len) {
  static uint8_t bytes[1 << 16];
  CHECK(packet_bytes(arena, head) == len);
  packet_copy(arena, head, bytes);
  CHECK(memcmp(bytes + HEADERS, &number, sizeof number) == 0);
  for (uint32_t at = HEADERS + sizeof number; at < len; at++)
    CHECK(bytes[at] == byte_of(number, at));
}

static uint32_t length_of(uint32_t number) {
  return number % 3 == 0 ? packet_max : 60 + number * 997 % (packet_max - 60);
}

static void transfer(struct hy_device *from, struct hy_device *to, uint32_t count, uint32_t take) {
  uint32_t frames[DEVICE_BURST], sent = 0, received = 0;
  uint64_t deadline = in_seconds(10);
  while (received < count) {
    CHECK(before(deadline));
    uint32_t n = 0;
    for (; sent + n < count && sent + n < received + 8; n++) /* no more than there are empty frames for */
      frames[n] = packet_of(from->arena, sent + n, length_of(sent + n));
    uint32_t taken = n > 0 ? from->ops->tx_burst(from, frames, n) : 0;
    for (uint32_t i = taken; i < n; i++)
      packet_drop(from->arena, frames[i]);
    sent += taken;
    CHECK(from->ops->rx_burst(from, frames, DEVICE_BURST) == 0);
    n = to->ops->rx_burst(to, frames, take);
    for (uint32_t i = 0; i < n; i++, received++) {
      packet_check(to->arena, frames[i], received, length_of(received));
      packet_drop(to->arena, frames[i]);
    }
  }
}

/* ---- packets of several frames ---------------------------------------------------------------- */

static void packets_of_several_frames_cross_whole(void) {
  wire_up(JUMBO);
  hy_afxdp_obtained got;
  struct hy_device *a = open_as(&ends[0], 0, NULL, config_of(&ends[0], 0), &got);
  struct hy_device *b = queue_open(&ends[1], 0);
  CHECK(got.multi_buffer == 1 && got.packet_bytes_max == a->frame_bytes_max);
  CHECK((a->caps & DEVICE_MULTI) && a->frame_bytes_max >= PACKET_MAX);
  transfer(a, b, 600, DEVICE_BURST);
  transfer(b, a, 600, DEVICE_BURST);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void a_burst_that_ends_within_a_packet_keeps_what_it_has(void) {
  wire_up(JUMBO);
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  transfer(a, b, 100, 1); /* one descriptor at a time: most bursts bring no packet */
  uint32_t packet = packet_of(&ends[0].arena, 3, PACKET_MAX), got;
  CHECK(a->ops->tx_burst(a, &packet, 1) == 1);
  uint64_t deadline = in_seconds(5);
  while (b->ops->wait_arm(b) == 0)
    CHECK(before(deadline));
  CHECK(b->ops->rx_burst(b, &got, 1) == 0); /* closed with a part of it in hand */
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void a_ring_without_room_for_all_of_a_packet_takes_none_of_it(void) {
  wire_up(JUMBO);
  struct hy_device *a = queue_open(&ends[0], 0);
  interface_set("va", false);
  uint32_t packet, frames = 0, taken = 0;
  for (;; taken++) {
    packet = packet_of(&ends[0].arena, taken, PACKET_MAX);
    uint32_t n = packet_frames(&ends[0].arena, packet);
    if (a->ops->tx_burst(a, &packet, 1) == 0)
      break;
    frames += n;
  }
  CHECK(taken > 0 && frames <= 256 && frames + packet_frames(&ends[0].arena, packet) > 256);
  CHECK(!(frame_meta(&ends[0].arena, packet)->flags & FRAME_IN_DEVICE));
  packet_drop(&ends[0].arena, packet);
  queue_close(a);
  interface_set("va", true);
  nothing_leaked();
}

static void without_several_buffers_a_packet_is_one_frame(void) {
  wire_up(1500);
  hy_afxdp_config config = config_of(&ends[0], 0);
  hy_afxdp_obtained got;
  config.multi_buffer = HY_REQUEST_NO;
  struct hy_device *a = open_as(&ends[0], 0, NULL, config, &got);
  CHECK(got.multi_buffer == 0 && !(a->caps & DEVICE_MULTI) && a->packet_frames_max == 1);
  CHECK(a->frame_bytes_max == ends[0].arena.frame_size - AFXDP_RX_HEADROOM);
  config.multi_buffer = 9;
  struct hy_device *none = NULL;
  CHECK(afxdp_open(&ends[0].arena, &config, NULL, NULL, &none) == -EINVAL);
  queue_close(a);
  nothing_leaked();
}

/* ---- one registration ------------------------------------------------------------------------- */

static void queues_share_one_registration(void) {
  wire_up(1500);
  hy_afxdp_obtained got;
  struct hy_device *first = open_as(&ends[1], 0, NULL, config_of(&ends[1], 0), &got);
  CHECK(got.shared_umem == 0);
  struct hy_device *second = open_as(&ends[1], 1, first, config_of(&ends[1], 1), &got);
  CHECK(got.shared_umem == 1 && got.multi_buffer == 1 && got.zerocopy == 0);
  hy_afxdp_config own = config_of(&ends[1], 2);
  own.shared_umem = HY_REQUEST_NO;
  struct hy_device *third = open_as(&ends[1], 2, first, own, &got);
  CHECK(got.shared_umem == 0);
  own = config_of(&ends[1], 3);
  own.multi_buffer = HY_REQUEST_NO; /* the first one has it, and sharing would bring it */
  struct hy_device *fourth = open_as(&ends[1], 3, first, own, &got);
  CHECK(got.shared_umem == 0 && got.multi_buffer == 0);
  queue_close(fourth);
  queue_close(third);
  queue_close(first); /* the registration lives as long as somebody uses it */
  struct hy_device *a = queue_open(&ends[0], generic ? 2 : 1);
  transfer(a, second, 300, DEVICE_BURST);
  queue_close(a);
  queue_close(second);
  nothing_leaked();
}

/* Child: an arena of 6 MiB, of the 8 that it may lock, and three queues over it. */
static void three_queues(const int *sockets) {
  privileges_drop();
  struct arena arena;
  CHECK(arena_init(&arena, 3072, 2048, 0, HY_HUGEPAGES_NO) == 0);
  struct hy_device *devices[3] = {0};
  for (uint32_t q = 0; q < 3; q++) {
    hy_afxdp_config config = config_of(&ends[1], q);
    config.map_fd = -1;
    config.xsk_fd = sockets[q];
    config.shared_umem = HY_REQUEST_MUST;
    CHECK(afxdp_open(&arena, &config, devices[0], NULL, &devices[q]) == 0);
  }
  for (uint32_t q = 0; q < 3; q++)
    queue_close(devices[q]);
  CHECK(arena.free_count == 3072);
  _exit(0);
}

static void shared_memory_is_counted_against_the_lock_limit_once(void) {
  wire_up(1500);
  int sockets[3], status;
  for (int i = 0; i < 3; i++)
    CHECK((sockets[i] = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)) >= 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0)
    three_queues(sockets);
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- checksums -------------------------------------------------------------------------------- */

static void transmit_checksums_off(const char *ifname) {
  struct ethtool_value value = {.cmd = ETHTOOL_STXCSUM};
  struct ifreq request = {.ifr_data = (void *)&value};
  memcpy(request.ifr_name, ifname, strlen(ifname));
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && ioctl(fd, SIOCETHTOOL, &request) == 0);
  close(fd);
}

/* The device va completes nothing itself, so the kernel does, and what arrives can be summed. */
static void a_checksum_that_was_left_is_right_on_the_wire(void) {
  wire_up(JUMBO);
  transmit_checksums_off("va");
  hy_afxdp_config config = config_of(&ends[0], 0);
  config.tx_checksum = HY_REQUEST_MUST;
  hy_afxdp_obtained got;
  struct hy_device *a = open_as(&ends[0], 0, NULL, config, &got), *b = queue_open(&ends[1], 0);
  CHECK(got.tx_checksum == 1 && (a->caps & DEVICE_TX_CSUM) && a->tx_room <= FRAME_TX_ROOM && a->tx_room > 0);
  for (uint32_t number = 0; number < 40; number++) {
    uint32_t len = length_of(number), head = packet_of(&ends[0].arena, number, len), frame;
    struct frame *f = frame_meta(&ends[0].arena, head);
    uint8_t *udp = frame_data(&ends[0].arena, head) + 34;
    uint64_t pseudo = csum_protocol(17, len - 34); /* both addresses are zero */
    uint16_t left = (uint16_t)~csum_fold(pseudo);
    memcpy(udp + 6, &left, 2);
    f->flags |= FRAME_CSUM_PARTIAL;
    f->csum_start = (uint16_t)(f->off + 34);
    f->csum_offset = 6;
    CHECK(a->ops->tx_burst(a, &head, 1) == 1);
    receive(b, &frame, 1);
    static uint8_t bytes[1 << 16];
    CHECK(packet_bytes(&ends[1].arena, frame) == len);
    packet_copy(&ends[1].arena, frame, bytes);
    CHECK(csum_fold(csum_add(pseudo, bytes + 34, len - 34)) == 0);
    packet_drop(&ends[1].arena, frame);
  }
  struct hy_device_stats stats;
  a->ops->stats(a, &stats);
  CHECK(stats.tx_invalid == 0);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

/* ---- hugepages -------------------------------------------------------------------------------- */

static void an_arena_of_hugepages_is_registered_as_any(void) {
  wire_up(1500);
  struct arena *arena = &ends[0].arena;
  arena_fini(arena);
  CHECK(arena_init(arena, FRAMES, 2048, 0, HY_HUGEPAGES_MUST) == 0);
  hy_afxdp_obtained got;
  struct hy_device *a = open_as(&ends[0], 0, NULL, config_of(&ends[0], 0), &got);
  struct hy_device *b = queue_open(&ends[1], 0);
  CHECK(got.hugepages == 1);
  transfer(a, b, 300, DEVICE_BURST);
  transfer(b, a, 300, DEVICE_BURST);
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

/* ---- the end of an interface ------------------------------------------------------------------ */

static void a_link_that_was_down_goes_on_and_is_not_lost(void) {
  wire_up(1500);
  struct hy_device *a = queue_open(&ends[0], 0), *b = queue_open(&ends[1], 0);
  for (int round = 0; round < 3; round++) {
    interface_set("va", false);
    interface_set("vb", false);
    CHECK(a->ops->health(a) == 0 && b->ops->health(b) == 0);
    interface_set("vb", true);
    interface_set("va", true);
    transfer(a, b, 50, DEVICE_BURST);
    CHECK(a->ops->health(a) == 0 && b->ops->health(b) == 0);
  }
  queue_close(a);
  queue_close(b);
  nothing_leaked();
}

static void an_interface_that_was_deleted_is_told_for_good(void) {
  CHECK(system("ip link add vc type veth peer name vd && ip link set vc up && ip link set vd up") == 0);
  struct end gone = {.ifname = "vc", .ifindex = if_nametoindex("vc")};
  CHECK(gone.ifindex != 0 && arena_init(&gone.arena, FRAMES, 2048, 0, HY_HUGEPAGES_NO) == 0);
  CHECK(redirect_attach(&gone.redirect, gone.ifindex, generic, PORT) == 0);
  struct hy_device *dev = queue_open(&gone, 0);
  CHECK(dev->ops->health(dev) == 0);
  CHECK(system("ip link del vc") == 0);
  CHECK(dev->ops->health(dev) == -ENETDOWN);
  CHECK(dev->ops->health(dev) == -ENETDOWN); /* the kernel tells once, we as often as asked */
  uint32_t packet = packet_of(&gone.arena, 1, 100), got;
  if (dev->ops->tx_burst(dev, &packet, 1) == 0)
    packet_drop(&gone.arena, packet);
  CHECK(dev->ops->rx_burst(dev, &got, 1) == 0);
  queue_close(dev);
  CHECK(gone.arena.free_count == FRAMES);
}

/* ---- which ------------------------------------------------------------------------------------- */

#define SCENARIO(name)                                                                                       \
  { #name, name }
static const struct scenario scenarios[] = {
    SCENARIO(packets_of_several_frames_cross_whole),
    SCENARIO(a_burst_that_ends_within_a_packet_keeps_what_it_has),
    SCENARIO(a_ring_without_room_for_all_of_a_packet_takes_none_of_it),
    SCENARIO(without_several_buffers_a_packet_is_one_frame),
    SCENARIO(queues_share_one_registration),
    SCENARIO(shared_memory_is_counted_against_the_lock_limit_once),
    SCENARIO(a_checksum_that_was_left_is_right_on_the_wire),
    SCENARIO(an_arena_of_hugepages_is_registered_as_any),
    SCENARIO(a_link_that_was_down_goes_on_and_is_not_lost),
    SCENARIO(an_interface_that_was_deleted_is_told_for_good),
};

int main(int argc, char **argv) {
  return scenario_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
