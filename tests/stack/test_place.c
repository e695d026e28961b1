/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which transport carries a queue, what the fallback's second listener does, and
 * what becomes of connections when their device fails. Kernel sockets are played
 * by a transport that remembers what it was asked; the frames are real ones.
 */
#include "net.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tcp/tcp.h"

enum { PORT = 80, OTHER = 81 };

/* ---- kernel sockets, as far as placement sees them ---- */

struct kernel {
  struct transport transport;
  int binds, connects, listens_also, closed_also;
  int refuse;      /* what listen_also answers */
  uint32_t queued; /* connections that wait to be accepted */
  hy_shard *shard;
};

static int k_bind(void *t, struct queue *q, const hy_addr *local) {
  ((struct kernel *)t)->binds++;
  q->local = *local;
  q->bound = 1;
  return 0;
}

static int k_connect(void *t, struct queue *q, const hy_addr *peer, uint32_t token) {
  struct kernel *k = t;
  k->connects++;
  token_complete(&k->shard->tokens, token, 0, q->user);
  return 0;
}

static int k_listen_also(void *t, struct queue *q, int backlog) {
  struct kernel *k = t;
  if (k->refuse < 0)
    return k->refuse;
  k->listens_also++;
  q->also = 1;
  return 0;
}

static bool k_also_ready(void *t, const struct queue *q) {
  return ((struct kernel *)t)->queued > 0;
}

static bool k_accept_also(void *t, struct queue *q, hy_event *event) {
  struct kernel *k = t;
  if (k->queued == 0)
    return false;
  k->queued--;
  uint32_t index = queue_take(&k->shard->queues, QUEUE_CONN, &k->transport);
  k->shard->queues.slots[index].placed = 1;
  event->accepted = queue_qd(&k->shard->queues, index);
  return true;
}

static void k_close_also(void *t, struct queue *q) {
  ((struct kernel *)t)->closed_also++;
}

static void k_close(void *t, struct queue *q, bool hard) {}

static bool k_deliver(void *t, struct queue *q, const struct token *token, hy_event *event) {
  return true;
}

static const struct transport_ops kernel_ops = {
    .name = "kernel",
    .bind = k_bind,
    .connect = k_connect,
    .close = k_close,
    .deliver = k_deliver,
    .listen_also = k_listen_also,
    .also_ready = k_also_ready,
    .accept_also = k_accept_also,
    .close_also = k_close_also,
};

/* What a connection that the kernel has accepted does: one waiting accept is completed. */
static void arrives(struct kernel *k, hy_qd listener) {
  struct queue *q = queue_find(&k->shard->queues, listener);
  k->queued++;
  if (q->pops.head != TOKEN_NONE)
    token_complete(&k->shard->tokens, token_list_shift(&k->shard->tokens, &q->pops), 0, q->user);
}

/* ---- two hosts; host 0 has kernel sockets as well ---- */

struct place {
  struct net net;
  struct kernel kernel;
  hy_shard *shard;
};

static const hy_config small = {
    .struct_size = sizeof(hy_config), .frames = 1024, .sockets = 64, .connections = 32, .tokens = 256};

static struct place *opened(void) {
  static struct place p;
  memset(&p, 0, sizeof p);
  assert_int_equal(net_open(&p.net, 1, &small, 1500), 0);
  p.shard = p.net.shards[0];
  p.kernel = (struct kernel){.transport.ops = &kernel_ops, .shard = p.shard};
  assert_int_equal(shard_add_transport(p.shard, HY_BACKEND_KERNEL, &p.kernel.transport), 0);
  return &p;
}

static void rows(struct place *p, hy_placement row) {
  assert_int_equal(hy_place(p->shard, &row, 1), 0);
}

static hy_qd stream(hy_shard *shard) {
  hy_qd qd;
  assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
  return qd;
}

static hy_qd bound(hy_shard *shard, uint16_t port) {
  hy_qd qd = stream(shard);
  assert_int_equal(hy_bind(shard, qd, &(hy_addr){.port = port}), 0);
  return qd;
}

static hy_qd listening(hy_shard *shard, uint16_t port) {
  hy_qd qd = bound(shard, port);
  assert_int_equal(hy_listen(shard, qd, 16), 0);
  return qd;
}

/* Runs both hosts until nothing is under way. */
static void settle(struct net *net) {
  for (int i = 0; i < 20; i++) {
    net_run(net, 0);
    net_run(net, 1);
    net_deliver(net);
  }
}

static hy_qd connected(struct place *p, hy_qd listener, hy_qd *peer) {
  hy_addr to = net_addr(0, 4, PORT);
  hy_event event;
  hy_qt accept, connect;
  *peer = stream(p->net.shards[1]);
  assert_int_equal(hy_accept(p->shard, listener, &accept), 0);
  assert_int_equal(hy_connect(p->net.shards[1], *peer, &to, &connect), 0);
  settle(&p->net);
  assert_int_equal(hy_wait(p->net.shards[1], connect, &event, 0), 1);
  assert_int_equal(hy_wait(p->shard, accept, &event, 0), 1);
  assert_true(event.accepted >= 0);
  return event.accepted;
}

static uint64_t stat_of(hy_shard *shard, const char *name) {
  for (unsigned i = 0; i < hy_stat_count(); i++)
    if (strcmp(hy_stat_name(i), name) == 0)
      return hy_stat(shard, i);
  fail_msg("no counter %s", name);
  return 0;
}

/* ---- placement ---- */

static void without_a_table_a_shard_with_a_device_binds_to_the_bypass(void **state) {
  struct place *p = opened();
  hy_qd qd = bound(p->shard, PORT);
  assert_int_equal(hy_backend_of(p->shard, qd), HY_BACKEND_BYPASS);
  net_close(&p->net);
}

static void without_a_device_it_binds_to_the_kernel(void **state) {
  struct place *p = opened();
  shard_remove_device(p->shard, shard_device(p->shard, 0), -ENETDOWN);
  hy_qd qd = bound(p->shard, PORT);
  assert_int_equal(hy_backend_of(p->shard, qd), HY_BACKEND_KERNEL);
  assert_int_equal(p->kernel.binds, 1);
  net_close(&p->net);
}

static void the_first_row_that_covers_port_and_protocol_decides(void **state) {
  struct place *p = opened();
  const hy_placement table[] = {
      {.protocol = 17, .to = HY_BACKEND_BYPASS, .port_lo = PORT, .port_hi = PORT},
      {.protocol = 6, .to = HY_BACKEND_KERNEL, .port_lo = 1, .port_hi = PORT},
      {.protocol = 0, .to = HY_BACKEND_BYPASS, .port_lo = 0, .port_hi = 65535},
  };
  assert_int_equal(hy_place(p->shard, table, 3), 0);
  assert_int_equal(hy_backend_of(p->shard, bound(p->shard, PORT)), HY_BACKEND_KERNEL);
  assert_int_equal(hy_backend_of(p->shard, bound(p->shard, OTHER)), HY_BACKEND_BYPASS);
  net_close(&p->net);
}

static void a_row_that_makes_no_sense_is_refused_and_the_table_stays(void **state) {
  struct place *p = opened();
  rows(p, (hy_placement){.to = HY_BACKEND_KERNEL, .port_lo = PORT, .port_hi = PORT});
  const hy_placement wrong[] = {
      {.to = HY_BACKEND_AUTO, .port_hi = 1},
      {.to = HY_BACKEND_BYPASS, .protocol = 1, .port_hi = 1},
      {.to = HY_BACKEND_BYPASS, .port_lo = 2, .port_hi = 1},
      {.to = HY_BACKEND_BYPASS, .fallback = HY_BACKEND_BYPASS, .port_hi = 1},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_int_equal(hy_place(p->shard, &wrong[i], 1), -EINVAL);
  assert_int_equal(hy_place(p->shard, wrong, HY_PLACEMENTS + 1), -E2BIG);
  assert_int_equal(hy_backend_of(p->shard, bound(p->shard, PORT)), HY_BACKEND_KERNEL);
  net_close(&p->net);
}

static void a_program_can_insist_until_the_queue_is_bound(void **state) {
  struct place *p = opened();
  hy_qd qd = stream(p->shard);
  assert_int_equal(hy_backend_of(p->shard, qd), HY_BACKEND_AUTO);
  assert_int_equal(hy_set_backend(p->shard, qd, HY_BACKEND_KERNEL), 0);
  assert_int_equal(hy_bind(p->shard, qd, &(hy_addr){.port = PORT}), 0);
  assert_int_equal(hy_backend_of(p->shard, qd), HY_BACKEND_KERNEL);
  assert_int_equal(hy_set_backend(p->shard, qd, HY_BACKEND_BYPASS), -EISCONN);
  /* The other host has no kernel sockets. */
  assert_int_equal(hy_set_backend(p->net.shards[1], stream(p->net.shards[1]), HY_BACKEND_KERNEL), -ENODEV);
  assert_int_equal(hy_set_backend(p->shard, stream(p->shard), 99), -EINVAL);
  net_close(&p->net);
}

static void a_connection_leaves_by_the_bypass_only_where_a_route_and_the_replies_do(void **state) {
  struct place *p = opened();
  hy_addr peer = net_addr(1, 4, PORT), far = {.family = 4, .port = PORT};
  assert_int_equal(hy_addr_parse("192.0.2.1:80", &far), 0);
  hy_qt qt;
  hy_qd qd = stream(p->shard);
  assert_int_equal(hy_connect(p->shard, qd, &peer, &qt), 0);
  assert_int_equal(hy_backend_of(p->shard, qd), HY_BACKEND_BYPASS);
  qd = stream(p->shard);
  assert_int_equal(hy_connect(p->shard, qd, &far, &qt), 0); /* no route of ours */
  assert_int_equal(hy_backend_of(p->shard, qd), HY_BACKEND_KERNEL);
  rows(p, (hy_placement){.to = HY_BACKEND_BYPASS, .port_lo = PORT, .port_hi = PORT});
  qd = stream(p->shard);
  assert_int_equal(hy_connect(p->shard, qd, &peer, &qt), 0); /* ephemeral ports are not steered */
  assert_int_equal(hy_backend_of(p->shard, qd), HY_BACKEND_KERNEL);
  assert_int_equal(p->kernel.connects, 2);
  net_close(&p->net);
}

/* ---- the fallback's listener ---- */

static const hy_placement with_fallback = {
    .protocol = 6, .to = HY_BACKEND_BYPASS, .fallback = HY_BACKEND_KERNEL, .port_lo = PORT, .port_hi = PORT};

static void a_listener_with_a_fallback_accepts_from_both(void **state) {
  struct place *p = opened();
  rows(p, with_fallback);
  hy_qd listener = listening(p->shard, PORT), peer;
  assert_int_equal(p->kernel.listens_also, 1);
  hy_qd by_bypass = connected(p, listener, &peer);
  assert_int_equal(hy_backend_of(p->shard, by_bypass), HY_BACKEND_BYPASS);

  hy_event event;
  hy_qt qt;
  assert_int_equal(hy_accept(p->shard, listener, &qt), 0);
  assert_int_equal(hy_wait(p->shard, qt, &event, 0), 0);
  arrives(&p->kernel, listener); /* while an accept waits */
  assert_int_equal(hy_wait(p->shard, qt, &event, 0), 1);
  assert_int_equal(hy_backend_of(p->shard, event.accepted), HY_BACKEND_KERNEL);
  arrives(&p->kernel, listener); /* before one does */
  assert_int_equal(hy_accept(p->shard, listener, &qt), 0);
  assert_int_equal(hy_wait(p->shard, qt, &event, 0), 1);
  assert_int_equal(hy_backend_of(p->shard, event.accepted), HY_BACKEND_KERNEL);
  assert_int_equal(stat_of(p->shard, "fallback_accepts"), 2);

  assert_int_equal(hy_close(p->shard, listener), 0);
  assert_int_equal(p->kernel.closed_also, 1);
  net_close(&p->net);
}

static void a_port_that_somebody_has_in_the_kernel_is_refused_to_both(void **state) {
  struct place *p = opened();
  rows(p, with_fallback);
  p->kernel.refuse = -EADDRINUSE;
  hy_qd qd = bound(p->shard, PORT);
  assert_int_equal(hy_listen(p->shard, qd, 16), -EADDRINUSE);
  p->kernel.refuse = 0;
  assert_int_equal(hy_listen(p->shard, qd, 16), 0); /* nothing was left behind */
  net_close(&p->net);
}

static void a_listener_keeps_its_fallback_when_it_is_told_to_listen_again(void **state) {
  struct place *p = opened();
  rows(p, with_fallback);
  hy_qd listener = listening(p->shard, PORT);
  assert_int_equal(hy_listen(p->shard, listener, 16), -EINVAL);
  assert_int_equal(p->kernel.closed_also, 0);
  hy_event event;
  hy_qt qt;
  arrives(&p->kernel, listener);
  assert_int_equal(hy_accept(p->shard, listener, &qt), 0);
  assert_int_equal(hy_wait(p->shard, qt, &event, 0), 1);
  net_close(&p->net);
}

static void a_fallback_that_cannot_be_had_is_counted(void **state) {
  struct place *p = opened();
  hy_shard *other = p->net.shards[1]; /* has no kernel sockets */
  assert_int_equal(hy_place(other, &with_fallback, 1), 0);
  listening(other, PORT);
  assert_int_equal(stat_of(other, "fallback_unavailable"), 1);
  net_close(&p->net);
}

/* ---- devices that fail ---- */

static void connections_over_a_device_that_goes_end_with_an_error_and_listeners_stay(void **state) {
  struct place *p = opened();
  rows(p, with_fallback);
  hy_qd listener = listening(p->shard, PORT), peer;
  hy_qd conn = connected(p, listener, &peer);
  hy_qt pop, push, accept;
  hy_event event;
  hy_sga sga;
  assert_int_equal(hy_pop(p->shard, conn, &pop), 0);
  assert_int_equal(hy_sga_alloc(p->shard, 100, &sga), 0);
  assert_int_equal(hy_push(p->shard, conn, &sga, &push), 0);
  hy_sga_free(p->shard, &sga);
  assert_int_equal(hy_accept(p->shard, listener, &accept), 0);
  uint64_t received = stat_of(p->shard, "device_rx_frames");

  assert_int_equal(hy_shard_remove_device(p->shard, 9, 0), -ENODEV);
  assert_int_equal(hy_shard_remove_device(p->shard, 1, 0), 0);
  assert_int_equal(hy_wait(p->shard, pop, &event, 0), 1);
  assert_int_equal(event.status, -ENETDOWN);
  assert_int_equal(hy_wait(p->shard, push, &event, 0), 1);
  assert_int_equal(event.status, -ENETDOWN);
  assert_int_equal(stat_of(p->shard, "device_rx_frames"), received); /* counters only grow */
  arrives(&p->kernel, listener);
  assert_int_equal(hy_wait(p->shard, accept, &event, 0), 1);
  assert_int_equal(event.status, 0);

  /* It comes back, and the same listener takes connections by it again. */
  assert_int_equal(hy_wire_attach(p->shard, 1, &p->net.ports[0]), 0);
  hy_qd again = connected(p, listener, &peer);
  assert_int_equal(hy_backend_of(p->shard, again), HY_BACKEND_BYPASS);
  net_close(&p->net);
}

/* A device that has died of itself. */
struct sick {
  struct hy_device dev;
  int health;
  bool closed;
};

static unsigned sick_rx(struct hy_device *dev, uint32_t *frames, unsigned max) {
  return 0;
}
static unsigned sick_tx(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  return 0; /* full for ever: what is to be sent waits */
}
static int sick_wait(struct hy_device *dev) {
  return -1;
}
static void sick_stats(struct hy_device *dev, struct hy_device_stats *out) {}
static int sick_health(struct hy_device *dev) {
  return ((struct sick *)dev)->health;
}
static void sick_close(struct hy_device *dev) {
  ((struct sick *)dev)->closed = true;
}

static void a_device_that_reports_its_end_is_taken_out_told_and_counted(void **state) {
  static const struct hy_device_ops ops = {.name = "sick",
                                           .rx_burst = sick_rx,
                                           .tx_burst = sick_tx,
                                           .wait_arm = sick_wait,
                                           .wait_fd = sick_wait,
                                           .stats = sick_stats,
                                           .health = sick_health,
                                           .close = sick_close};
  struct place *p = opened();
  struct sick sick = {.dev = {.ops = &ops,
                              .arena = shard_arena(p->shard),
                              .ifindex = 7,
                              .queue = 3,
                              .frame_bytes_max = arena_frame_room(shard_arena(p->shard))}};
  int ends[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
  assert_int_equal(hy_shard_set_notice_fd(p->shard, ends[0]), 0);
  assert_int_equal(shard_add_device(p->shard, &sick.dev), 0);
  uint32_t waiting = frame_alloc(shard_arena(p->shard));
  link_send(&p->shard->stack, &p->shard->stack.links[sick.dev.link], waiting);

  net_set_time(&p->net, p->net.now + NS_PER_S);
  hy_poll(p->shard);
  assert_false(sick.closed);
  sick.health = -ENODEV;
  net_set_time(&p->net, p->net.now + 20 * NS_PER_MS);
  hy_poll(p->shard);
  assert_true(sick.closed);
  assert_int_equal(stat_of(p->shard, "devices_lost"), 1);
  hy_notice notice;
  assert_int_equal(recv(ends[1], &notice, sizeof notice, MSG_DONTWAIT), sizeof notice);
  assert_int_equal(notice.kind, HY_NOTICE_DEVICE_LOST);
  assert_int_equal(notice.ifindex, 7);
  assert_int_equal(notice.arg, 3);
  assert_int_equal(p->shard->arena.free_count, p->net.frames[0]); /* what waited for it as well */
  close(ends[0]);
  close(ends[1]);
  p->shard->notice_fd = -1;
  net_close(&p->net);
}

static void the_place_of_a_device_that_left_is_taken_by_the_next(void **state) {
  struct place *p = opened();
  for (int i = 0; i < 100; i++) {
    uint32_t port;
    assert_int_equal(hy_wire_attach(p->shard, 5, &port), 0);
    assert_int_equal(hy_shard_remove_device(p->shard, 5, 0), 0);
  }
  assert_int_equal(stat_of(p->shard, "devices_added"), 101);
  net_close(&p->net);
}

/* ---- frames with a driver's prefix ---- */

static void a_drivers_prefix_is_never_written_and_the_stack_works_behind_it(void **state) {
  static struct net net;
  hy_config config = small;
  config.frame_prefix_bytes = 192;
  assert_int_equal(net_open(&net, 1, &config, 1500), 0);
  struct arena *arena = &net.shards[0]->arena;
  for (uint32_t i = 0; i < arena->frames; i++)
    memset(frame_base(arena, i), 0xa5, 192);
  struct place p = {.net = net, .shard = net.shards[0]};
  hy_qd peer, listener = listening(p.shard, PORT), conn = connected(&p, listener, &peer);
  hy_sga sga;
  hy_event event;
  hy_qt qt;
  assert_int_equal(hy_sga_alloc(p.shard, hy_sga_max(p.shard), &sga), 0);
  for (uint32_t i = 0; i < sga.nsegs; i++)
    memset(sga.segs[i].addr, 'x', sga.segs[i].len_bytes);
  assert_int_equal(hy_push(p.shard, conn, &sga, &qt), 0);
  hy_sga_free(p.shard, &sga);
  for (int i = 0; i < 10; i++) {
    settle(&p.net);
    net_set_time(&p.net, p.net.now + 50 * NS_PER_MS); /* delayed ACKs */
  }
  assert_int_equal(hy_wait(p.shard, qt, &event, 0), 1);
  assert_int_equal(event.status, 0);
  for (uint32_t i = 0; i < arena->frames; i++)
    for (uint32_t at = 0; at < 192; at++)
      assert_int_equal(frame_base(arena, i)[at], 0xa5);
  net_close(&p.net);
  config.frame_prefix_bytes = 100;
  hy_shard *none;
  assert_int_equal(hy_shard_open(&config, &none), -EINVAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(without_a_table_a_shard_with_a_device_binds_to_the_bypass),
      cmocka_unit_test(without_a_device_it_binds_to_the_kernel),
      cmocka_unit_test(the_first_row_that_covers_port_and_protocol_decides),
      cmocka_unit_test(a_row_that_makes_no_sense_is_refused_and_the_table_stays),
      cmocka_unit_test(a_program_can_insist_until_the_queue_is_bound),
      cmocka_unit_test(a_connection_leaves_by_the_bypass_only_where_a_route_and_the_replies_do),
      cmocka_unit_test(a_listener_with_a_fallback_accepts_from_both),
      cmocka_unit_test(a_port_that_somebody_has_in_the_kernel_is_refused_to_both),
      cmocka_unit_test(a_listener_keeps_its_fallback_when_it_is_told_to_listen_again),
      cmocka_unit_test(a_fallback_that_cannot_be_had_is_counted),
      cmocka_unit_test(connections_over_a_device_that_goes_end_with_an_error_and_listeners_stay),
      cmocka_unit_test(a_device_that_reports_its_end_is_taken_out_told_and_counted),
      cmocka_unit_test(the_place_of_a_device_that_left_is_taken_by_the_next),
      cmocka_unit_test(a_drivers_prefix_is_never_written_and_the_stack_works_behind_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
