/* SPDX-License-Identifier: Apache-2.0 */
/* The Internet checksum in wide words against the definition of RFC 1071, byte by byte. */
#include "check.h"
#include "core/rng.h"
#include "tcp/csum.h"
#include "tcp/flow.h"
#include "tcp/wire.h"

/* Sixteen bits at a time in network byte order; a last odd byte is the upper half of a word. */
static uint16_t sum_by_the_book(const uint8_t *p, size_t len) {
  uint32_t sum = 0;
  for (size_t i = 0; i < len; i++)
    sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
  while (sum >> 16)
    sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

/* What would be stored, as it would be read. */
static uint16_t sum_in_words(uint64_t start, const uint8_t *p, size_t len) {
  uint16_t stored = csum_fold(csum_add(start, p, len));
  uint8_t bytes[2];
  memcpy(bytes, &stored, 2);
  return load16(bytes);
}

static void every_length_and_alignment_sums_as_the_book_says(void **state) {
  static const uint8_t seed[32] = {7};
  struct rng rng;
  uint8_t bytes[512];
  rng_init(&rng, seed);
  for (unsigned round = 0; round < 3; round++) {
    if (round == 0)
      memset(bytes, 0xff, sizeof bytes); /* every addition carries */
    else
      rng_fill(&rng, bytes, sizeof bytes);
    for (size_t at = 0; at < 9; at++)
      for (size_t len = 1; len <= 300; len++)
        assert_int_equal(sum_in_words(0, bytes + at, len), sum_by_the_book(bytes + at, len));
  }
}

static void a_sum_goes_on_from_any_start_without_losing_a_carry(void **state) {
  uint8_t bytes[8 + 160];
  memset(bytes, 0xff, 8);
  for (unsigned i = 8; i < sizeof bytes; i++)
    bytes[i] = (uint8_t)(i * 37);
  for (size_t len = 2; len <= 160; len += 2)
    assert_int_equal(sum_in_words(UINT64_MAX, bytes + 8, len), sum_by_the_book(bytes, 8 + len));
}

static void words_of_a_header_sum_as_their_bytes_do(void **state) {
  const uint32_t words[4] = {0x12345678, 0xffffffff, 0x80000001, 0xfeedf00d};
  uint8_t bytes[16];
  uint64_t sum = 0;
  for (unsigned i = 0; i < 4; i++) {
    store32(bytes + 4 * i, words[i]);
    sum += csum_word(words[i]);
  }
  assert_int_equal(sum_in_words(sum, bytes, 0), sum_by_the_book(bytes, 16));
}

static void ports_and_mapped_addresses_are_read_from_headers_in_host_order(void **state) {
  static const uint8_t header[4] = {0x12, 0x34, 0xab, 0xcd}, ip[4] = {10, 1, 2, 3};
  static const uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3};
  struct flow_key key = {0};
  flow_key_ports(&key, header);
  assert_int_equal(key.remote_port, 0x1234);
  assert_int_equal(key.local_port, 0xabcd);
  ip_map4(key.remote, ip);
  assert_memory_equal(key.remote, mapped, 16);
  assert_true(ip_is_4(key.remote));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_length_and_alignment_sums_as_the_book_says),
      cmocka_unit_test(a_sum_goes_on_from_any_start_without_losing_a_carry),
      cmocka_unit_test(words_of_a_header_sum_as_their_bytes_do),
      cmocka_unit_test(ports_and_mapped_addresses_are_read_from_headers_in_host_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
