/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and errors as text. */
#include "check.h"
#include "core/hybrid.h"

#include <errno.h>

static const struct {
  const char *text, *formatted;
  uint8_t family;
  uint16_t port;
} good[] = {
    {"10.0.0.1", "10.0.0.1", 4, 0},
    {"10.0.0.1:80", "10.0.0.1:80", 4, 80},
    {"0.0.0.0:65535", "0.0.0.0:65535", 4, 65535},
    {"255.255.255.255", "255.255.255.255", 4, 0},
    {"2001:db8::1", "2001:db8::1", 6, 0},
    {"::", "::", 6, 0},
    {"[2001:DB8:0::1]:80", "[2001:db8::1]:80", 6, 80},
    {"[::1]", "::1", 6, 0},
    {"::ffff:10.0.0.1", "10.0.0.1", 4, 0},
    {"[::ffff:10.0.0.1]:9", "10.0.0.1:9", 4, 9},
    {":80", "*:80", 0, 80},
    {"*:80", "*:80", 0, 80},
    {"*:0", "*:0", 0, 0},
    {"1111:2222:3333:4444:5555:6666:7777:8888", "1111:2222:3333:4444:5555:6666:7777:8888", 6, 0},
};

static void addresses_are_read_and_written_back_in_their_usual_form(void **state) {
  for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
    hy_addr addr;
    char text[HY_ADDR_STRLEN];
    assert_int_equal(hy_addr_parse(good[i].text, &addr), 0);
    assert_int_equal(addr.family, good[i].family);
    assert_int_equal(addr.port, good[i].port);
    assert_string_equal(hy_addr_format(&addr, text), good[i].formatted);
  }
}

static void an_ipv4_address_is_stored_mapped_and_an_unspecified_one_as_zeroes(void **state) {
  static const uint8_t want[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1};
  static const uint8_t zeroes[16];
  hy_addr addr;
  assert_int_equal(hy_addr_parse("192.0.2.1:7", &addr), 0);
  assert_memory_equal(addr.ip, want, 16);
  assert_int_equal(hy_addr_parse(":7", &addr), 0);
  assert_memory_equal(addr.ip, zeroes, 16);
}

static void what_is_no_address_is_refused_and_leaves_the_result_alone(void **state) {
  static const char *const bad[] = {
      "",
      "*",
      ":",
      "*:",
      "**:1",
      "10.0.0",
      "10.0.0.256",
      "10.0.0.1:",
      "10.0.0.1:65536",
      "10.0.0.1:-1",
      "10.0.0.1:+1",
      "10.0.0.1: 1",
      "10.0.0.1:80x",
      " 10.0.0.1",
      "10.0.0.1 ",
      "host:80",
      "2001:db8::1::2",
      "[2001:db8::1",
      "[2001:db8::1]80",
      "[]:80",
      "[10.0.0.1]:80",
      "[::1]:",
      "fe80::1%eth0",
      "*:99999999999",
      "[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee:ffff]:80",
  };
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
    hy_addr addr = {.port = 1234};
    assert_int_equal(hy_addr_parse(bad[i], &addr), -EINVAL);
    assert_int_equal(addr.port, 1234);
  }
}

static void every_documented_error_has_a_sentence_of_its_own(void **state) {
  static const int documented[] = {
      E2BIG,      EADDRINUSE, EADDRNOTAVAIL, EAGAIN,     EBADF,    ECANCELED, ECONNREFUSED,
      ECONNRESET, EINTR,      EHOSTUNREACH,  EINVAL,     EMSGSIZE, ENOENT,    ENETUNREACH,
      ENOBUFS,    ENOMEM,     ENOTCONN,      EOPNOTSUPP, EPIPE,    ETIMEDOUT,
  };
  for (unsigned i = 0; i < sizeof documented / sizeof *documented; i++) {
    const char *text = hy_strerror(-documented[i]);
    assert_non_null(text);
    assert_string_not_equal(text, strerror(documented[i]));
    assert_ptr_equal(text, hy_strerror(documented[i]));
  }
}

static void any_other_error_has_the_systems_text_or_says_that_it_is_unknown(void **state) {
  assert_string_equal(hy_strerror(-EISDIR), strerror(EISDIR));
  assert_string_equal(hy_strerror(-99999), "unknown error");
  assert_string_equal(hy_strerror(0), "no error");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(addresses_are_read_and_written_back_in_their_usual_form),
      cmocka_unit_test(an_ipv4_address_is_stored_mapped_and_an_unspecified_one_as_zeroes),
      cmocka_unit_test(what_is_no_address_is_refused_and_leaves_the_result_alone),
      cmocka_unit_test(every_documented_error_has_a_sentence_of_its_own),
      cmocka_unit_test(any_other_error_has_the_systems_text_or_says_that_it_is_unknown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
