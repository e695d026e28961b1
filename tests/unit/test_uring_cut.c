/* SPDX-License-Identifier: Apache-2.0 */
/* Merged packets cut into what their sender's network card would have sent. */
#include "check.h"
#include "tcp/csum.h"
#include "tcp/wire.h"
#include "uring/cut.h"

enum { PAYLOAD = 2500, SIZE = 1000, CWR = 0x80, IP4_TOTAL = 2, IP4_SUM = 10, FRONT = 200 };

static uint8_t packet[FRONT + PAYLOAD];

static void payload_fill(uint32_t at) {
  for (uint32_t i = 0; i < PAYLOAD; i++)
    packet[at + i] = (uint8_t)(i * 7);
}

/* The headers of a TCP packet with timestamps; their length. */
static uint32_t tcp4(uint8_t flags) {
  memset(packet, 0, sizeof packet);
  store16(packet + 12, ETH_IP4);
  packet[ETH_LEN] = 0x45;
  packet[ETH_LEN + 8] = 64;
  packet[ETH_LEN + 9] = PROTO_TCP;
  uint8_t *tcp = packet + ETH_LEN + IP4_LEN;
  store32(tcp + 4, 0xfffffc00); /* wraps within the packet */
  tcp[12] = 8 << 4;
  tcp[13] = flags;
  payload_fill(ETH_LEN + IP4_LEN + 32);
  return ETH_LEN + IP4_LEN + 32;
}

static uint32_t begin(struct cut *cut, uint8_t type, uint32_t front) {
  struct virtio_net_hdr header = {.gso_type = type, .gso_size = SIZE};
  uint32_t headers = cut_begin(cut, &header, packet, front);
  cut->payload = packet + headers;
  cut->left = PAYLOAD;
  return headers;
}

static void tcp_segments_follow_each_other_and_the_last_carries_the_end(void **state) {
  uint32_t headers = tcp4(TCP_ACK | TCP_PSH | TCP_FIN | CWR);
  struct cut cut;
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, FRONT), headers);
  assert_int_equal(cut_most(&cut), headers + SIZE);
  static const uint8_t flags[] = {TCP_ACK | CWR, TCP_ACK, TCP_ACK | TCP_PSH | TCP_FIN};
  uint32_t at = 0;
  for (int i = 0; i < 3; i++) {
    uint8_t out[2048];
    uint32_t len = cut_next(&cut, out), payload = i < 2 ? SIZE : PAYLOAD - 2 * SIZE;
    assert_int_equal(len, headers + payload);
    const uint8_t *ip = out + ETH_LEN, *tcp = ip + IP4_LEN;
    assert_int_equal(load16(ip + IP4_TOTAL), len - ETH_LEN);
    assert_int_equal(csum_fold(csum_add(0, ip, IP4_LEN)), 0);
    assert_int_equal(load32(tcp + 4), 0xfffffc00 + at);
    assert_int_equal(tcp[13], flags[i]);
    assert_memory_equal(out + headers, packet + headers + at, payload);
    at += payload;
  }
  assert_int_equal(cut.left, 0);
}

static void udp_over_ipv6_is_cut_into_datagrams(void **state) {
  memset(packet, 0, sizeof packet);
  store16(packet + 12, ETH_IP6);
  packet[ETH_LEN] = 0x60;
  packet[ETH_LEN + 6] = PROTO_UDP;
  uint32_t headers = ETH_LEN + IP6_LEN + UDP_LEN;
  payload_fill(headers);
  struct cut cut;
  assert_int_equal(begin(&cut, 5 /* VIRTIO_NET_HDR_GSO_UDP_L4 */, FRONT), headers);
  for (int i = 0; i < 3; i++) {
    uint8_t out[2048];
    uint32_t payload = i < 2 ? SIZE : PAYLOAD - 2 * SIZE;
    assert_int_equal(cut_next(&cut, out), headers + payload);
    assert_int_equal(load16(out + ETH_LEN + 4), UDP_LEN + payload);
    assert_int_equal(load16(out + ETH_LEN + IP6_LEN + 4), UDP_LEN + payload);
  }
  assert_int_equal(cut.left, 0);
}

static void what_is_no_such_packet_is_not_cut(void **state) {
  struct cut cut;
  uint32_t headers = tcp4(TCP_ACK);
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_TCPV4, headers - 1), 0); /* headers cut off */
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_TCPV4, ETH_LEN + IP4_LEN + TCP_LEN - 1), 0);
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_TCPV4, 10), 0);
  assert_int_equal(begin(&cut, 5, FRONT), 0);                      /* says UDP, is TCP */
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_UDP, FRONT), 0); /* a kind that nobody makes any more */
  packet[ETH_LEN + IP4_LEN + 12] = 4 << 4;
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_TCPV4, FRONT), 0); /* a header shorter than it can be */
  tcp4(TCP_ACK);
  packet[ETH_LEN] = 0x42;
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_TCPV4, FRONT), 0);
  tcp4(TCP_ACK);
  store16(packet + 12, ETH_VLAN);
  assert_int_equal(begin(&cut, VIRTIO_NET_HDR_GSO_TCPV4, FRONT), 0);
  tcp4(TCP_ACK);
  struct virtio_net_hdr none = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4};
  assert_int_equal(cut_begin(&cut, &none, packet, FRONT), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tcp_segments_follow_each_other_and_the_last_carries_the_end),
      cmocka_unit_test(udp_over_ipv6_is_cut_into_datagrams),
      cmocka_unit_test(what_is_no_such_packet_is_not_cut),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
