/* SPDX-License-Identifier: Apache-2.0 */
/* The generator and the hashes against the vectors of their specifications. */
#include "check.h"
#include "core/rng.h"

static void chacha20_gives_the_block_of_rfc_8439_section_2_3_2(void **state) {
  static const uint8_t nonce[12] = {0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0};
  static const uint8_t want[64] = {
      0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3, 0x20, 0x71, 0xc4,
      0xc7, 0xd1, 0xf4, 0xc7, 0x33, 0xc0, 0x68, 0x03, 0x04, 0x22, 0xaa, 0x9a, 0xc3, 0xd4, 0x6c, 0x4e,
      0xd2, 0x82, 0x64, 0x46, 0x07, 0x9f, 0xaa, 0x09, 0x14, 0xc2, 0xd7, 0x05, 0xd9, 0x8b, 0x02, 0xa2,
      0xb5, 0x12, 0x9c, 0xd1, 0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e,
  };
  uint8_t key[32], out[64];
  for (unsigned i = 0; i < 32; i++)
    key[i] = (uint8_t)i;
  chacha20_block(key, 1, nonce, out);
  assert_memory_equal(out, want, sizeof want);
}

/* Appendix A of the paper, and two lengths from the authors' vectors. */
static void siphash24_gives_the_values_of_the_paper(void **state) {
  uint8_t key[16], data[16];
  for (unsigned i = 0; i < 16; i++)
    key[i] = data[i] = (uint8_t)i;
  assert_true(siphash24(key, data, 15) == 0xa129ca6149be45e5u);
  assert_true(siphash24(key, data, 0) == 0x726fdb47dd0e0e31u);
  assert_true(siphash24(key, data, 1) == 0x74f839c593dc67fdu);
}

/* Key 0..15, bytes 0..39, from an implementation that gives the paper's values for 2-4. */
static void flow_hash_is_siphash_1_3_of_forty_bytes(void **state) {
  uint64_t key[2], words[5];
  for (unsigned i = 0; i < 16; i++)
    ((uint8_t *)key)[i] = (uint8_t)i;
  for (unsigned i = 0; i < 40; i++)
    ((uint8_t *)words)[i] = (uint8_t)i;
  assert_true(flow_siphash(key, words) == 0xc1d2363299e41531u);
}

static void every_bit_of_flow_and_key_changes_about_half_of_the_hash(void **state) {
  struct dice dice = {1};
  for (unsigned bit = 0; bit < 7 * 64; bit++) {
    unsigned changed = 0;
    for (unsigned round = 0; round < 64; round++) {
      uint64_t in[7]; /* key, then words */
      for (unsigned i = 0; i < 7; i++)
        in[i] = dice_u64(&dice);
      uint64_t before = flow_siphash(in, in + 2);
      in[bit / 64] ^= 1ull << (bit % 64);
      changed += (unsigned)__builtin_popcountll(before ^ flow_siphash(in, in + 2));
    }
    assert_in_range(changed, 64 * 28, 64 * 36);
  }
}

/* Flows as a busy server sees them: ports and addresses that count up. 2^14 of them in 2^14 slots leave
 * about 1 - 1/e of the slots used if the hash is as good as chance. */
static void flow_hash_spreads_neighbouring_flows_over_low_and_high_bits(void **state) {
  enum { FLOWS = 1 << 14 };
  static uint8_t low[FLOWS], high[FLOWS];
  struct dice dice = {2};
  for (unsigned round = 0; round < 20; round++) {
    uint64_t key[6];
    for (unsigned i = 0; i < 6; i++)
      key[i] = dice_u64(&dice);
    memset(low, 0, sizeof low);
    memset(high, 0, sizeof high);
    for (uint64_t flow = 0; flow < FLOWS; flow++) {
      uint64_t words[5] = {0, 0x0a00000affff0000u, 0, 0x0a00000bffff0000u, 6379};
      if (round % 2)
        words[4] |= (32768 + flow) << 16; /* the port in host order */
      else
        words[3] += (flow & 0xff) << 56 | (flow >> 8) << 48; /* the address in network order */
      uint64_t hash = flow_hash(key, words);
      low[hash % FLOWS] = 1;
      high[hash >> 50] = 1;
    }
    unsigned used_low = 0, used_high = 0;
    for (unsigned slot = 0; slot < FLOWS; slot++) {
      used_low += low[slot];
      used_high += high[slot];
    }
    assert_in_range(used_low, FLOWS * 55 / 100, FLOWS);
    assert_in_range(used_high, FLOWS * 55 / 100, FLOWS);
  }
}

static void flow_hash_depends_on_every_bit_of_the_flow(void **state) {
  struct dice dice = {3};
  uint64_t key[6];
  for (unsigned i = 0; i < 6; i++)
    key[i] = dice_u64(&dice);
  for (unsigned bit = 0; bit < 5 * 64; bit++) {
    uint64_t words[5] = {0};
    uint64_t before = flow_hash(key, words);
    words[bit / 64] ^= 1ull << (bit % 64);
    assert_true(flow_hash(key, words) != before);
  }
}

static void one_seed_gives_one_sequence_however_it_is_read(void **state) {
  uint8_t seed[32] = {1, 2, 3};
  uint8_t whole[3000], pieces[3000];
  struct rng a, b;
  rng_init(&a, seed);
  rng_init(&b, seed);
  rng_fill(&a, whole, sizeof whole);
  size_t at = 0;
  for (size_t n = 1; at < sizeof pieces; at += n, n = n * 3 % 701)
    rng_fill(&b, pieces + at, n = n < sizeof pieces - at ? n : sizeof pieces - at);
  assert_memory_equal(whole, pieces, sizeof whole);

  seed[31] ^= 1;
  rng_init(&b, seed);
  rng_fill(&b, pieces, sizeof pieces);
  assert_memory_not_equal(whole, pieces, 32);
}

static void what_was_handed_out_is_no_longer_in_the_state(void **state) {
  uint8_t seed[32] = {7}, out[16];
  struct rng r;
  rng_init(&r, seed);
  rng_fill(&r, out, sizeof out);
  assert_null(memmem(&r, sizeof r, out, sizeof out));
  assert_memory_not_equal(r.key, seed, sizeof seed);
}

static void below_stays_below_and_is_even(void **state) {
  uint8_t seed[32] = {9};
  struct rng r;
  rng_init(&r, seed);
  unsigned count[3] = {0};
  for (unsigned i = 0; i < 30000; i++)
    count[rng_below(&r, 3)]++;
  for (unsigned i = 0; i < 3; i++)
    assert_in_range(count[i], 9500, 10500);
  assert_int_equal(rng_below(&r, 1), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(chacha20_gives_the_block_of_rfc_8439_section_2_3_2),
      cmocka_unit_test(siphash24_gives_the_values_of_the_paper),
      cmocka_unit_test(flow_hash_is_siphash_1_3_of_forty_bytes),
      cmocka_unit_test(every_bit_of_flow_and_key_changes_about_half_of_the_hash),
      cmocka_unit_test(flow_hash_spreads_neighbouring_flows_over_low_and_high_bits),
      cmocka_unit_test(flow_hash_depends_on_every_bit_of_the_flow),
      cmocka_unit_test(one_seed_gives_one_sequence_however_it_is_read),
      cmocka_unit_test(what_was_handed_out_is_no_longer_in_the_state),
      cmocka_unit_test(below_stays_below_and_is_even),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
