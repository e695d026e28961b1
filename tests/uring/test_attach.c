/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What attaching kernel sockets asks for, gets and says where it cannot; and kernel sockets as the fallback
 * of a listener that the bypass serves.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "peer.h"

static void what_was_obtained_is_told(void **state) {
  hy_uring_obtained had;
  hy_shard *shard = shard_with(NULL, NULL, &had);
  assert_int_equal(had.entries, 512);
  assert_int_equal(had.buffers, 1024);
  assert_int_equal(had.deferred_taskrun, 1);
  assert_int_equal(had.sqpoll, 0);
  hy_shard_close(shard);
  shard = shard_with(NULL,
                     &(hy_uring_config){.struct_size = sizeof(hy_uring_config),
                                        .entries = 64,
                                        .buffers = 128,
                                        .zerocopy = HY_URING_ZEROCOPY_NO,
                                        .sqpoll = 1,
                                        .no_registered_files = 1,
                                        .no_registered_buffers = 1},
                     &had);
  hy_uring_obtained expected = {.entries = 64, .buffers = 128, .sqpoll = 1, .bundles = had.bundles};
  assert_memory_equal(&had, &expected, sizeof had);
  hy_shard_close(shard);
}

static void a_second_time_is_refused(void **state) {
  hy_shard *shard = shard_with(NULL, NULL, NULL);
  assert_int_equal(hy_uring_attach(shard, NULL, NULL), -EBUSY);
  assert_string_not_equal(hy_error_detail(), "");
  hy_shard_close(shard);
}

static void a_wrong_configuration_is_refused_with_what_is_wrong(void **state) {
  hy_shard *shard;
  assert_int_equal(hy_shard_open(NULL, &shard), 0);
  const hy_uring_config wrong[] = {
      {.struct_size = 4},
      {.struct_size = sizeof(hy_uring_config), .entries = 100},
      {.struct_size = sizeof(hy_uring_config), .buffers = 3},
      {.struct_size = sizeof(hy_uring_config), .buffers = 16384},
      {.struct_size = sizeof(hy_uring_config), .zerocopy = 9},
  };
  for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    assert_int_equal(hy_uring_attach(shard, &wrong[i], NULL), -EINVAL);
    assert_string_not_equal(hy_error_detail(), "");
  }
  hy_shard_close(shard);
}

/* Every io_uring call answers with this error from now on, as a container's profile makes it. */
static void forbid_io_uring(unsigned error) {
  struct sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {.len = sizeof program / sizeof program[0], .filter = program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
    _exit(100);
}

static int attach_forbidden(unsigned error, const char *says) {
  pid_t child = fork();
  if (child == 0) {
    forbid_io_uring(error);
    hy_shard *shard;
    if (hy_shard_open(NULL, &shard) < 0)
      _exit(101);
    int status = hy_uring_attach(shard, NULL, NULL);
    _exit(status != -(int)error                  ? 102
          : strstr(hy_error_detail(), says) == 0 ? 103
          : hy_backend_of(shard, 0) != -EBADF    ? 104
                                                 : 0);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void io_uring_forbidden_by_a_filter_is_said_with_the_remedy(void **state) {
  assert_int_equal(attach_forbidden(EPERM, "seccomp"), 0);
  assert_int_equal(attach_forbidden(ENOSYS, "seccomp"), 0);
}

/* ---- strict -------------------------------------------------------------------------- */

static int attach_without_locked_memory(uint8_t strict) {
  pid_t child = fork();
  if (child == 0) {
    struct rlimit some = {4 << 20, 4 << 20}; /* for the rings, and not for the arena */
    if (setrlimit(RLIMIT_MEMLOCK, &some) < 0 || (getuid() == 0 && setresuid(65534, 65534, 65534) < 0))
      _exit(100);
    hy_shard *shard;
    hy_uring_obtained had = {0};
    hy_uring_config config = {.struct_size = sizeof config, .strict = strict};
    if (hy_shard_open(NULL, &shard) < 0)
      _exit(101);
    int status = hy_uring_attach(shard, &config, &had);
    _exit(status == 0             ? had.registered_buffers ? 1 : 0
          : status == -EOPNOTSUPP ? strstr(hy_error_detail(), "RLIMIT_MEMLOCK") ? 2 : 3
                                  : 102);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void memory_that_cannot_be_locked_is_no_error_unless_strict(void **state) {
  assert_int_equal(attach_without_locked_memory(0), 0);
  assert_int_equal(attach_without_locked_memory(1), 2);
}

/* ---- the fallback ---------------------------------------------------------------------- */

static void a_listener_with_a_fallback_accepts_from_the_kernel_too(void **state) {
  hy_shard *shard = shard_plain();
  uint32_t wire;
  assert_int_equal(hy_wire_attach(shard, 1, &wire), 0);
  uint16_t port;
  int reserved = plain_listener(&port); /* a port that nobody has, once this is closed */
  close(reserved);
  hy_placement row = {.protocol = 6,
                      .to = HY_BACKEND_BYPASS,
                      .fallback = HY_BACKEND_KERNEL,
                      .port_lo = port,
                      .port_hi = port};
  assert_int_equal(hy_place(shard, &row, 1), 0);
  char at[32];
  snprintf(at, sizeof at, ":%u", port);
  hy_qd listening = listener(shard, at, 16, &port);
  assert_int_equal(hy_backend_of(shard, listening), HY_BACKEND_BYPASS);
  int plain[2];
  hy_qd qd = accept_from(shard, listening, port, &plain[0]); /* an accept waits, then a connection comes */
  assert_int_equal(hy_backend_of(shard, qd), HY_BACKEND_KERNEL);
  plain[1] = plain_connect(4, port); /* and the other way round */
  for (int i = 0; i < 10; i++)
    hy_poll(shard);
  hy_qt qt;
  assert_int_equal(hy_accept(shard, listening, &qt), 0);
  hy_event event = complete(shard, qt);
  assert_int_equal(event.status, 0);
  assert_int_equal(counter(shard, "fallback_accepts"), 2);
  push_text(shard, qd, "first");
  push_text(shard, event.accepted, "second");
  char text[8];
  plain_read(plain[0], text, 5);
  plain_read(plain[1], text, 6);
  assert_memory_equal(text, "second", 6);
  assert_int_equal(hy_close(shard, listening), 0);
  assert_int_equal(plain_connect(4, port), -ECONNREFUSED);
  close(plain[0]);
  close(plain[1]);
  hy_shard_close(shard);
}

static void a_fallback_whose_port_is_taken_in_the_kernel_is_an_error(void **state) {
  hy_shard *shard = shard_plain();
  uint32_t wire;
  assert_int_equal(hy_wire_attach(shard, 1, &wire), 0);
  uint16_t port;
  int taken = plain_listener(&port);
  hy_placement row = {.to = HY_BACKEND_BYPASS, .fallback = HY_BACKEND_KERNEL, .port_hi = 65535};
  assert_int_equal(hy_place(shard, &row, 1), 0);
  hy_qd qd;
  hy_addr addr = {.port = port};
  assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
  assert_int_equal(hy_bind(shard, qd, &addr), 0);
  assert_int_equal(hy_listen(shard, qd, 4), -EADDRINUSE);
  close(taken);
  assert_int_equal(hy_listen(shard, qd, 4), 0);
  hy_shard_close(shard);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_was_obtained_is_told),
      cmocka_unit_test(a_second_time_is_refused),
      cmocka_unit_test(a_wrong_configuration_is_refused_with_what_is_wrong),
      cmocka_unit_test(io_uring_forbidden_by_a_filter_is_said_with_the_remedy),
      cmocka_unit_test(memory_that_cannot_be_locked_is_no_error_unless_strict),
      cmocka_unit_test(a_listener_with_a_fallback_accepts_from_the_kernel_too),
      cmocka_unit_test(a_fallback_whose_port_is_taken_in_the_kernel_is_an_error),
  };
  choose_tests();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
