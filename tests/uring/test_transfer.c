/* SPDX-License-Identifier: Apache-2.0 */
/* Much data and many connections on kernel sockets: every byte arrives, in order, and every frame comes back.
 */
#include <pthread.h>

#include "peer.h"

/* ---- an echo server on the shard, and clients in a thread of their own ------------------ */

struct client {
  uint16_t port;
  size_t bytes;
  uint64_t seed;
  bool equal;
  bool done; /* the reader's last word */
  pthread_t reader, writer;
  int fd;
};

static void fill(struct dice *d, uint64_t *out, size_t words) {
  for (size_t i = 0; i < words; i++)
    out[i] = dice_u64(d);
}

static void *write_all(void *of) {
  struct client *c = of;
  struct dice d = {c->seed};
  static _Thread_local uint64_t block[4096];
  for (size_t left = c->bytes; left > 0;) {
    size_t n = left < sizeof block ? left : sizeof block;
    fill(&d, block, (n + 7) / 8);
    for (size_t sent = 0; sent < n;) {
      ssize_t rc = send(c->fd, (char *)block + sent, n - sent, MSG_NOSIGNAL);
      if (rc <= 0)
        return NULL;
      sent += (size_t)rc;
    }
    left -= n;
  }
  shutdown(c->fd, SHUT_WR);
  return NULL;
}

static void read_and_compare(struct client *c) {
  struct dice d = {c->seed};
  static _Thread_local uint64_t block[4096], expected[4096];
  for (size_t left = c->bytes; left > 0;) {
    size_t n = left < sizeof block ? left : sizeof block;
    fill(&d, expected, (n + 7) / 8);
    for (size_t got = 0; got < n;) {
      ssize_t rc = recv(c->fd, (char *)block + got, n - got, 0);
      if (rc <= 0)
        return;
      got += (size_t)rc;
    }
    if (memcmp(block, expected, n) != 0)
      return;
    left -= n;
  }
  char more;
  c->equal = recv(c->fd, &more, 1, 0) == 0; /* and nothing behind it */
}

static void *read_all(void *of) {
  struct client *c = of;
  read_and_compare(c);
  __atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
  return NULL;
}

static void client_start(struct client *c) {
  c->fd = plain_connect(4, c->port);
  assert_true(c->fd >= 0);
  assert_int_equal(pthread_create(&c->reader, NULL, read_all, c), 0);
  assert_int_equal(pthread_create(&c->writer, NULL, write_all, c), 0);
}

static void client_end(struct client *c) {
  pthread_join(c->writer, NULL);
  pthread_join(c->reader, NULL);
  close(c->fd);
}

/* Data that could not be pushed waits here for its queue to drain. */
struct echo {
  hy_sga stuck;
  bool ended;
};

static void echo_pop(hy_shard *shard, hy_qd qd) {
  hy_qt qt;
  assert_int_equal(hy_pop(shard, qd, &qt), 0);
}

static void echo_push(hy_shard *shard, hy_qd qd, struct echo *e) {
  int rc = hy_push(shard, qd, &e->stuck, NULL);
  if (rc == -EAGAIN || rc == -ENOBUFS) {
    hy_qt qt;
    assert_int_equal(hy_drain(shard, qd, &qt), 0);
    return;
  }
  assert_int_equal(rc, 0);
  e->stuck.nsegs = 0;
  echo_pop(shard, qd);
}

/* Serves until so many connections have ended. */
static void serve(hy_shard *shard, hy_qd listening, unsigned connections) {
  hy_event events[32];
  hy_qt qt;
  struct echo *echoes = calloc(connections, sizeof *echoes);
  unsigned opened = 0, ended = 0;
  assert_int_equal(hy_accept(shard, listening, &qt), 0);
  while (ended < connections) {
    int n = hy_wait_any(shard, events, 32, PATIENCE_NS);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
      hy_event *ev = &events[i];
      struct echo *e = ev->user;
      if (ev->op == HY_OP_ACCEPT) {
        assert_int_equal(ev->status, 0);
        hy_set_user(shard, ev->accepted, &echoes[opened++]);
        echo_pop(shard, ev->accepted);
        assert_int_equal(hy_accept(shard, listening, &qt), 0);
      } else if (ev->op == HY_OP_DRAIN) {
        echo_push(shard, ev->qd, e);
      } else if (ev->status == -ENOBUFS) { /* we hold too much: again, when something has left */
        echo_pop(shard, ev->qd);
      } else {
        assert_int_equal(ev->status, 0);
        if (ev->sga.nsegs == 0) {
          assert_int_equal(hy_close(shard, ev->qd), 0);
          ended++;
          continue;
        }
        e->stuck = ev->sga;
        echo_push(shard, ev->qd, e);
      }
    }
  }
  free(echoes);
}

static void echo_of(const hy_config *config, const hy_uring_config *uring, unsigned connections,
                    size_t bytes) {
  hy_shard *shard = shard_with(config, uring, NULL);
  struct client *clients = calloc(connections, sizeof *clients);
  uint16_t port;
  hy_qd listening = listener(shard, "127.0.0.1:0", 1024, &port);
  for (unsigned i = 0; i < connections; i++) {
    clients[i] = (struct client){.port = port, .bytes = bytes, .seed = i + 1};
    client_start(&clients[i]);
  }
  serve(shard, listening, connections);
  for (unsigned i = 0; i < connections; i++) {
    while (!__atomic_load_n(&clients[i].done, __ATOMIC_ACQUIRE)) /* what was closed is sent still */
      hy_poll(shard);
    client_end(&clients[i]);
    assert_true(clients[i].equal);
  }
  assert_int_equal(counter(shard, "kernel_in_bytes"), connections * bytes);
  assert_int_equal(counter(shard, "kernel_out_bytes"), connections * bytes);
  free(clients);
  hy_shard_close(shard);
}

static void config_small(hy_config *config, uint32_t frames) {
  hy_config_default(config);
  config->frames = frames;
  config->connections = 1024;
  config->sockets = 2048;
  config->tokens = 8192;
}

static void any_number_of_bytes_comes_back_as_it_was(void **state) {
  static const size_t sizes[] = {1, 100, 1919, 1920, 1921, 65536, 1000000, 64 << 20};
  hy_config config;
  config_small(&config, 4096);
  for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    echo_of(&config, NULL, 1, sizes[i]);
}

static void many_connections_do_not_mix(void **state) {
  hy_config config;
  config_small(&config, 4096);
  echo_of(&config, NULL, 200, 20000);
}

static void a_small_arena_is_slow_and_not_stuck(void **state) {
  hy_config config;
  config_small(&config, 256);
  echo_of(&config, NULL, 40, 200000);
}

static void every_way_to_send_and_receive_is_as_good(void **state) {
  hy_config config;
  config_small(&config, 4096);
  echo_of(&config,
          &(hy_uring_config){.struct_size = sizeof(hy_uring_config), .zerocopy = HY_URING_ZEROCOPY_ALWAYS}, 3,
          3000000);
  echo_of(&config,
          &(hy_uring_config){.struct_size = sizeof(hy_uring_config),
                             .zerocopy = HY_URING_ZEROCOPY_ALWAYS,
                             .no_registered_buffers = 1,
                             .no_registered_files = 1},
          3, 3000000);
  echo_of(&config, &(hy_uring_config){.struct_size = sizeof(hy_uring_config), .sqpoll = 1}, 3, 3000000);
  echo_of(&config, &(hy_uring_config){.struct_size = sizeof(hy_uring_config), .entries = 8, .buffers = 8}, 3,
          300000);
  echo_of(&config, &(hy_uring_config){.struct_size = sizeof(hy_uring_config), .napi_busy_poll = 1}, 1,
          300000);
}

/* ---- limits ------------------------------------------------------------------------------ */

static void a_reader_that_is_behind_stops_its_peer_and_nobody_else(void **state) {
  hy_config config;
  config_small(&config, 1024);
  hy_shard *shard = shard_with(&config, NULL, NULL);
  int lazy, brisk;
  hy_qd unread = accepted(shard, &lazy), read = accepted(shard, &brisk);
  static char bytes[1 << 16];
  size_t sent = 0;
  for (int quiet = 0; quiet < 50;) { /* until neither the kernel nor the shard takes more */
    hy_poll(shard);
    ssize_t n = send(lazy, bytes, sizeof bytes, MSG_DONTWAIT);
    quiet = n > 0 ? 0 : quiet + 1;
    sent += n > 0 ? (size_t)n : 0;
    if (quiet)
      usleep(1000);
  }
  assert_true(counter(shard, "kernel_paused") >= 1);
  assert_true(counter(shard, "kernel_in_bytes") < sent); /* the rest waits in the kernel */
  assert_int_equal(send(brisk, "hello", 5, 0), 5);
  hy_event event = pop(shard, read);
  assert_int_equal(hy_sga_bytes(&event.sga), 5);
  hy_sga_free(shard, &event.sga);
  for (size_t got = 0; got < sent; hy_sga_free(shard, &event.sga)) {
    event = pop(shard, unread);
    assert_int_equal(event.status, 0);
    got += hy_sga_bytes(&event.sga);
  }
  close(lazy);
  close(brisk);
  hy_shard_close(shard);
}

static void receives_stop_when_no_frame_is_left_and_go_on_when_there_is(void **state) {
  hy_config config;
  config_small(&config, 128);
  hy_uring_config uring = {.struct_size = sizeof uring, .buffers = 8};
  hy_shard *shard = shard_with(&config, &uring, NULL);
  enum { PEERS = 24 };
  int plain[PEERS];
  hy_qd qd[PEERS];
  static char bytes[20000];
  for (int i = 0; i < PEERS; i++)
    qd[i] = accepted(shard, &plain[i]);
  for (int i = 0; i < PEERS; i++)
    assert_int_equal(send(plain[i], bytes, sizeof bytes, 0), sizeof bytes);
  until(shard, counter(shard, "kernel_no_buffers") > 0);
  for (int i = PEERS - 1; i >= 0; i--) { /* those that starved longest come last */
    for (size_t got = 0; got < sizeof bytes;) {
      hy_event event = pop(shard, qd[i]);
      assert_int_equal(event.status, 0);
      got += hy_sga_bytes(&event.sga);
      hy_sga_free(shard, &event.sga);
    }
    assert_int_equal(hy_close(shard, qd[i]), 0);
    close(plain[i]);
  }
  hy_shard_close(shard);
}

static void a_full_table_refuses_and_accepts_again_when_there_is_room(void **state) {
  hy_config config;
  config_small(&config, 1024);
  config.connections = 4;
  hy_shard *shard = shard_with(&config, NULL, NULL);
  uint16_t port;
  int plain[4], more;
  hy_qd qd[4], listening = listener(shard, "127.0.0.1:0", 16, &port);
  for (int i = 0; i < 4; i++)
    qd[i] = accept_from(shard, listening, port, &plain[i]);
  int refused = plain_connect(4, port);
  until(shard, counter(shard, "kernel_drop_table_full") == 1);
  assert_int_equal(plain_end(refused), -ECONNRESET);
  close(refused);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(hy_close(shard, qd[i]), 0);
    close(plain[i]);
  }
  for (int i = 0; i < 10; i++)
    hy_poll(shard);
  accept_from(shard, listening, port, &more);
  close(more);
  hy_shard_close(shard);
}

/* ---- the shard's end --------------------------------------------------------------------- */

static void a_shard_can_be_closed_with_everything_under_way(void **state) {
  static const hy_uring_config ways[] = {
      {.struct_size = sizeof(hy_uring_config)},
      {.struct_size = sizeof(hy_uring_config), .zerocopy = HY_URING_ZEROCOPY_ALWAYS},
      {.struct_size = sizeof(hy_uring_config), .sqpoll = 1},
      {.struct_size = sizeof(hy_uring_config), .no_registered_files = 1},
  };
  for (unsigned way = 0; way < sizeof ways / sizeof ways[0]; way++) {
    hy_config config;
    config_small(&config, 4096);
    hy_shard *shard = shard_with(&config, &ways[way], NULL);
    enum { PEERS = 30 };
    int plain[PEERS];
    hy_qt qt;
    uint16_t port;
    hy_qd listening = listener(shard, "127.0.0.1:0", 64, &port);
    for (int i = 0; i < PEERS; i++) {
      hy_qd qd = accept_from(shard, listening, port, &plain[i]);
      assert_int_equal(hy_pop(shard, qd, &qt), 0);
      assert_int_equal(send(plain[i], "abc", 3, 0), 3);
      hy_sga sga;
      for (;;) { /* more than the peer will ever read */
        if (hy_sga_alloc(shard, hy_sga_max(shard), &sga) < 0)
          break;
        if (hy_push(shard, qd, &sga, NULL) < 0) {
          hy_sga_free(shard, &sga);
          break;
        }
        if (i % 2)
          hy_poll(shard);
      }
      if (i % 5 == 0)
        assert_int_equal(hy_close(shard, qd), 0);
    }
    plain_connect(4, port); /* nobody accepts it */
    hy_shard_close(shard);
    for (int i = 0; i < PEERS; i++) {
      assert_int_equal(plain_end(plain[i]), -ECONNRESET);
      close(plain[i]);
    }
  }
}

static void *close_it(void *shard) {
  hy_shard_close(shard);
  return NULL;
}

static void a_shard_can_be_closed_by_another_thread(void **state) {
  hy_config config;
  config_small(&config, 1024);
  hy_shard *shard = shard_with(&config, NULL, NULL);
  int plain;
  hy_qt qt;
  hy_qd qd = accepted(shard, &plain);
  assert_int_equal(hy_pop(shard, qd, &qt), 0);
  hy_poll(shard);
  pthread_t other;
  assert_int_equal(pthread_create(&other, NULL, close_it, shard), 0);
  assert_int_equal(pthread_join(other, NULL), 0);
  int end = plain_end(plain); /* the ring takes its sockets with it, as the end of a process does */
  assert_true(end == 0 || end == -ECONNRESET);
  close(plain);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(any_number_of_bytes_comes_back_as_it_was),
      cmocka_unit_test(many_connections_do_not_mix),
      cmocka_unit_test(a_small_arena_is_slow_and_not_stuck),
      cmocka_unit_test(every_way_to_send_and_receive_is_as_good),
      cmocka_unit_test(a_reader_that_is_behind_stops_its_peer_and_nobody_else),
      cmocka_unit_test(receives_stop_when_no_frame_is_left_and_go_on_when_there_is),
      cmocka_unit_test(a_full_table_refuses_and_accepts_again_when_there_is_room),
      cmocka_unit_test(a_shard_can_be_closed_with_everything_under_way),
      cmocka_unit_test(a_shard_can_be_closed_by_another_thread),
  };
  choose_tests();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
