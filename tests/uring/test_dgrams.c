/* SPDX-License-Identifier: Apache-2.0 */
/* UDP on kernel sockets by io_uring, against plain sockets. */
#include "peer.h"

static hy_qd bound(hy_shard *shard, const char *at, hy_addr *local) {
  hy_qd qd;
  hy_addr addr;
  assert_int_equal(hy_addr_parse(at, &addr), 0);
  assert_int_equal(hy_socket(shard, HY_DGRAM, &qd), 0);
  assert_int_equal(hy_bind(shard, qd, &addr), 0);
  assert_int_equal(hy_local(shard, qd, local), 0);
  return qd;
}

static int plain_dgram(int family, uint16_t *port) {
  int fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval patience = {.tv_sec = 10};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (family == 4) {
    socklen_t len = sizeof in;
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    *port = ntohs(in.sin_port);
  } else {
    socklen_t len = sizeof in6;
    assert_int_equal(bind(fd, (struct sockaddr *)&in6, sizeof in6), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in6, &len), 0);
    *port = ntohs(in6.sin6_port);
  }
  return fd;
}

static void plain_sendto(int fd, int family, uint16_t port, const void *bytes, size_t len) {
  struct sockaddr_in in = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 in6 = {
      .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  const void *to = family == 4 ? (void *)&in : (void *)&in6;
  assert_int_equal(sendto(fd, bytes, len, 0, to, family == 4 ? sizeof in : sizeof in6), (ssize_t)len);
}

static int push_to(hy_shard *shard, hy_qd qd, const hy_addr *peer, size_t bytes, uint8_t value) {
  hy_sga sga;
  hy_qt qt;
  assert_int_equal(hy_sga_alloc(shard, bytes, &sga), 0);
  for (uint32_t i = 0; i < sga.nsegs; i++)
    memset(sga.segs[i].addr, value, sga.segs[i].len_bytes);
  int rc = peer ? hy_pushto(shard, qd, &sga, peer, &qt) : hy_push(shard, qd, &sga, &qt);
  hy_sga_free(shard, &sga);
  return rc < 0 ? rc : finish(shard, qt);
}

static void a_datagram_comes_with_its_sender_and_is_answered(const char *at, int family) {
  hy_shard *shard = shard_plain();
  hy_addr local;
  uint16_t port;
  hy_qd qd = bound(shard, at, &local);
  int plain = plain_dgram(family, &port);
  plain_sendto(plain, family, local.port, "question", 8);
  hy_event event = pop(shard, qd);
  assert_int_equal(event.status, 0);
  assert_int_equal(hy_sga_bytes(&event.sga), 8);
  assert_memory_equal(event.sga.segs[0].addr, "question", 8);
  hy_addr sender = loopback(family, port);
  assert_memory_equal(&event.addr, &sender, sizeof sender);
  hy_qt qt;
  assert_int_equal(hy_pushto(shard, qd, &event.sga, &event.addr, &qt), 0); /* as it lies */
  hy_sga_free(shard, &event.sga);
  assert_int_equal(finish(shard, qt), 0);
  char bytes[64];
  assert_int_equal(recv(plain, bytes, sizeof bytes, 0), 8);
  assert_memory_equal(bytes, "question", 8);
  close(plain);
  hy_shard_close(shard);
}

static void datagrams_of_both_families_come_with_their_sender(void **state) {
  a_datagram_comes_with_its_sender_and_is_answered("127.0.0.1:0", 4);
  a_datagram_comes_with_its_sender_and_is_answered("[::1]:0", 6);
  a_datagram_comes_with_its_sender_and_is_answered(":0", 4);
  a_datagram_comes_with_its_sender_and_is_answered(":0", 6);
}

static void datagrams_keep_their_borders_and_their_order(void **state) {
  hy_shard *shard = shard_plain();
  hy_addr local;
  uint16_t port;
  hy_qd qd = bound(shard, "127.0.0.1:0", &local);
  int plain = plain_dgram(4, &port);
  hy_addr peer = loopback(4, port);
  uint8_t bytes[2048];
  for (size_t i = 1; i <= 1400; i += 7) {
    memset(bytes, (int)i & 255, i);
    plain_sendto(plain, 4, local.port, bytes, i);
    hy_event event = pop(shard, qd);
    assert_int_equal(event.sga.nsegs, 1);
    assert_int_equal(event.sga.segs[0].len_bytes, i);
    assert_memory_equal(event.sga.segs[0].addr, bytes, i);
    hy_sga_free(shard, &event.sga);
    assert_int_equal(push_to(shard, qd, &peer, i, (uint8_t)i), 0);
    assert_int_equal(recv(plain, bytes, sizeof bytes, 0), (ssize_t)i);
    assert_int_equal(bytes[i - 1], i & 255);
  }
  for (uint8_t i = 0; i < 100; i++)
    plain_sendto(plain, 4, local.port, &i, 1);
  for (uint8_t i = 0; i < 100; i++) {
    hy_event event = pop(shard, qd);
    assert_int_equal(*(uint8_t *)event.sga.segs[0].addr, i);
    hy_sga_free(shard, &event.sga);
  }
  plain_sendto(plain, 4, local.port, bytes, 0);
  hy_event event = pop(shard, qd);
  assert_int_equal(event.status, 0);
  assert_int_equal(hy_sga_bytes(&event.sga), 0);
  hy_sga_free(shard, &event.sga);
  close(plain);
  hy_shard_close(shard);
}

static void a_datagram_that_fits_no_frame_is_dropped_and_counted(void **state) {
  hy_shard *shard = shard_plain();
  hy_addr local;
  uint16_t port;
  hy_qd qd = bound(shard, "127.0.0.1:0", &local);
  int plain = plain_dgram(4, &port);
  static uint8_t bytes[9000];
  plain_sendto(plain, 4, local.port, bytes, sizeof bytes);
  plain_sendto(plain, 4, local.port, "short", 5);
  hy_event event = pop(shard, qd);
  assert_int_equal(hy_sga_bytes(&event.sga), 5);
  assert_int_equal(counter(shard, "kernel_drop_long"), 1);
  hy_sga_free(shard, &event.sga);
  close(plain);
  hy_shard_close(shard);
}

static void a_connected_socket_has_a_peer_and_hears_nobody_else(void **state) {
  hy_shard *shard = shard_plain();
  hy_addr local, peer;
  uint16_t port, other_port;
  hy_qd qd = bound(shard, "127.0.0.1:0", &local);
  int plain = plain_dgram(4, &port), other = plain_dgram(4, &other_port);
  hy_qt qt;
  assert_int_equal(push_to(shard, qd, NULL, 1, 0), -EDESTADDRREQ);
  peer = loopback(4, port);
  assert_int_equal(hy_connect(shard, qd, &peer, &qt), 0);
  assert_int_equal(finish(shard, qt), 0);
  assert_int_equal(push_to(shard, qd, NULL, 3, 7), 0);
  char bytes[16];
  assert_int_equal(recv(plain, bytes, sizeof bytes, 0), 3);
  plain_sendto(other, 4, local.port, "no", 2);
  plain_sendto(plain, 4, local.port, "yes", 3);
  hy_event event = pop(shard, qd);
  assert_int_equal(hy_sga_bytes(&event.sga), 3);
  hy_sga_free(shard, &event.sga);
  hy_addr got;
  assert_int_equal(hy_peer(shard, qd, &got), 0);
  assert_memory_equal(&got, &peer, sizeof got);
  close(plain);
  close(other);
  hy_shard_close(shard);
}

static void an_unbound_socket_is_bound_by_its_first_datagram(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  int plain = plain_dgram(6, &port);
  hy_addr peer = loopback(6, port), local;
  hy_qd qd;
  assert_int_equal(hy_socket(shard, HY_DGRAM, &qd), 0);
  assert_int_equal(hy_local(shard, qd, &local), -ENOTCONN);
  assert_int_equal(push_to(shard, qd, &peer, 4, 1), 0);
  assert_int_equal(hy_local(shard, qd, &local), 0);
  char bytes[16];
  assert_int_equal(recv(plain, bytes, sizeof bytes, 0), 4);
  close(plain);
  hy_shard_close(shard);
}

static void a_port_is_free_at_once_when_its_socket_is_closed(void **state) {
  hy_shard *shard = shard_plain();
  hy_addr local, again;
  hy_qd qd = bound(shard, "127.0.0.1:0", &local);
  hy_qd rival;
  assert_int_equal(hy_socket(shard, HY_DGRAM, &rival), 0);
  assert_int_equal(hy_bind(shard, rival, &local), -EADDRINUSE);
  for (int i = 0; i < 20; i++) {
    hy_qt qt;
    assert_int_equal(hy_pop(shard, qd, &qt), 0);
    hy_poll(shard);
    assert_int_equal(hy_close(shard, qd), 0);
    assert_int_equal(finish(shard, qt), -ECANCELED);
    assert_int_equal(hy_socket(shard, HY_DGRAM, &qd), 0);
    assert_int_equal(hy_bind(shard, qd, &local), 0);
    assert_int_equal(hy_local(shard, qd, &again), 0);
    assert_int_equal(again.port, local.port);
  }
  hy_shard_close(shard);
}

static void datagrams_that_nobody_reads_wait_in_bounds(void **state) {
  hy_shard *shard = shard_plain();
  hy_addr local;
  uint16_t port;
  hy_qd qd = bound(shard, "127.0.0.1:0", &local);
  int plain = plain_dgram(4, &port);
  for (int i = 0; i < 2000; i++) {
    plain_sendto(plain, 4, local.port, "x", 1);
    if (i % 16 == 0)
      hy_poll(shard);
  }
  for (int i = 0; i < 10; i++)
    hy_poll(shard);
  assert_in_range(counter(shard, "kernel_datagrams_in"), 256, 600);
  assert_int_equal(counter(shard, "kernel_paused"), 1);
  for (int i = 0; i < 300; i++) {
    hy_event event = pop(shard, qd);
    assert_int_equal(hy_sga_bytes(&event.sga), 1);
    hy_sga_free(shard, &event.sga);
  }
  close(plain);
  hy_shard_close(shard);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(datagrams_of_both_families_come_with_their_sender),
      cmocka_unit_test(datagrams_keep_their_borders_and_their_order),
      cmocka_unit_test(a_datagram_that_fits_no_frame_is_dropped_and_counted),
      cmocka_unit_test(a_connected_socket_has_a_peer_and_hears_nobody_else),
      cmocka_unit_test(an_unbound_socket_is_bound_by_its_first_datagram),
      cmocka_unit_test(a_port_is_free_at_once_when_its_socket_is_closed),
      cmocka_unit_test(datagrams_that_nobody_reads_wait_in_bounds),
  };
  choose_tests();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
