/* SPDX-License-Identifier: Apache-2.0 */
/* What hy_uring_probe() says: of the kernel, to a wrong call, and where io_uring is forbidden. */
#include "check.h"

#include "core/hybrid.h"

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned descriptors_open(void) {
  DIR *dir = opendir("/proc/self/fd");
  assert_non_null(dir);
  unsigned count = 0;
  while (readdir(dir) != NULL)
    count++;
  closedir(dir);
  return count;
}

static void forbid_io_uring(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {.len = sizeof code / sizeof code[0], .filter = code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
    _exit(255);
}

static void test_what_implies_another_agrees_with_it_and_no_ring_is_left_open(void **state) {
  hy_uring_features found = {.struct_size = sizeof found};
  unsigned before = descriptors_open();
  int status = hy_uring_probe(&found);
  assert_int_equal(descriptors_open(), before);
  if (status < 0)
    skip();
  assert_true(found.opcodes > 0);
  assert_true(found.single_issuer || !found.defer_taskrun);
  assert_true(found.buffer_rings || !found.multishot);
}

static void test_a_structure_of_another_size_is_refused(void **state) {
  hy_uring_features found = {.struct_size = sizeof found - 1};
  assert_int_equal(hy_uring_probe(&found), -EINVAL);
  assert_int_equal(hy_uring_probe(NULL), -EINVAL);
}

static void test_where_io_uring_is_forbidden_the_kernels_answer_is_given(void **state) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    forbid_io_uring();
    hy_uring_features found = {.struct_size = sizeof found};
    _exit(-hy_uring_probe(&found));
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), EPERM);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_what_implies_another_agrees_with_it_and_no_ring_is_left_open),
      cmocka_unit_test(test_a_structure_of_another_size_is_refused),
      cmocka_unit_test(test_where_io_uring_is_forbidden_the_kernels_answer_is_given),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
