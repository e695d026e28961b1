/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer who means harm, or a limit that is hit, can do: to the peer's own
 * connection at most. Segments are made by hand and given to host 0 as host 1's.
 */
#include "net.h"

#include <errno.h>

#include "tcp/csum.h"
#include "tcp/tcp.h"

enum { PORT = 80 };

struct craft {
  uint16_t sport;
  uint32_t seq, ack, len;
  uint8_t flags;
  bool closed; /* window 0; else 65535 */
};

static const hy_config small = {
    .struct_size = sizeof(hy_config), .frames = 1024, .sockets = 64, .connections = 32, .tokens = 256};

static void inject(struct net *net, struct craft it) {
  uint8_t frame[1600] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00};
  uint8_t *ip = frame + 14, *tcp = ip + 20;
  ip[0] = 0x45;
  store16(ip + 2, (uint16_t)(40 + it.len));
  ip[8] = 64;
  ip[9] = 6;
  store32(ip + 12, 0x0a000002u);
  store32(ip + 16, 0x0a000001u);
  uint16_t sum = csum_fold(csum_add(0, ip, 20));
  memcpy(ip + 10, &sum, 2);
  store16(tcp, it.sport);
  store16(tcp + 2, PORT);
  store32(tcp + 4, it.seq);
  store32(tcp + 8, it.ack);
  tcp[12] = 5 << 4;
  tcp[13] = it.flags;
  store16(tcp + 14, it.closed ? 0 : 65535);
  memset(tcp + 20, 'x', it.len);
  sum = csum_fold(csum_add(csum_pseudo4(ip + 12, PROTO_TCP, 20 + it.len), tcp, 20 + it.len));
  memcpy(tcp + 16, &sum, 2);
  assert_int_equal(hy_wire_inject(net->shards[0], net->ports[0], frame, 54 + it.len), 0);
}

/* Lets host 0 run; the last TCP header that it sent, or false. */
static bool answer(struct net *net, uint8_t tcp[20]) {
  uint8_t frame[NET_FRAME_BYTES];
  bool any = false;
  for (int i = 0; i < 3; i++) {
    hy_poll(net->shards[0]);
    while (hy_wire_collect(net->shards[0], net->ports[0], frame, sizeof frame) > 0) {
      memcpy(tcp, frame + 34, 20);
      any = true;
    }
  }
  return any;
}

static void pass(struct net *net, uint64_t ns) {
  uint8_t ignored[20];
  net_set_time(net, net->now + ns);
  answer(net, ignored);
}

/* Opens a connection from a port of host 1; what its next segment acknowledges. */
static uint32_t opened(struct net *net, uint16_t sport) {
  uint8_t tcp[20];
  inject(net, (struct craft){.sport = sport, .seq = 999, .flags = TCP_SYN});
  assert_true(answer(net, tcp));
  assert_int_equal(tcp[13], TCP_SYN | TCP_ACK);
  uint32_t ack = load32(tcp + 4) + 1;
  inject(net, (struct craft){.sport = sport, .seq = 1000, .ack = ack, .flags = TCP_ACK});
  answer(net, tcp);
  return ack;
}

static hy_qd listening(struct net *net, int backlog) {
  hy_addr any = {.port = PORT};
  hy_qd qd;
  assert_int_equal(hy_socket(net->shards[0], HY_STREAM, &qd), 0);
  assert_int_equal(hy_bind(net->shards[0], qd, &any), 0);
  assert_int_equal(hy_listen(net->shards[0], qd, backlog), 0);
  return qd;
}

static hy_qd accepted(struct net *net, hy_qd listener) {
  hy_event event;
  hy_qt qt;
  assert_int_equal(hy_accept(net->shards[0], listener, &qt), 0);
  assert_int_equal(hy_wait(net->shards[0], qt, &event, 0), 1);
  assert_int_equal(event.status, 0);
  return event.accepted;
}

static struct net *opened_net(const hy_config *config) {
  static struct net net;
  assert_int_equal(net_open(&net, 1, config, 1500), 0);
  return &net;
}

static void data_ahead_of_gaps_never_takes_the_memory_that_answers_need(void **state) {
  (void)state;
  struct net *net = opened_net(&small);
  hy_shard *shard = net->shards[0];
  hy_qd listener = listening(net, 32);
  for (uint16_t i = 0; i < 16; i++) {
    uint32_t ack = opened(net, (uint16_t)(4000 + i));
    accepted(net, listener);
    for (uint32_t at = 1; at < 60; at++) { /* never the first byte; too large to be merged */
      uint8_t ignored[20];
      inject(net, (struct craft){.sport = (uint16_t)(4000 + i),
                                 .seq = 1000 + at * 600,
                                 .ack = ack,
                                 .len = 600,
                                 .flags = TCP_ACK});
      answer(net, ignored);
    }
  }
  hy_sga sga;
  assert_int_equal(hy_sga_alloc(shard, hy_sga_max(shard), &sga), 0);
  hy_sga_free(shard, &sga);
  net_close(net);
}

static void half_open_connections_make_room_also_where_the_table_is_shorter_than_the_backlog(void **state) {
  (void)state;
  struct net *net = opened_net(&small);
  hy_qd listener = listening(net, 1000);
  uint8_t ignored[20];
  for (uint16_t i = 0; i < 100; i++) { /* nobody answers these SYN-ACKs */
    inject(net, (struct craft){.sport = (uint16_t)(100 + i), .seq = 1, .flags = TCP_SYN});
    answer(net, ignored);
  }
  opened(net, 5000);
  accepted(net, listener);
  net_close(net);
}

static void a_closed_connection_is_not_kept_for_ever_by_a_closed_window(void **state) {
  (void)state;
  struct net *net = opened_net(&small);
  hy_shard *shard = net->shards[0];
  hy_qd listener = listening(net, 8);
  uint32_t ack = opened(net, 4000);
  hy_qd qd = accepted(net, listener);
  hy_sga sga;
  inject(net,
         (struct craft){.sport = 4000, .seq = 1000, .ack = ack, .len = 1, .flags = TCP_ACK, .closed = true});
  uint8_t ignored[20];
  answer(net, ignored);
  hy_event event;
  hy_qt qt;
  assert_int_equal(hy_pop(shard, qd, &qt), 0);
  assert_int_equal(hy_wait(shard, qt, &event, 0), 1);
  hy_sga_free(shard, &event.sga);
  assert_int_equal(hy_sga_alloc(shard, 3000, &sga), 0);
  assert_int_equal(hy_push(shard, qd, &sga, NULL), 0);
  assert_int_equal(hy_close(shard, qd), 0);
  for (int s = 0; s < 3600 && shard->stack.conns_used > 0; s++) { /* says once a second: no room */
    uint8_t tcp[20];
    pass(net, NS_PER_S);
    inject(net, (struct craft){.sport = 4000, .seq = 1001, .ack = ack, .flags = TCP_ACK, .closed = true});
    answer(net, tcp);
  }
  assert_int_equal(shard->stack.conns_used, 0);
  assert_int_equal(shard->arena.free_count, net->frames[0]);
  net_close(net);
}

static void a_clock_that_stood_still_for_an_hour_leaves_a_sane_round_trip_time(void **state) {
  (void)state;
  struct net *net = opened_net(&small);
  hy_shard *shard = net->shards[0];
  hy_qd listener = listening(net, 8);
  uint32_t ack = opened(net, 4000);
  hy_qd qd = accepted(net, listener);
  hy_sga sga;
  uint8_t tcp[20];
  assert_int_equal(hy_sga_alloc(shard, 100, &sga), 0);
  assert_int_equal(hy_push(shard, qd, &sga, NULL), 0);
  answer(net, tcp);
  inject(net, (struct craft){.sport = 4000, .seq = 1000, .ack = ack + 100, .flags = TCP_ACK});
  net_set_time(net, net->now + 3600 * NS_PER_S);
  answer(net, tcp);
  const struct tcp_conn *c = NULL;
  for (uint32_t i = 0; i < shard->stack.nconns; i++)
    if (shard->stack.conns[i].state == TCP_ESTABLISHED)
      c = &shard->stack.conns[i];
  assert_non_null(c);
  assert_in_range(c->srtt_us / 8, TCP_RTO_MIN_NS / NS_PER_US, TCP_RTO_MAX_NS / NS_PER_US);
  net_close(net);
}

static void a_datagram_may_be_changed_once_its_push_has_completed(void **state) {
  (void)state;
  struct net *net = opened_net(&small);
  hy_shard *shard = net->shards[0];
  hy_addr to = net_addr(1, 4, 53);
  hy_event event;
  hy_sga sga;
  hy_qd qd;
  hy_qt qt;
  uint8_t frame[NET_FRAME_BYTES];
  assert_int_equal(hy_socket(shard, HY_DGRAM, &qd), 0);
  assert_int_equal(hy_sga_alloc(shard, 100, &sga), 0);
  memset(sga.segs[0].addr, 'a', 100);
  assert_int_equal(hy_pushto(shard, qd, &sga, &to, &qt), 0);
  while (hy_wait(shard, qt, &event, 0) == 0)
    if (hy_wire_collect(shard, net->ports[0], frame, sizeof frame) > 0) {
      assert_int_equal(frame[42], 'a');
      goto done; /* the device has sent it before the push was complete: as promised */
    }
  memset(sga.segs[0].addr, 'b', 100);
  hy_poll(shard);
  assert_true(hy_wire_collect(shard, net->ports[0], frame, sizeof frame) == 142);
  assert_int_equal(frame[42], 'a');
done:
  hy_sga_free(shard, &sga);
  assert_int_equal(hy_close(shard, qd), 0);
  net_close(net);
}

static void a_small_allowance_of_frames_still_lets_data_through(void **state) {
  (void)state;
  hy_config config = small;
  config.app_frames_max = 2;
  struct net *net = opened_net(&config);
  hy_shard *shard = net->shards[0];
  hy_qd listener = listening(net, 8);
  uint32_t ack = opened(net, 4000);
  hy_qd qd = accepted(net, listener);
  hy_event event;
  hy_qt qt;
  uint8_t tcp[20];
  for (uint32_t i = 0; i < 4; i++)
    inject(net,
           (struct craft){.sport = 4000, .seq = 1000 + i * 600, .ack = ack, .len = 600, .flags = TCP_ACK});
  answer(net, tcp);
  for (uint32_t i = 0; i < 2; i++) {
    assert_int_equal(hy_pop(shard, qd, &qt), 0);
    assert_int_equal(hy_wait(shard, qt, &event, 0), 1);
    assert_int_equal(event.status, 0);
    assert_int_equal(event.sga.nsegs, 2);
    hy_sga_free(shard, &event.sga);
  }
  net_close(net);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(data_ahead_of_gaps_never_takes_the_memory_that_answers_need),
      cmocka_unit_test(half_open_connections_make_room_also_where_the_table_is_shorter_than_the_backlog),
      cmocka_unit_test(a_closed_connection_is_not_kept_for_ever_by_a_closed_window),
      cmocka_unit_test(a_clock_that_stood_still_for_an_hour_leaves_a_sane_round_trip_time),
      cmocka_unit_test(a_datagram_may_be_changed_once_its_push_has_completed),
      cmocka_unit_test(a_small_allowance_of_frames_still_lets_data_through),
  };
  choose_tests();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
