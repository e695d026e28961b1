/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TAP device and a packet socket on the interface of the same TAP, in a network namespace of the test's
 * own: what one sends the other receives, and whatever is under way when one closes, every frame comes back.
 * Skipped where a namespace or /dev/net/tun can't be had.
 */
#include "check.h"
#include "core/shard.h"
#include "uring/frames.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 1024, LEN = 100, SKIPPED = 77, MERGED = 3000, MERGED_SIZE = 1000, HEADERS = 14 + 20 + 20 };

static const uint8_t MAC[6] = {2, 0, 0, 0, 0, 9};
static hy_shard *shards[2];
static struct hy_device *tap, *packet;

static void interface_up(void) {
  struct ifreq request = {.ifr_name = "tap0"};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &request), 0);
  request.ifr_flags |= IFF_UP;
  assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
  close(fd);
}

static int two_devices(void **state) {
  const hy_config config = {.struct_size = sizeof config, .frames = FRAMES};
  for (int i = 0; i < 2; i++)
    assert_int_equal(hy_shard_open(&config, &shards[i]), 0);
  const hy_tap_config tap_config = {.struct_size = sizeof tap_config, .name = "tap0", .tap_fd = -1};
  hy_tap_obtained obtained;
  assert_int_equal(hy_tap_attach(shards[0], &tap_config, &obtained), 0);
  interface_up();
  hy_packet_config packet_config = {
      .struct_size = sizeof packet_config, .interface = obtained.ifindex, .packet_fd = -1};
  memcpy(packet_config.mac, MAC, 6);
  assert_int_equal(hy_packet_attach(shards[1], &packet_config, NULL), 0);
  tap = shard_device(shards[0], 0);
  packet = shard_device(shards[1], 0);
  return 0;
}

/* Takes a device out of its shard; its frames are all there again. */
static void closes_and_returns_everything(hy_shard *shard, struct hy_device *dev) {
  struct arena *arena = shard_arena(shard);
  shard_remove_device(shard, dev, -ENETDOWN);
  assert_int_equal(arena->free_count, FRAMES);
  for (uint32_t i = 0; i < FRAMES; i++)
    assert_int_equal(frame_meta(arena, i)->flags & FRAME_IN_DEVICE, 0);
}

static int no_shard_is_left(void **state) {
  hy_shard_close(shards[0]);
  hy_shard_close(shards[1]);
  return 0;
}

/* n frames that are of use to nobody but MAC. */
static void send_frames(struct hy_device *dev, uint32_t n) {
  struct arena *arena = dev->arena;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t index = frame_alloc(arena);
    assert_true(index != FRAME_NONE);
    uint8_t *p = frame_data(arena, index);
    memset(p, (int)i, LEN);
    memcpy(p, MAC, 6);
    memcpy(p + 6, (const uint8_t[8]){2, 0, 0, 0, 0, 1, 0x88, 0xb5}, 8); /* for experiments: IEEE 802 */
    frame_meta(arena, index)->len = LEN;
    while (dev->ops->tx_burst(dev, &index, 1) == 0)
      ;
  }
}

/* n of our frames, in order, given back; what else the kernel sends is passed over. */
static void receive_frames(struct hy_device *dev, uint32_t n) {
  uint32_t frames[DEVICE_BURST];
  for (uint32_t have = 0; have < n;) {
    struct pollfd ready = {.fd = dev->ops->wait_fd(dev), .events = POLLIN};
    if (!dev->ops->wait_arm(dev))
      assert_int_equal(poll(&ready, 1, 10000), 1);
    unsigned got = dev->ops->rx_burst(dev, frames, DEVICE_BURST);
    for (unsigned i = 0; i < got; i++) {
      const uint8_t *p = frame_data(dev->arena, frames[i]);
      if (memcmp(p, MAC, 6) == 0) {
        assert_int_equal(frame_meta(dev->arena, frames[i])->len, LEN);
        assert_int_equal(p[LEN - 1], (uint8_t)have++);
      }
      frame_unref(dev->arena, frames[i]);
    }
  }
}

static void frames_cross_both_ways_in_order_and_wake_a_sleeper(void **state) {
  for (int round = 0; round < 3; round++) {
    send_frames(tap, 200);
    receive_frames(packet, 200);
    send_frames(packet, 200);
    receive_frames(tap, 200);
  }
  struct hy_device_stats stats;
  tap->ops->stats(tap, &stats);
  assert_int_equal(stats.tx_frames, 600);
  assert_int_equal(stats.tx_bytes, 600 * LEN);
  assert_true(stats.rx_frames >= 600 && stats.tx_errors == 0 && stats.tx_invalid == 0);
  closes_and_returns_everything(shards[0], tap);
  closes_and_returns_everything(shards[1], packet);
}

static void closing_returns_frames_that_nobody_has_asked_for(void **state) {
  uint32_t one;
  for (int i = 0; i < 2; i++) { /* both wait for something, and something comes */
    struct hy_device *dev = i == 0 ? tap : packet;
    dev->ops->rx_burst(dev, &one, 0);
    dev->ops->wait_arm(dev);
  }
  send_frames(tap, 100);
  send_frames(packet, 100);
  closes_and_returns_everything(shards[0], tap);
  closes_and_returns_everything(shards[1], packet);
}

/* What somebody else's packet socket hands to the interface. */
static void send_to_interface(const void *bytes, size_t len) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1;
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("tap0")};
  assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), 0);
  assert_int_equal(sendto(fd, bytes, len, 0, (struct sockaddr *)&to, sizeof to), len);
  close(fd);
}

static void *send_later(void *unused) {
  uint8_t bytes[sizeof(struct virtio_net_hdr) + LEN] = {0};
  uint8_t *p = bytes + sizeof(struct virtio_net_hdr);
  memcpy(p, MAC, 6);
  memcpy(p + 12, (const uint8_t[2]){0x88, 0xb5}, 2);
  usleep(20000);
  send_to_interface(bytes, sizeof bytes);
  return unused;
}

static void what_comes_while_a_device_is_slept_on_wakes_the_sleeper(void **state) {
  uint32_t frames[DEVICE_BURST];
  bool ours = false;
  while (tap->ops->wait_arm(tap)) /* what the kernel had to say when the interface came up */
    for (unsigned n = tap->ops->rx_burst(tap, frames, DEVICE_BURST); n > 0;)
      frame_unref(tap->arena, frames[--n]);
  pthread_t sender;
  assert_int_equal(pthread_create(&sender, NULL, send_later, NULL), 0);
  while (!ours) {
    struct pollfd ready = {.fd = tap->ops->wait_fd(tap), .events = POLLIN};
    if (!tap->ops->wait_arm(tap)) { /* poll(2) looks once more when its time is over, which is no waking */
      time_t before = time(NULL);
      assert_int_equal(poll(&ready, 1, 10000), 1);
      assert_in_range(time(NULL) - before, 0, 8);
    }
    for (unsigned n = tap->ops->rx_burst(tap, frames, DEVICE_BURST); n > 0;
         frame_unref(tap->arena, frames[n]))
      ours |= memcmp(frame_data(tap->arena, frames[--n]), MAC, 6) == 0;
  }
  assert_int_equal(pthread_join(sender, NULL), 0);
  closes_and_returns_everything(shards[0], tap);
  closes_and_returns_everything(shards[1], packet);
}

/* A merged packet as a sender's kernel hands it to its interface. */
static void send_merged(void) {
  uint8_t bytes[sizeof(struct virtio_net_hdr) + HEADERS + MERGED] = {0};
  struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                  .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                  .hdr_len = HEADERS,
                                  .gso_size = MERGED_SIZE,
                                  .csum_start = 34,
                                  .csum_offset = 16};
  memcpy(bytes, &header, sizeof header);
  uint8_t *p = bytes + sizeof header;
  memcpy(p, MAC, 6);
  p[12] = 8;
  p[14] = 0x45;
  p[16] = (uint8_t)((HEADERS - 14 + MERGED) >> 8);
  p[17] = (uint8_t)(HEADERS - 14 + MERGED);
  p[22] = 64;
  p[23] = 6;
  p[34 + 12] = 5 << 4;
  send_to_interface(bytes, sizeof bytes);
}

static void closing_in_the_middle_of_a_merged_packet_returns_its_frames(void **state) {
  struct arena *arena = tap->arena;
  send_merged();
  for (bool segment = false; !segment;) {
    uint32_t frame;
    if (tap->ops->rx_burst(tap, &frame, 1) == 0)
      continue;
    const struct frame *f = frame_meta(arena, frame);
    segment = f->len == HEADERS + MERGED_SIZE && (f->flags & FRAME_CSUM_GOOD);
    frame_unref(arena, frame);
  }
  closes_and_returns_everything(shards[0], tap);
  closes_and_returns_everything(shards[1], packet);
}

static void a_device_without_its_interface_is_gone_and_takes_what_it_is_given(void **state) {
  assert_int_equal(packet->ops->health(packet), 0);
  closes_and_returns_everything(shards[0], tap); /* and with the only queue the interface */
  assert_int_equal(packet->ops->health(packet), -ENODEV);
  send_frames(packet, 10);
  closes_and_returns_everything(shards[1], packet);
}

int main(void) {
  int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (tun < 0 || unshare(CLONE_NEWNET) < 0)
    return SKIPPED;
  close(tun);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(frames_cross_both_ways_in_order_and_wake_a_sleeper, two_devices,
                                      no_shard_is_left),
      cmocka_unit_test_setup_teardown(what_comes_while_a_device_is_slept_on_wakes_the_sleeper, two_devices,
                                      no_shard_is_left),
      cmocka_unit_test_setup_teardown(closing_returns_frames_that_nobody_has_asked_for, two_devices,
                                      no_shard_is_left),
      cmocka_unit_test_setup_teardown(closing_in_the_middle_of_a_merged_packet_returns_its_frames,
                                      two_devices, no_shard_is_left),
      cmocka_unit_test_setup_teardown(a_device_without_its_interface_is_gone_and_takes_what_it_is_given,
                                      two_devices, no_shard_is_left),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
