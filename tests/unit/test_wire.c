/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that need no machine: the wire driven by hand, and the memory device. */
#include "check.h"
#include "core/memory.h"
#include "core/wire.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

enum { FRAMES = 2000 };

static struct arena arena_a, arena_b;

static int two_arenas(void **state) {
  return arena_init(&arena_a, FRAMES, 2048, 0, HY_HUGEPAGES_NO) ||
         arena_init(&arena_b, FRAMES, 2048, 0, HY_HUGEPAGES_NO);
}

/* Every test gives all frames back. */
static int no_frame_is_missing(void **state) {
  bool leaked = arena_a.free_count != FRAMES || arena_b.free_count != FRAMES;
  arena_fini(&arena_a);
  arena_fini(&arena_b);
  return leaked;
}

static uint32_t frame_with(struct arena *arena, uint32_t value, uint16_t len) {
  uint32_t index = frame_alloc(arena);
  assert_true(index != FRAME_NONE);
  memset(frame_data(arena, index), 0, len);
  memcpy(frame_data(arena, index), &value, sizeof value);
  frame_meta(arena, index)->len = len;
  return index;
}

static uint32_t value_in(const struct arena *arena, uint32_t index) {
  uint32_t value;
  memcpy(&value, frame_data(arena, index), sizeof value);
  return value;
}

/* ---- wire ---- */

static void injected_frames_arrive_in_order_and_whole(void **state) {
  struct hy_device *dev = wire_create(&arena_a, 3);
  dev->index = 5;
  for (uint32_t i = 0; i < 100; i++)
    assert_int_equal(wire_inject(dev, &i, sizeof i), 0);
  uint32_t frames[DEVICE_BURST];
  uint32_t next = 0;
  unsigned n;
  while ((n = dev->ops->rx_burst(dev, frames, DEVICE_BURST)) > 0)
    for (unsigned i = 0; i < n; i++) {
      assert_int_equal(value_in(&arena_a, frames[i]), next++);
      assert_int_equal(frame_meta(&arena_a, frames[i])->len, 4);
      assert_int_equal(frame_meta(&arena_a, frames[i])->device, 5);
      frame_unref(&arena_a, frames[i]);
    }
  assert_int_equal(next, 100);
  dev->ops->close(dev);
}

static void a_frame_too_long_or_one_too_many_is_refused(void **state) {
  struct hy_device *dev = wire_create(&arena_a, 3);
  uint8_t bytes[UINT16_MAX + 1] = {0};
  assert_int_equal(wire_inject(dev, bytes, dev->frame_bytes_max + 1), -EMSGSIZE);
  assert_int_equal(wire_inject(dev, bytes, dev->frame_bytes_max), 0);
  for (unsigned i = 1; i < WIRE_RING; i++)
    assert_int_equal(wire_inject(dev, bytes, arena_frame_room(&arena_a)), 0);
  assert_int_equal(wire_inject(dev, bytes, 60), -ENOBUFS);
  struct hy_device_stats stats;
  dev->ops->stats(dev, &stats);
  assert_int_equal(stats.rx_dropped, 1);
  dev->ops->close(dev);
}

static void a_sent_frame_is_the_devices_until_it_is_collected(void **state) {
  struct hy_device *dev = wire_create(&arena_a, 3);
  uint32_t frame = frame_with(&arena_a, 77, 60);
  frame_ref(&arena_a, frame); /* the stack's, for a retransmission */
  assert_int_equal(dev->ops->tx_burst(dev, &frame, 1), 1);
  assert_true(frame_meta(&arena_a, frame)->flags & FRAME_IN_DEVICE);
  uint32_t out[15];
  assert_int_equal(wire_collect(dev, out, 59), -EMSGSIZE);
  assert_int_equal(wire_collect(dev, out, 60), 60);
  assert_int_equal(out[0], 77);
  assert_int_equal(wire_collect(dev, out, 60), 0);
  assert_false(frame_meta(&arena_a, frame)->flags & FRAME_IN_DEVICE);
  frame_unref(&arena_a, frame);
  dev->ops->close(dev);
}

static void a_full_wire_takes_part_of_a_burst_and_close_gives_all_back(void **state) {
  struct hy_device *dev = wire_create(&arena_a, 3);
  uint32_t frames[WIRE_RING + 10];
  for (uint32_t i = 0; i < WIRE_RING + 10; i++)
    frames[i] = frame_with(&arena_a, i, 60);
  assert_int_equal(dev->ops->tx_burst(dev, frames, WIRE_RING + 10), WIRE_RING);
  for (uint32_t i = WIRE_RING; i < WIRE_RING + 10; i++)
    frame_unref(&arena_a, frames[i]);
  dev->ops->close(dev);
}

/* ---- memory ---- */

static void frames_cross_from_one_arena_to_the_other_and_the_senders_come_back(void **state) {
  struct hy_device *ends[2];
  assert_int_equal(memory_create(&arena_a, 1, &arena_b, 2, ends), 0);
  for (uint32_t round = 0; round < 100; round++) {
    uint32_t sent[64], got[64];
    for (uint32_t i = 0; i < 64; i++)
      sent[i] = frame_with(&arena_a, round * 64 + i, (uint16_t)(60 + i));
    assert_int_equal(ends[0]->ops->tx_burst(ends[0], sent, 64), 64);
    assert_int_equal(ends[1]->ops->rx_burst(ends[1], got, 64), 64);
    for (uint32_t i = 0; i < 64; i++) {
      assert_int_equal(value_in(&arena_b, got[i]), round * 64 + i);
      assert_int_equal(frame_meta(&arena_b, got[i])->len, 60 + i);
      frame_unref(&arena_b, got[i]);
    }
    assert_int_equal(ends[0]->ops->rx_burst(ends[0], got, 64), 0);
    assert_int_equal(arena_a.free_count, FRAMES);
  }
  ends[0]->ops->close(ends[0]);
  ends[1]->ops->close(ends[1]);
}

static void both_ends_may_be_on_one_arena(void **state) {
  struct hy_device *ends[2];
  assert_int_equal(memory_create(&arena_a, 1, &arena_a, 2, ends), 0);
  uint32_t frame = frame_with(&arena_a, 42, 60), got;
  assert_int_equal(ends[1]->ops->tx_burst(ends[1], &frame, 1), 1);
  assert_int_equal(ends[0]->ops->rx_burst(ends[0], &got, 1), 1);
  assert_int_equal(value_in(&arena_a, got), 42);
  frame_unref(&arena_a, got);
  ends[0]->ops->close(ends[0]);
  ends[1]->ops->close(ends[1]);
}

static void a_full_ring_keeps_the_rest_with_the_sender(void **state) {
  struct hy_device *ends[2];
  assert_int_equal(memory_create(&arena_a, 1, &arena_b, 2, ends), 0);
  uint32_t frames[MEMORY_RING + 1];
  for (uint32_t i = 0; i <= MEMORY_RING; i++)
    frames[i] = frame_with(&arena_a, i, 60);
  assert_int_equal(ends[0]->ops->tx_burst(ends[0], frames, MEMORY_RING + 1), MEMORY_RING);
  frame_unref(&arena_a, frames[MEMORY_RING]);
  ends[1]->ops->close(ends[1]);
  ends[0]->ops->close(ends[0]);
}

static void what_is_under_way_from_or_to_a_closed_end_is_dropped(void **state) {
  struct hy_device *ends[2];
  uint32_t got;
  assert_int_equal(memory_create(&arena_a, 1, &arena_b, 2, ends), 0);
  uint32_t frame = frame_with(&arena_a, 1, 60);
  assert_int_equal(ends[0]->ops->tx_burst(ends[0], &frame, 1), 1);
  frame = frame_with(&arena_b, 2, 60);
  assert_int_equal(ends[1]->ops->tx_burst(ends[1], &frame, 1), 1);
  ends[0]->ops->close(ends[0]);
  assert_int_equal(ends[1]->ops->rx_burst(ends[1], &got, 1), 0);
  assert_int_equal(arena_a.free_count, FRAMES);
  assert_int_equal(arena_b.free_count, FRAMES);
  for (uint32_t i = 0; i < 2 * MEMORY_RING; i++) {
    frame = frame_with(&arena_b, i, 60);
    assert_int_equal(ends[1]->ops->tx_burst(ends[1], &frame, 1), 1);
  }
  ends[1]->ops->close(ends[1]);
}

static void a_sleeper_is_woken_by_the_next_arrival_and_one_too_late_to_sleep_is_told(void **state) {
  struct hy_device *ends[2];
  assert_int_equal(memory_create(&arena_a, 1, &arena_b, 2, ends), 0);
  struct pollfd p = {.fd = ends[1]->ops->wait_fd(ends[1]), .events = POLLIN};
  assert_int_equal(ends[1]->ops->wait_arm(ends[1]), 0);
  assert_int_equal(poll(&p, 1, 0), 0);
  uint32_t frame = frame_with(&arena_a, 1, 60);
  assert_int_equal(ends[0]->ops->tx_burst(ends[0], &frame, 1), 1);
  assert_int_equal(poll(&p, 1, 0), 1);
  assert_int_equal(ends[1]->ops->wait_arm(ends[1]), 1);
  assert_int_equal(ends[1]->ops->rx_burst(ends[1], &frame, 1), 1);
  frame_unref(&arena_b, frame);
  assert_int_equal(ends[1]->ops->wait_arm(ends[1]), 0);
  assert_int_equal(poll(&p, 1, 0), 0);
  ends[0]->ops->close(ends[0]);
  ends[1]->ops->close(ends[1]);
}

enum { ACROSS = 20000 };

static void *send_many(void *arg) {
  struct hy_device *dev = arg;
  for (uint32_t i = 0; i < ACROSS;) {
    uint32_t none;
    dev->ops->rx_burst(dev, &none, 0);
    if (dev->arena->free_count == 0) {
      sched_yield();
      continue;
    }
    uint32_t frame = frame_with(dev->arena, i, 60);
    if (dev->ops->tx_burst(dev, &frame, 1) == 1) {
      i++;
    } else {
      frame_unref(dev->arena, frame);
      sched_yield();
    }
  }
  return NULL;
}

static void two_threads_lose_and_reorder_nothing(void **state) {
  struct hy_device *ends[2];
  assert_int_equal(memory_create(&arena_a, 1, &arena_b, 2, ends), 0);
  pthread_t sender;
  assert_int_equal(pthread_create(&sender, NULL, send_many, ends[0]), 0);
  uint32_t next = 0;
  while (next < ACROSS) {
    uint32_t frames[DEVICE_BURST];
    unsigned n = ends[1]->ops->rx_burst(ends[1], frames, DEVICE_BURST);
    for (unsigned i = 0; i < n; i++) {
      assert_int_equal(value_in(&arena_b, frames[i]), next++);
      frame_unref(&arena_b, frames[i]);
    }
    if (n == 0)
      sched_yield();
  }
  pthread_join(sender, NULL);
  ends[0]->ops->close(ends[0]);
  ends[1]->ops->close(ends[1]);
}

/* The receiver's frames hold twice as much, so the packet is cut anew on its way. */
static void packets_of_several_frames_cross_between_arenas_of_different_frames(void **state) {
  struct hy_device *ends[2];
  arena_fini(&arena_b);
  assert_int_equal(arena_init(&arena_b, FRAMES, 4096, 0, HY_HUGEPAGES_NO), 0);
  assert_int_equal(memory_create(&arena_a, 1, &arena_b, 2, ends), 0);
  static uint8_t in[14000], out[14000];
  for (unsigned i = 0; i < sizeof in; i++)
    in[i] = (uint8_t)(i * 7 + (i >> 8));
  for (uint32_t len = 1; len < sizeof in; len += 777) {
    uint32_t sent = packet_make(&arena_a, in, len, 900 + len % 900), got;
    frame_ref(&arena_a, sent); /* the stack's */
    assert_int_equal(ends[0]->ops->tx_burst(ends[0], &sent, 1), 1);
    assert_int_equal(ends[1]->ops->rx_burst(ends[1], &got, 1), 1);
    assert_int_equal(packet_bytes(&arena_b, got), len);
    packet_copy(&arena_b, got, out);
    assert_memory_equal(in, out, len);
    packet_drop(&arena_b, got);
    assert_int_equal(ends[0]->ops->rx_burst(ends[0], &got, 1), 0);
    assert_int_equal(frame_meta(&arena_a, sent)->flags, 0);
    frame_unref(&arena_a, sent);
    assert_int_equal(arena_a.free_count, FRAMES);
  }
  ends[0]->ops->close(ends[0]);
  ends[1]->ops->close(ends[1]);
}

static void a_lane_without_room_for_all_of_a_packet_takes_none_of_it(void **state) {
  struct hy_device *ends[2];
  assert_int_equal(memory_create(&arena_a, 1, &arena_b, 2, ends), 0);
  uint8_t bytes[3000] = {0};
  unsigned taken = 0;
  uint32_t packet;
  for (;; taken++) {
    packet = packet_make(&arena_a, bytes, sizeof bytes, 1000);
    assert_true(packet != FRAME_NONE);
    if (ends[0]->ops->tx_burst(ends[0], &packet, 1) == 0)
      break;
  }
  assert_int_equal(taken, MEMORY_RING / 3);
  packet_drop(&arena_a, packet);
  ends[0]->ops->close(ends[0]);
  ends[1]->ops->close(ends[1]);
}

#define ON_ARENAS(test) cmocka_unit_test_setup_teardown(test, two_arenas, no_frame_is_missing)

int main(void) {
  const struct CMUnitTest tests[] = {
      ON_ARENAS(injected_frames_arrive_in_order_and_whole),
      ON_ARENAS(a_frame_too_long_or_one_too_many_is_refused),
      ON_ARENAS(a_sent_frame_is_the_devices_until_it_is_collected),
      ON_ARENAS(a_full_wire_takes_part_of_a_burst_and_close_gives_all_back),
      ON_ARENAS(frames_cross_from_one_arena_to_the_other_and_the_senders_come_back),
      ON_ARENAS(both_ends_may_be_on_one_arena),
      ON_ARENAS(a_full_ring_keeps_the_rest_with_the_sender),
      ON_ARENAS(what_is_under_way_from_or_to_a_closed_end_is_dropped),
      ON_ARENAS(a_sleeper_is_woken_by_the_next_arrival_and_one_too_late_to_sleep_is_told),
      ON_ARENAS(packets_of_several_frames_cross_between_arenas_of_different_frames),
      ON_ARENAS(a_lane_without_room_for_all_of_a_packet_takes_none_of_it),
      ON_ARENAS(two_threads_lose_and_reorder_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
