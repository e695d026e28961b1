/* SPDX-License-Identifier: Apache-2.0 */
/* TCP on kernel sockets by io_uring, against the kernel's own sockets as an ordinary program uses them. */
#include <pthread.h>
#include <sys/wait.h>

#include "peer.h"

static void an_accepted_connection_knows_both_its_ends(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  int plain;
  hy_qd listening = listener(shard, ":0", 16, &port);
  hy_qd qd = accept_from(shard, listening, port, &plain);
  hy_addr local, peer;
  struct sockaddr_in in;
  socklen_t len = sizeof in;
  assert_int_equal(hy_local(shard, qd, &local), 0);
  assert_int_equal(hy_peer(shard, qd, &peer), 0);
  assert_int_equal(getsockname(plain, (struct sockaddr *)&in, &len), 0);
  hy_addr expected = loopback(4, port);
  assert_memory_equal(&local, &expected, sizeof local);
  assert_int_equal(peer.port, ntohs(in.sin_port));
  assert_int_equal(peer.family, 4);
  assert_int_equal(hy_backend_of(shard, qd), HY_BACKEND_KERNEL);
  close(plain);
  hy_shard_close(shard);
}

static void a_connection_that_was_opened_knows_both_its_ends(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = connect_to_plain(shard, &plain);
  hy_addr local, peer;
  struct sockaddr_in in;
  socklen_t len = sizeof in;
  assert_int_equal(hy_local(shard, qd, &local), 0);
  assert_int_equal(hy_peer(shard, qd, &peer), 0);
  assert_int_equal(getpeername(plain, (struct sockaddr *)&in, &len), 0);
  assert_int_equal(local.port, ntohs(in.sin_port));
  assert_int_equal(getsockname(plain, (struct sockaddr *)&in, &len), 0);
  assert_int_equal(peer.port, ntohs(in.sin_port));
  assert_int_equal(counter(shard, "kernel_opened_active"), 1);
  close(plain);
  hy_shard_close(shard);
}

static void a_popped_byte_can_be_pushed_as_it_lies(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = accepted(shard, &plain);
  char byte = 'x';
  assert_int_equal(send(plain, &byte, 1, 0), 1);
  hy_event event = pop(shard, qd);
  assert_int_equal(event.status, 0);
  assert_int_equal(event.sga.nsegs, 1);
  assert_int_equal(event.sga.segs[0].len_bytes, 1);
  hy_qt qt;
  assert_int_equal(hy_push(shard, qd, &event.sga, &qt), 0);
  assert_int_equal(finish(shard, qt), 0);
  hy_sga_free(shard, &event.sga);
  byte = 0;
  plain_read(plain, &byte, 1);
  assert_int_equal(byte, 'x');
  close(plain);
  hy_shard_close(shard);
}

/* ---- both families -------------------------------------------------------------- */

static int family_reaches(const char *at, int family) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  hy_qt qt;
  hy_qd listening = listener(shard, at, 16, &port);
  assert_int_equal(hy_accept(shard, listening, &qt), 0);
  int plain = plain_connect(family, port);
  if (plain >= 0) {
    hy_event event = complete(shard, qt);
    assert_int_equal(event.addr.family, family);
    close(plain);
  }
  hy_shard_close(shard);
  return plain < 0 ? plain : 0;
}

static void an_unspecified_address_listens_for_the_families_it_names(void **state) {
  assert_int_equal(family_reaches(":0", 4), 0);
  assert_int_equal(family_reaches(":0", 6), 0);
  assert_int_equal(family_reaches("0.0.0.0:0", 4), 0);
  assert_int_equal(family_reaches("0.0.0.0:0", 6), -ECONNREFUSED);
  assert_int_equal(family_reaches("[::]:0", 6), 0);
  assert_int_equal(family_reaches("[::]:0", 4), -ECONNREFUSED);
  assert_int_equal(family_reaches("[::1]:0", 6), 0);
}

static void binding_says_what_is_wrong_with_an_address(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  listener(shard, ":0", 16, &port);
  hy_qd qd;
  hy_addr taken = loopback(4, port), foreign;
  assert_int_equal(hy_addr_parse("192.0.2.1:80", &foreign), 0);
  assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
  assert_int_equal(hy_bind(shard, qd, &taken), -EADDRINUSE);
  assert_int_equal(hy_bind(shard, qd, &foreign), -EADDRNOTAVAIL);
  hy_shard_close(shard);
}

static void a_port_is_free_at_once_when_its_listener_is_closed(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  hy_qd qd = listener(shard, "127.0.0.1:0", 16, &port);
  for (int i = 0; i < 20; i++) {
    assert_int_equal(hy_close(shard, qd), 0);
    assert_int_equal(plain_connect(4, port), -ECONNREFUSED);
    hy_addr again = loopback(4, port);
    assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
    assert_int_equal(hy_bind(shard, qd, &again), 0);
    assert_int_equal(hy_listen(shard, qd, 16), 0);
  }
  hy_shard_close(shard);
}

static void closing_a_listener_resets_who_waits_to_be_accepted(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  hy_qd qd = listener(shard, "127.0.0.1:0", 16, &port);
  int plain[4];
  for (int i = 0; i < 4; i++)
    plain[i] = plain_connect(4, port);
  for (int i = 0; i < 10; i++)
    hy_poll(shard);
  assert_int_equal(hy_close(shard, qd), 0);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(plain_end(plain[i]), -ECONNRESET);
    close(plain[i]);
  }
  hy_shard_close(shard);
}

static void who_resets_before_being_accepted_is_not_accepted(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  hy_qd listening = listener(shard, "127.0.0.1:0", 16, &port);
  reset_by_closing(plain_connect(4, port));
  for (int i = 0; i < 10; i++)
    hy_poll(shard);
  int plain;
  hy_qd qd = accept_from(shard, listening, port, &plain);
  push_text(shard, qd, "hello");
  char text[5];
  plain_read(plain, text, sizeof text);
  close(plain);
  hy_shard_close(shard);
}

/* ---- ends ------------------------------------------------------------------------- */

static void either_direction_can_be_closed_alone(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  char text[8];
  hy_qd qd = accepted(shard, &plain);
  assert_int_equal(send(plain, "before", 6, 0), 6);
  shutdown(plain, SHUT_WR);
  hy_event event = pop(shard, qd);
  assert_int_equal(hy_sga_bytes(&event.sga), 6);
  hy_sga_free(shard, &event.sga);
  for (int i = 0; i < 2; i++) { /* and again: the end stays */
    event = pop(shard, qd);
    assert_int_equal(event.status, 0);
    assert_int_equal(event.sga.nsegs, 0);
  }
  push_text(shard, qd, "after");
  plain_read(plain, text, 5);
  assert_memory_equal(text, "after", 5);
  assert_int_equal(hy_shutdown(shard, qd), 0);
  hy_sga sga;
  assert_int_equal(hy_sga_alloc(shard, 1, &sga), 0);
  assert_int_equal(hy_push(shard, qd, &sga, NULL), -EPIPE);
  hy_sga_free(shard, &sga);
  hy_poll(shard);
  assert_int_equal(plain_end(plain), 0);
  close(plain);

  qd = accepted(shard, &plain);
  push_text(shard, qd, "last");
  assert_int_equal(hy_shutdown(shard, qd), 0);
  for (int i = 0; i < 3; i++)
    hy_poll(shard);
  plain_read(plain, text, 4);
  assert_int_equal(plain_end(plain), 0);
  assert_int_equal(send(plain, "more", 4, 0), 4);
  event = pop(shard, qd);
  assert_int_equal(hy_sga_bytes(&event.sga), 4);
  hy_sga_free(shard, &event.sga);
  close(plain);
  hy_shard_close(shard);
}

static void a_reset_is_told_after_the_data_and_to_whoever_pushes(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = accepted(shard, &plain);
  assert_int_equal(send(plain, "data", 4, 0), 4);
  until(shard, counter(shard, "kernel_in_bytes") == 4);
  reset_by_closing(plain);
  until(shard, counter(shard, "kernel_resets_in") == 1);
  hy_event event = pop(shard, qd);
  assert_int_equal(event.status, 0);
  assert_int_equal(hy_sga_bytes(&event.sga), 4);
  assert_int_equal(pop(shard, qd).status, -ECONNRESET);
  assert_int_equal(hy_push(shard, qd, &event.sga, NULL), -ECONNRESET);
  hy_sga_free(shard, &event.sga);
  hy_shard_close(shard);
}

static void nobody_listening_is_refused(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  close(plain_listener(&port));
  hy_qd qd;
  hy_qt qt;
  hy_addr peer = loopback(4, port);
  assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
  assert_int_equal(hy_connect(shard, qd, &peer, &qt), 0);
  assert_int_equal(finish(shard, qt), -ECONNREFUSED);
  assert_int_equal(pop(shard, qd).status, -ECONNREFUSED);
  hy_shard_close(shard);
}

static void an_abort_resets(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = accepted(shard, &plain);
  assert_int_equal(hy_abort(shard, qd), 0);
  hy_poll(shard);
  assert_int_equal(plain_end(plain), -ECONNRESET);
  close(plain);
  hy_shard_close(shard);
}

static void closing_with_unread_data_resets(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = accepted(shard, &plain);
  assert_int_equal(send(plain, "unread", 6, 0), 6);
  until(shard, counter(shard, "kernel_in_bytes") == 6);
  assert_int_equal(hy_close(shard, qd), 0);
  hy_poll(shard);
  assert_int_equal(plain_end(plain), -ECONNRESET);
  close(plain);
  hy_shard_close(shard);
}

static void what_was_pushed_before_closing_is_delivered(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = accepted(shard, &plain);
  size_t pushed = 0;
  for (;;) {
    hy_sga sga;
    assert_int_equal(hy_sga_alloc(shard, hy_sga_max(shard), &sga), 0);
    size_t bytes = hy_sga_bytes(&sga);
    int rc = hy_push(shard, qd, &sga, NULL);
    if (rc == -EAGAIN) {
      hy_sga_free(shard, &sga);
      break;
    }
    assert_int_equal(rc, 0);
    pushed += bytes;
  }
  assert_int_equal(hy_close(shard, qd), 0);
  size_t got = 0;
  for (size_t n = 1; n > 0; got += n)
    n = plain_some(shard, plain);
  assert_int_equal(got, pushed);
  close(plain);
  hy_shard_close(shard);
}

/* ---- pushing, popping, cancelling ---------------------------------------------------- */

static void pushing_stops_at_the_limit_and_goes_on_when_the_peer_has_read(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = accepted(shard, &plain);
  size_t pushed = 0;
  hy_qt drained = 0;
  for (int refused = 0; refused < 3;) { /* the kernel takes its share, too */
    hy_sga sga;
    assert_int_equal(hy_sga_alloc(shard, hy_sga_max(shard), &sga), 0);
    size_t bytes = hy_sga_bytes(&sga);
    int rc = hy_push(shard, qd, &sga, NULL);
    if (rc == 0) {
      pushed += bytes;
      continue;
    }
    assert_int_equal(rc, -EAGAIN);
    hy_sga_free(shard, &sga);
    hy_event event;
    assert_int_equal(hy_drain(shard, qd, &drained), 0);
    if (hy_wait(shard, drained, &event, 200000000) == 0)
      refused = 3;
  }
  hy_event event;
  while (hy_wait(shard, drained, &event, 0) == 0)
    pushed -= plain_some(shard, plain);
  assert_int_equal(event.status, 0);
  while (pushed > 0)
    pushed -= plain_some(shard, plain);
  close(plain);
  hy_shard_close(shard);
}

static void pushes_arrive_and_complete_in_their_order(void **state) {
  hy_shard *shard = shard_plain();
  int plain;
  hy_qd qd = accepted(shard, &plain);
  enum { PUSHES = 300 };
  hy_qt qt[PUSHES];
  for (uint32_t i = 0; i < PUSHES; i++) {
    hy_sga sga;
    assert_int_equal(hy_sga_alloc(shard, sizeof i, &sga), 0);
    memcpy(sga.segs[0].addr, &i, sizeof i);
    assert_int_equal(hy_push(shard, qd, &sga, &qt[i]), 0);
    hy_sga_free(shard, &sga);
  }
  hy_event events[16];
  for (int done = 0; done < PUSHES;) {
    int n = hy_wait_any(shard, events, 16, PATIENCE_NS);
    assert_true(n > 0);
    for (int i = 0; i < n; i++, done++) {
      assert_int_equal(events[i].qt, qt[done]);
      assert_int_equal(events[i].status, 0);
    }
  }
  for (uint32_t i = 0; i < PUSHES; i++) {
    uint32_t value;
    plain_read(plain, &value, sizeof value);
    assert_int_equal(value, i);
  }
  close(plain);
  hy_shard_close(shard);
}

static void what_waits_can_be_cancelled_and_the_queue_goes_on(void **state) {
  hy_shard *shard = shard_plain();
  uint16_t port;
  int plain;
  hy_qt qt, other;
  hy_qd listening = listener(shard, "127.0.0.1:0", 16, &port);
  assert_int_equal(hy_accept(shard, listening, &qt), 0);
  assert_int_equal(hy_cancel(shard, qt), 0);
  assert_int_equal(finish(shard, qt), -ECANCELED);
  assert_int_equal(hy_cancel(shard, qt), -ENOENT);
  hy_qd qd = accept_from(shard, listening, port, &plain);
  assert_int_equal(hy_pop(shard, qd, &qt), 0);
  assert_int_equal(hy_pop(shard, qd, &other), 0);
  assert_int_equal(hy_cancel(shard, qt), 0);
  assert_int_equal(send(plain, "z", 1, 0), 1);
  hy_event event = complete(shard, other);
  assert_int_equal(event.status, 0);
  assert_int_equal(hy_sga_bytes(&event.sga), 1);
  hy_sga_free(shard, &event.sga);
  assert_int_equal(finish(shard, qt), -ECANCELED);
  assert_int_equal(hy_pop(shard, qd, &qt), 0);
  assert_int_equal(hy_close(shard, qd), 0);
  assert_int_equal(finish(shard, qt), -ECANCELED);
  close(plain);
  hy_shard_close(shard);
}

static void data_waits_for_an_application_that_holds_too_many_frames(void **state) {
  hy_config config;
  hy_config_default(&config);
  config.frames = 1024;
  config.app_frames_max = 2;
  hy_shard *shard = shard_with(&config, NULL, NULL);
  int plain;
  hy_qd qd = accepted(shard, &plain);
  hy_sga held;
  assert_int_equal(hy_sga_alloc(shard, 2000, &held), 0);
  assert_int_equal(held.nsegs, 2);
  assert_int_equal(send(plain, "late", 4, 0), 4);
  assert_int_equal(pop(shard, qd).status, -ENOBUFS);
  hy_sga_free(shard, &held);
  hy_event event = pop(shard, qd);
  assert_int_equal(event.status, 0);
  assert_int_equal(hy_sga_bytes(&event.sga), 4);
  hy_sga_free(shard, &event.sga);
  close(plain);
  hy_shard_close(shard);
}

/* ---- the end --------------------------------------------------------------------------- */

static void *poll_once(void *shard) {
  hy_poll(shard);
  return NULL;
}

/* The kernel takes submissions from one thread only; another one can still end it all, and that in time. */
static void a_shard_can_be_closed_by_a_thread_that_the_ring_does_not_belong_to(void **state) {
  enum { CONNECTIONS = 40 };
  const hy_uring_config few = {.struct_size = sizeof few, .entries = 8};
  hy_shard *shard = shard_with(NULL, &few, NULL);
  pthread_t first;
  assert_int_equal(pthread_create(&first, NULL, poll_once, shard), 0);
  assert_int_equal(pthread_join(first, NULL), 0);
  uint16_t port;
  int listening = plain_listener(&port);
  hy_addr peer = loopback(4, port);
  for (int i = 0; i < CONNECTIONS; i++) { /* more than submissions that can wait */
    hy_qd qd;
    hy_qt qt;
    assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
    assert_int_equal(hy_connect(shard, qd, &peer, &qt), 0);
  }
  alarm(30); /* it is given a second */
  hy_shard_close(shard);
  alarm(0);
  close(listening);
}

/* ---- sleeping ------------------------------------------------------------------------ */

static void a_sleeping_shard_wakes_when_something_arrives(void **state) {
  hy_config config;
  hy_config_default(&config);
  config.frames = 1024;
  config.spin_ns = 1;
  hy_shard *shard = shard_with(&config, NULL, NULL);
  int plain;
  hy_qd qd = accepted(shard, &plain);
  for (int i = 0; i < 50; i++) {
    hy_qt qt;
    hy_event event;
    assert_int_equal(hy_pop(shard, qd, &qt), 0);
    uint64_t before = counter(shard, "sleeps");
    pid_t child = fork();
    if (child == 0) {
      usleep(2000);
      _exit(send(plain, "!", 1, 0) == 1 ? 0 : 1);
    }
    assert_int_equal(hy_wait(shard, qt, &event, PATIENCE_NS), 1);
    assert_int_equal(event.status, 0);
    hy_sga_free(shard, &event.sga);
    /* It neither spun (many sleeps cut short) nor slept until its sleep was over (100 ms). */
    assert_in_range(counter(shard, "sleeps") - before, 0, 20);
    assert_int_equal(waitpid(child, NULL, 0), child);
  }
  close(plain);
  hy_shard_close(shard);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_accepted_connection_knows_both_its_ends),
      cmocka_unit_test(a_connection_that_was_opened_knows_both_its_ends),
      cmocka_unit_test(a_popped_byte_can_be_pushed_as_it_lies),
      cmocka_unit_test(an_unspecified_address_listens_for_the_families_it_names),
      cmocka_unit_test(binding_says_what_is_wrong_with_an_address),
      cmocka_unit_test(a_port_is_free_at_once_when_its_listener_is_closed),
      cmocka_unit_test(closing_a_listener_resets_who_waits_to_be_accepted),
      cmocka_unit_test(who_resets_before_being_accepted_is_not_accepted),
      cmocka_unit_test(either_direction_can_be_closed_alone),
      cmocka_unit_test(a_reset_is_told_after_the_data_and_to_whoever_pushes),
      cmocka_unit_test(nobody_listening_is_refused),
      cmocka_unit_test(an_abort_resets),
      cmocka_unit_test(closing_with_unread_data_resets),
      cmocka_unit_test(what_was_pushed_before_closing_is_delivered),
      cmocka_unit_test(pushing_stops_at_the_limit_and_goes_on_when_the_peer_has_read),
      cmocka_unit_test(pushes_arrive_and_complete_in_their_order),
      cmocka_unit_test(what_waits_can_be_cancelled_and_the_queue_goes_on),
      cmocka_unit_test(data_waits_for_an_application_that_holds_too_many_frames),
      cmocka_unit_test(a_shard_can_be_closed_by_a_thread_that_the_ring_does_not_belong_to),
      cmocka_unit_test(a_sleeping_shard_wakes_when_something_arrives),
  };
  choose_tests();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
