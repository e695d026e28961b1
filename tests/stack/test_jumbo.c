/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An MTU that no frame holds: streams and datagrams in packets of several frames, and packets whose frames
 * are cut where nobody would cut them.
 */
#include "net.h"

#include <errno.h>

#include "core/wire.h"
#include "tcp/csum.h"
#include "tcp/tcp.h"

enum { PORT = 80, MTU = 9000, BULK = 1 << 20 };

static struct net net;

static void open_net(void) {
  hy_config config;
  hy_config_default(&config);
  config.frames = 4096;
  config.sockets = config.connections = 32;
  config.tokens = 256;
  assert_int_equal(net_open(&net, 7, &config, MTU), 0);
}

static uint64_t count_of(uint32_t host, const char *name) {
  for (unsigned i = 0; i < hy_stat_count(); i++)
    if (strcmp(hy_stat_name(i), name) == 0)
      return hy_stat(net.shards[host], i);
  fail();
  return 0;
}

/* Both hosts and the wire, for a millisecond. */
static void turn(void) {
  for (int i = 0; i < 4; i++) {
    net_deliver(&net);
    net_run(&net, 0);
    net_run(&net, 1);
    net_set_time(&net, net.now + 250000);
  }
}

static hy_event until(uint32_t host, hy_qt qt) {
  hy_event event;
  for (int i = 0; i < 10000; i++) {
    turn();
    int rc = hy_wait(net.shards[host], qt, &event, 0);
    assert_true(rc >= 0);
    if (rc == 1)
      return event;
  }
  fail();
  return event;
}

static hy_qd dial(hy_qd *server) {
  hy_addr any = {.port = PORT}, there = net_addr(1, 6, PORT);
  hy_qd listener, client;
  hy_qt accepting, connecting;
  assert_int_equal(hy_socket(net.shards[1], HY_STREAM, &listener), 0);
  assert_int_equal(hy_bind(net.shards[1], listener, &any), 0);
  assert_int_equal(hy_listen(net.shards[1], listener, 4), 0);
  assert_int_equal(hy_accept(net.shards[1], listener, &accepting), 0);
  assert_int_equal(hy_socket(net.shards[0], HY_STREAM, &client), 0);
  assert_int_equal(hy_connect(net.shards[0], client, &there, &connecting), 0);
  assert_int_equal(until(0, connecting).status, 0);
  *server = until(1, accepting).accepted;
  assert_int_equal(hy_close(net.shards[1], listener), 0);
  return client;
}

static uint8_t byte_at(uint32_t at) {
  return (uint8_t)(at * 2654435761u >> 11);
}

static void a_stream_goes_in_segments_of_the_whole_mtu_and_hardly_a_byte_is_copied(void **state) {
  open_net();
  hy_qd server, client = dial(&server);
  hy_shard *from = net.shards[0], *to = net.shards[1];
  uint32_t sent = 0, received = 0;
  hy_qt pop;
  assert_int_equal(hy_pop(to, server, &pop), 0);
  while (received < BULK) {
    hy_sga sga;
    uint32_t len = sent + (uint32_t)hy_sga_max(from) < BULK ? (uint32_t)hy_sga_max(from) : BULK - sent;
    if (len > 0) {
      assert_int_equal(hy_sga_alloc(from, len, &sga), 0);
      uint32_t at = sent;
      for (uint32_t s = 0; s < sga.nsegs; s++)
        for (uint32_t i = 0; i < sga.segs[s].len_bytes; i++)
          ((uint8_t *)sga.segs[s].addr)[i] = byte_at(at++);
      if (hy_push(from, client, &sga, NULL) == 0)
        sent += len;
      else
        hy_sga_free(from, &sga);
    }
    turn();
    hy_event event;
    while (hy_wait(to, pop, &event, 0) == 1) {
      for (uint32_t s = 0; s < event.sga.nsegs; s++)
        for (uint32_t i = 0; i < event.sga.segs[s].len_bytes; i++)
          assert_int_equal(((uint8_t *)event.sga.segs[s].addr)[i], byte_at(received++));
      hy_sga_free(to, &event.sga);
      assert_int_equal(hy_pop(to, server, &pop), 0);
    }
  }
  assert_true(count_of(0, "tcp_out_chained") > BULK / MTU / 2);
  assert_true(count_of(0, "tcp_out") < 2 * BULK / MTU);
  assert_true(count_of(0, "tcp_out_copied_bytes") < BULK / 20);
  assert_int_equal(hy_abort(from, client), 0);
  assert_int_equal(hy_abort(to, server), 0);
  net_close(&net);
}

static hy_qd datagram_queue(uint32_t host) {
  hy_addr any = {.port = PORT};
  hy_qd qd;
  assert_int_equal(hy_socket(net.shards[host], HY_DGRAM, &qd), 0);
  assert_int_equal(hy_bind(net.shards[host], qd, &any), 0);
  return qd;
}

/* Sent in every way that there is: kept and given away, in full pieces and in odd ones. */
static void datagrams_of_any_length_arrive_whole(void **state) {
  open_net();
  hy_qd a = datagram_queue(0), b = datagram_queue(1);
  hy_addr there = net_addr(1, 4, PORT);
  for (uint32_t len = 1; len <= MTU - 28; len = len < 8700 ? len + 367 : len + 1) {
    hy_sga sga;
    hy_qt push, pop;
    assert_int_equal(hy_sga_alloc(net.shards[0], len, &sga), 0);
    uint32_t at = 0;
    for (uint32_t s = 0; s < sga.nsegs; s++)
      for (uint32_t i = 0; i < sga.segs[s].len_bytes; i++)
        ((uint8_t *)sga.segs[s].addr)[i] = byte_at(at++);
    bool give = len % 2;
    assert_int_equal(hy_pop(net.shards[1], b, &pop), 0);
    assert_int_equal(hy_pushto(net.shards[0], a, &sga, &there, give ? NULL : &push), 0);
    hy_event event = until(1, pop);
    assert_int_equal(event.status, 0);
    assert_int_equal(hy_sga_bytes(&event.sga), len);
    at = 0;
    for (uint32_t s = 0; s < event.sga.nsegs; s++)
      for (uint32_t i = 0; i < event.sga.segs[s].len_bytes; i++)
        assert_int_equal(((uint8_t *)event.sga.segs[s].addr)[i], byte_at(at++));
    hy_sga_free(net.shards[1], &event.sga);
    if (!give) {
      assert_int_equal(until(0, push).status, 0);
      hy_sga_free(net.shards[0], &sga);
    }
  }
  hy_sga sga;
  assert_int_equal(hy_sga_alloc(net.shards[0], MTU - 27, &sga), 0);
  assert_int_equal(hy_pushto(net.shards[0], a, &sga, &there, NULL), -EMSGSIZE);
  hy_sga_free(net.shards[0], &sga);
  assert_int_equal(hy_close(net.shards[0], a), 0);
  assert_int_equal(hy_close(net.shards[1], b), 0);
  assert_int_equal(net_check_clean(&net), 0);
  net_close(&net);
}

/* A datagram from host 1 to host 0, in frames of piece bytes, with `extra` bytes behind its end. */
static void inject(uint32_t payload, uint32_t extra, uint32_t piece) {
  uint8_t f[2048] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00};
  uint8_t *ip = f + 14, *udp = ip + 20;
  ip[0] = 0x45;
  store16(ip + 2, (uint16_t)(28 + payload));
  ip[8] = 64;
  ip[9] = PROTO_UDP;
  store32(ip + 12, 0x0a000002u);
  store32(ip + 16, 0x0a000001u);
  uint16_t sum = csum_fold(csum_add(0, ip, 20));
  memcpy(ip + 10, &sum, 2);
  store16(udp, 9);
  store16(udp + 2, PORT);
  store16(udp + 4, (uint16_t)(8 + payload));
  for (uint32_t i = 0; i < payload + extra; i++)
    udp[8 + i] = byte_at(i);
  sum = csum_fold(csum_add(csum_pseudo4(ip + 12, PROTO_UDP, 8 + payload), udp, 8 + payload));
  memcpy(udp + 6, &sum, 2);
  struct hy_device *dev = shard_device(net.shards[0], net.ports[0]);
  assert_int_equal(wire_inject_split(dev, f, 42 + payload + extra, piece), 0);
}

static void a_packet_may_be_cut_anywhere_behind_its_headers(void **state) {
  open_net();
  hy_qd qd = datagram_queue(0);
  uint64_t good = 0;
  for (uint32_t piece = 1; piece < 400; piece++) {
    hy_qt pop;
    hy_event event;
    uint64_t wrong = count_of(0, "drop_short") + count_of(0, "drop_udp_long");
    inject(211, piece % 3 * 50, piece);
    assert_int_equal(hy_pop(net.shards[0], qd, &pop), 0);
    turn();
    bool fits = piece >= 42 && (42 + 211 + piece - 1) / piece <= HY_SGA_SEGS;
    assert_int_equal(hy_wait(net.shards[0], pop, &event, 0), fits);
    assert_int_equal(count_of(0, "drop_short") + count_of(0, "drop_udp_long"), wrong + !fits);
    if (!fits) {
      assert_int_equal(hy_cancel(net.shards[0], pop), 0);
      assert_int_equal(hy_wait(net.shards[0], pop, &event, 0), 1);
      continue;
    }
    good++;
    assert_int_equal(hy_sga_bytes(&event.sga), 211);
    uint32_t at = 0;
    for (uint32_t s = 0; s < event.sga.nsegs; s++)
      for (uint32_t i = 0; i < event.sga.segs[s].len_bytes; i++)
        assert_int_equal(((uint8_t *)event.sga.segs[s].addr)[i], byte_at(at++));
    hy_sga_free(net.shards[0], &event.sga);
  }
  assert_true(good > 300);
  assert_int_equal(hy_close(net.shards[0], qd), 0);
  assert_int_equal(net_check_clean(&net), 0);
  net_close(&net);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_stream_goes_in_segments_of_the_whole_mtu_and_hardly_a_byte_is_copied),
      cmocka_unit_test(datagrams_of_any_length_arrive_whole),
      cmocka_unit_test(a_packet_may_be_cut_anywhere_behind_its_headers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
