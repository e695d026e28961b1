/* SPDX-License-Identifier: Apache-2.0 */
/* Taking over a datapath from a launcher, played here: whatever it sends, nothing leaks and the error is
 * right. */
#include "check.h"

#include "core/shard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const hy_config small = {
    .struct_size = sizeof(hy_config), .frames = 256, .sockets = 16, .connections = 16, .tokens = 64};

static unsigned descriptors_open(void) {
  DIR *dir = opendir("/proc/self/fd");
  assert_non_null(dir);
  unsigned count = 0;
  while (readdir(dir) != NULL)
    count++;
  closedir(dir);
  return count;
}

struct launcher {
  int near, far; /* ours and the application's end */
  unsigned before;
  hy_host *host;
  hy_handover handover;
  int fds[18];
  unsigned nfds;
};

static int page_make(size_t bytes) {
  int fd = memfd_create("stats", MFD_CLOEXEC);
  assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
  return fd;
}

/* Everything right but the AF_XDP socket, which is a UDP one: there is no privilege for another here. */
static void launcher_start(struct launcher *l) {
  *l = (struct launcher){.before = descriptors_open()};
  int pair[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  l->near = pair[0];
  l->far = pair[1];
  char text[16];
  snprintf(text, sizeof text, "%d", l->far);
  setenv("HYBRID_CONTROL", text, 1);
  assert_int_equal(hy_host_create(&l->host), 0);
  l->handover = (hy_handover){
      .magic = HY_CONTROL_MAGIC, .ndevices = 1, .devices[0] = {.ifindex = 1, .kind = HY_CONTROL_AFXDP}};
  l->fds[0] = hy_host_fd(l->host);
  l->fds[1] = page_make(sizeof(hy_stats_page));
  l->fds[2] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  l->nfds = 3;
}

static void launcher_send(struct launcher *l, size_t len) {
  struct iovec iov = {&l->handover, len};
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof l->fds)];
  } control = {0};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (l->nfds > 0) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * l->nfds);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * l->nfds);
    memcpy(CMSG_DATA(c), l->fds, sizeof(int) * l->nfds);
  }
  assert_int_equal(sendmsg(l->near, &message, 0), (ssize_t)len);
}

/* The application's answer to it all, which leaves no descriptor and no shard behind. */
static void refused_with(struct launcher *l, int expected) {
  hy_shard *shard = (hy_shard *)l;
  assert_int_equal(hy_shard_open_served(&small, &shard), expected);
  assert_null(shard);
  close(l->near);
  hy_host_close(l->host);
  for (unsigned i = 1; i < 3; i++)
    close(l->fds[i]);
  assert_int_equal(descriptors_open(), l->before); /* the far end was closed by the application */
  assert_null(getenv("HYBRID_CONTROL"));
}

static void a_process_that_hybrid_did_not_start_is_told_so(void **state) {
  unsetenv("HYBRID_CONTROL");
  hy_shard *shard;
  assert_int_equal(hy_shard_open_served(&small, &shard), -ENOENT);
}

static void a_control_descriptor_that_is_something_else_is_refused(void **state) {
  hy_shard *shard;
  static const char *const nonsense[] = {"", "x", "-1", "3x", "99999999999"};
  for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
    setenv("HYBRID_CONTROL", nonsense[i], 1);
    assert_int_equal(hy_shard_open_served(&small, &shard), -EINVAL);
  }
  setenv("HYBRID_CONTROL", "1000", 1);
  assert_int_equal(hy_shard_open_served(&small, &shard), -EBADF);
  int pair[2];
  char text[16];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  snprintf(text, sizeof text, "%d", pair[0]);
  setenv("HYBRID_CONTROL", text, 1);
  assert_int_equal(hy_shard_open_served(&small, &shard), -EINVAL);
  close(pair[0]);
  close(pair[1]);
  int file = page_make(1);
  snprintf(text, sizeof text, "%d", file);
  setenv("HYBRID_CONTROL", text, 1);
  assert_int_equal(hy_shard_open_served(&small, &shard), -ENOTSOCK);
  close(file);
  unsetenv("HYBRID_CONTROL");
}

static void a_launcher_that_is_gone_is_a_reset(void **state) {
  struct launcher l;
  launcher_start(&l);
  shutdown(l.near, SHUT_RDWR);
  refused_with(&l, -ECONNRESET);
}

static void a_message_of_another_size_is_refused(void **state) {
  struct launcher l;
  launcher_start(&l);
  launcher_send(&l, sizeof l.handover - 1);
  refused_with(&l, -EPROTO);
  launcher_start(&l);
  launcher_send(&l, sizeof l.handover + 4);
  refused_with(&l, -EPROTO);
}

static void a_message_of_another_build_is_refused(void **state) {
  struct launcher l;
  launcher_start(&l);
  l.handover.magic++;
  launcher_send(&l, sizeof l.handover);
  refused_with(&l, -EPROTO);
}

static void a_count_that_the_descriptors_contradict_is_refused(void **state) {
  static const uint32_t counts[] = {0, 2, 16, 17, UINT32_MAX - 1, UINT32_MAX};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    struct launcher l;
    launcher_start(&l);
    l.handover.ndevices = counts[i];
    launcher_send(&l, sizeof l.handover);
    refused_with(&l, -EPROTO);
  }
  struct launcher l;
  launcher_start(&l);
  l.nfds = 0;
  launcher_send(&l, sizeof l.handover);
  refused_with(&l, -EPROTO);
}

static void a_port_range_that_is_none_is_refused(void **state) {
  static const uint16_t ranges[][2] = {{0, 5}, {5, 0}, {6, 5}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    struct launcher l;
    launcher_start(&l);
    l.handover.port_lo = ranges[i][0];
    l.handover.port_hi = ranges[i][1];
    launcher_send(&l, sizeof l.handover);
    refused_with(&l, -EPROTO);
  }
}

static void a_host_table_that_is_none_is_refused(void **state) {
  struct launcher l;
  launcher_start(&l);
  int table = l.fds[0];
  l.fds[0] = l.fds[1];
  launcher_send(&l, sizeof l.handover);
  l.fds[0] = table;
  refused_with(&l, -EINVAL);
}

static void a_statistics_page_too_short_to_write_to_is_refused(void **state) {
  struct launcher l;
  launcher_start(&l);
  assert_int_equal(ftruncate(l.fds[1], 100), 0);
  launcher_send(&l, sizeof l.handover);
  refused_with(&l, -EPROTO);
}

static void a_device_that_is_no_af_xdp_socket_is_refused(void **state) {
  struct launcher l;
  launcher_start(&l);
  launcher_send(&l, sizeof l.handover);
  refused_with(&l, -EAFNOSUPPORT);
}

static void a_kind_of_device_that_nobody_knows_is_refused(void **state) {
  struct launcher l;
  launcher_start(&l);
  l.handover.devices[0].kind = 99;
  launcher_send(&l, sizeof l.handover);
  refused_with(&l, -EPROTO);
}

static void a_device_that_has_a_fallback_may_be_missing(void **state) {
  struct launcher l;
  launcher_start(&l);
  l.handover.lenient = 1;
  l.handover.nplacements = 1;
  l.handover.placements[0] = (hy_placement){.to = HY_BACKEND_BYPASS, .port_lo = 7, .port_hi = 7};
  launcher_send(&l, sizeof l.handover);
  hy_shard *shard;
  assert_int_equal(hy_shard_open_served(&small, &shard), 0);
  assert_int_equal(shard->ready.devices[0].status, -EAFNOSUPPORT);
  assert_int_equal(shard->live_devices, 0);
  assert_int_equal(shard->placement.count, 1);
  hy_shard_close(shard);
  close(l.near);
  hy_host_close(l.host);
  for (unsigned i = 1; i < 3; i++)
    close(l.fds[i]);
  assert_int_equal(descriptors_open(), l.before);
}

/* ---- hy_shard_ready ----------------------------------------------------------------------------- */

static hy_shard *shard_with_launcher(int *near) {
  hy_shard *shard;
  int pair[2];
  assert_int_equal(hy_shard_open(&small, &shard), 0);
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  shard->control_fd = pair[1];
  shard->ready = (hy_ready){.magic = HY_CONTROL_MAGIC, .ndevices = 1, .devices[0].afxdp.ring_size = 77};
  *near = pair[0];
  return shard;
}

static void a_shard_of_its_own_is_ready_at_once(void **state) {
  hy_shard *shard;
  assert_int_equal(hy_shard_open(&small, &shard), 0);
  assert_int_equal(hy_shard_ready(shard), 0);
  hy_shard_close(shard);
}

static void ready_says_what_was_obtained_and_returns_the_launchers_answer(void **state) {
  static const int answers[] = {0, -EBUSY};
  for (size_t i = 0; i < 2; i++) {
    int near;
    hy_shard *shard = shard_with_launcher(&near);
    hy_go go = {.magic = HY_CONTROL_MAGIC, .status = answers[i]};
    assert_int_equal(send(near, &go, sizeof go, 0), sizeof go);
    assert_int_equal(hy_shard_ready(shard), answers[i]);
    hy_ready ready;
    assert_int_equal(recv(near, &ready, sizeof ready, 0), sizeof ready);
    assert_int_equal(ready.magic, HY_CONTROL_MAGIC);
    assert_int_equal(ready.devices[0].afxdp.ring_size, 77);
    close(near);
    hy_shard_close(shard);
  }
}

static void an_answer_that_makes_no_sense_is_refused(void **state) {
  const hy_go wrong[] = {{.magic = 1}, {.magic = HY_CONTROL_MAGIC, .status = 1}};
  for (size_t i = 0; i < 3; i++) {
    int near;
    hy_shard *shard = shard_with_launcher(&near);
    assert_true(send(near, &wrong[i % 2], i == 2 ? 3 : sizeof *wrong, 0) > 0);
    assert_int_equal(hy_shard_ready(shard), -EPROTO);
    close(near);
    hy_shard_close(shard);
  }
}

static void a_launcher_that_dies_meanwhile_is_a_reset(void **state) {
  int near;
  hy_shard *shard = shard_with_launcher(&near);
  close(near);
  assert_int_equal(hy_shard_ready(shard), -ECONNRESET);
  hy_shard_close(shard);
}

/* ---- devices that come while it runs ------------------------------------------------------------ */

static void more_send(int near, uint32_t magic, int fd) {
  hy_handover_more more = {.magic = magic, .device = {.ifindex = 5, .queue = 3, .kind = HY_CONTROL_AFXDP}};
  struct iovec iov = {&more, sizeof more};
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof fd)];
  } control = {0};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  assert_int_equal(sendmsg(near, &message, 0), sizeof more);
}

static void a_device_that_comes_later_is_answered_for(void **state) {
  int near, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  hy_shard *shard = shard_with_launcher(&near);
  unsigned before = descriptors_open();
  more_send(near, HY_CONTROL_MAGIC, fd);
  served_chores(shard);
  hy_attached attached;
  assert_int_equal(recv(near, &attached, sizeof attached, 0), sizeof attached);
  assert_int_equal(attached.magic, HY_CONTROL_MAGIC);
  assert_int_equal(attached.ifindex, 5);
  assert_int_equal(attached.queue, 3);
  assert_int_equal(attached.status, -EAFNOSUPPORT); /* a UDP socket */
  assert_int_equal(descriptors_open(), before);
  close(fd);
  close(near);
  hy_shard_close(shard);
}

static void a_launcher_that_ends_or_talks_nonsense_is_listened_to_no_more(void **state) {
  for (int i = 0; i < 2; i++) {
    int near;
    hy_shard *shard = shard_with_launcher(&near);
    shard->serving = true;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unsigned before = descriptors_open();
    served_chores(shard);
    assert_true(shard->serving); /* nothing has come */
    if (i == 0)
      more_send(near, 1, fd);
    else
      shutdown(near, SHUT_RDWR);
    served_chores(shard);
    assert_false(shard->serving);
    assert_int_equal(descriptors_open(), before);
    close(fd);
    close(near);
    hy_shard_close(shard);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_process_that_hybrid_did_not_start_is_told_so),
      cmocka_unit_test(a_control_descriptor_that_is_something_else_is_refused),
      cmocka_unit_test(a_launcher_that_is_gone_is_a_reset),
      cmocka_unit_test(a_message_of_another_size_is_refused),
      cmocka_unit_test(a_message_of_another_build_is_refused),
      cmocka_unit_test(a_count_that_the_descriptors_contradict_is_refused),
      cmocka_unit_test(a_port_range_that_is_none_is_refused),
      cmocka_unit_test(a_host_table_that_is_none_is_refused),
      cmocka_unit_test(a_statistics_page_too_short_to_write_to_is_refused),
      cmocka_unit_test(a_device_that_is_no_af_xdp_socket_is_refused),
      cmocka_unit_test(a_kind_of_device_that_nobody_knows_is_refused),
      cmocka_unit_test(a_device_that_has_a_fallback_may_be_missing),
      cmocka_unit_test(a_shard_of_its_own_is_ready_at_once),
      cmocka_unit_test(ready_says_what_was_obtained_and_returns_the_launchers_answer),
      cmocka_unit_test(an_answer_that_makes_no_sense_is_refused),
      cmocka_unit_test(a_launcher_that_dies_meanwhile_is_a_reset),
      cmocka_unit_test(a_device_that_comes_later_is_answered_for),
      cmocka_unit_test(a_launcher_that_ends_or_talks_nonsense_is_listened_to_no_more),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
