/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a shard: frames, references, hugepages. */
#include "check.h"
#include "core/arena.h"
#include "core/hybrid.h"

#include <errno.h>

static void every_frame_can_be_had_once_and_comes_back(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 100, 2048, 0, HY_HUGEPAGES_NO), 0);
  assert_int_equal(arena.free_count, 100);
  bool seen[100] = {false};
  for (unsigned i = 0; i < 100; i++) {
    uint32_t index = frame_alloc(&arena);
    assert_true(index < 100 && !seen[index]);
    seen[index] = true;
    assert_int_equal(frame_meta(&arena, index)->off, FRAME_HEADROOM);
    memset(frame_base(&arena, index), (int)index, arena.frame_size);
    assert_int_equal(frame_of(&arena, frame_base(&arena, index) + 2047), index);
  }
  assert_int_equal(frame_alloc(&arena), FRAME_NONE);
  for (uint32_t i = 0; i < 100; i++) {
    assert_int_equal(*frame_data(&arena, i), i);
    frame_unref(&arena, i);
  }
  assert_int_equal(arena.free_count, 100);
  arena_fini(&arena);
}

static void a_frame_is_free_when_its_last_reference_is_dropped(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 2, 4096, 0, HY_HUGEPAGES_NO), 0);
  uint32_t index = frame_alloc(&arena);
  frame_ref(&arena, index);
  frame_unref(&arena, index);
  assert_int_equal(arena.free_count, 1);
  frame_unref(&arena, index);
  assert_int_equal(arena.free_count, 2);
  assert_int_equal(frame_alloc(&arena), index);
  arena_fini(&arena);
}

static void the_region_starts_on_a_hugepage_boundary_and_says_what_it_is(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 64, 2048, 0, HY_HUGEPAGES_TRY), 0);
  assert_int_equal((uintptr_t)arena.base % (2u << 20), 0);
  assert_true(arena.hugepages <= 1);
  assert_int_equal(arena.size_bytes % (2u << 20), 0);
  arena_fini(&arena);
}

/* More than any machine has reserved: 64 TiB. */
static void hugepages_that_must_be_had_and_cannot_are_an_error(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 1u << 31, 32768, 0, HY_HUGEPAGES_MUST), -EOPNOTSUPP);
}

static void sizes_out_of_range_are_refused(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 0, 2048, 0, HY_HUGEPAGES_NO), -EINVAL);
  assert_int_equal(arena_init(&arena, 10, 3000, 0, HY_HUGEPAGES_NO), -EINVAL);
  assert_int_equal(arena_init(&arena, 10, 128, 0, HY_HUGEPAGES_NO), -EINVAL);
  assert_int_equal(arena_init(&arena, 10, 65536, 0, HY_HUGEPAGES_NO), -EINVAL);
}

static void bytes_fill(uint8_t *bytes, uint32_t len) {
  for (uint32_t i = 0; i < len; i++)
    bytes[i] = (uint8_t)(i * 31 + (i >> 8));
}

static void a_packet_is_as_many_frames_as_it_needs_and_comes_out_as_it_went_in(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 64, 2048, 0, HY_HUGEPAGES_NO), 0);
  static uint8_t in[9000], out[9000];
  bytes_fill(in, sizeof in);
  static const uint32_t pieces[] = {1856, 1000, 700, 1855};
  for (unsigned k = 0; k < 4; k++)
    for (uint32_t len = 0; len <= sizeof in; len += 563) {
      uint32_t head = packet_make(&arena, in, len, pieces[k]);
      uint32_t frames = len == 0 ? 1 : (len + pieces[k] - 1) / pieces[k];
      assert_int_equal(packet_frames(&arena, head), frames);
      assert_int_equal(packet_bytes(&arena, head), len);
      assert_int_equal(arena.free_count, 64 - frames);
      packet_copy(&arena, head, out);
      assert_memory_equal(in, out, len);
      packet_drop(&arena, head);
      assert_int_equal(arena.free_count, 64);
    }
  arena_fini(&arena);
}

static void what_is_cut_off_a_packet_is_free_again(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 64, 2048, 0, HY_HUGEPAGES_NO), 0);
  uint8_t in[5000], out[5000];
  bytes_fill(in, sizeof in);
  for (uint32_t keep = 0; keep <= sizeof in; keep += 250) {
    uint32_t head = packet_make(&arena, in, sizeof in, 1000);
    packet_cut(&arena, head, keep);
    assert_int_equal(packet_bytes(&arena, head), keep);
    assert_int_equal(packet_frames(&arena, head), keep == 0 ? 1 : (keep + 999) / 1000);
    packet_copy(&arena, head, out);
    assert_memory_equal(in, out, keep);
    packet_drop(&arena, head);
    assert_int_equal(arena.free_count, 64);
  }
  arena_fini(&arena);
}

static void a_packet_for_which_there_are_too_few_frames_takes_none(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 4, 2048, 0, HY_HUGEPAGES_NO), 0);
  uint8_t in[5000] = {0};
  assert_int_equal(packet_make(&arena, in, 5000, 1000), FRAME_NONE);
  assert_int_equal(arena.free_count, 4);
  arena_fini(&arena);
}

/* A frame of it that somebody else holds as well is only let go of, and forgets that it was part of a packet.
 */
static void a_dropped_packet_leaves_what_others_hold(void **state) {
  struct arena arena;
  assert_int_equal(arena_init(&arena, 8, 2048, 0, HY_HUGEPAGES_NO), 0);
  uint8_t in[3000] = {0};
  uint32_t head = packet_make(&arena, in, sizeof in, 1000), second = frame_meta(&arena, head)->more;
  frame_ref(&arena, second);
  frame_meta(&arena, second)->flags |= FRAME_IN_DEVICE;
  packet_drop(&arena, head);
  assert_int_equal(arena.free_count, 7);
  assert_int_equal(frame_meta(&arena, second)->refs, 1);
  assert_int_equal(frame_meta(&arena, second)->flags, 0);
  frame_unref(&arena, second);
  arena_fini(&arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_frame_can_be_had_once_and_comes_back),
      cmocka_unit_test(a_frame_is_free_when_its_last_reference_is_dropped),
      cmocka_unit_test(the_region_starts_on_a_hugepage_boundary_and_says_what_it_is),
      cmocka_unit_test(hugepages_that_must_be_had_and_cannot_are_an_error),
      cmocka_unit_test(sizes_out_of_range_are_refused),
      cmocka_unit_test(a_packet_is_as_many_frames_as_it_needs_and_comes_out_as_it_went_in),
      cmocka_unit_test(what_is_cut_off_a_packet_is_free_again),
      cmocka_unit_test(a_packet_for_which_there_are_too_few_frames_takes_none),
      cmocka_unit_test(a_dropped_packet_leaves_what_others_hold),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
