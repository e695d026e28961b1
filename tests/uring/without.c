/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a program as on a host that lacks something, by a seccomp filter that answers for the kernel:
 *
 *     without io_uring|tcx PROGRAM ...
 *
 *     io_uring   switched off: io_uring_setup() fails with EPERM
 *     tcx        before Linux 6.6: bpf(BPF_LINK_CREATE) fails with EINVAL
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BPF_LINK_CREATE = 28, ANY = -1 };

struct lack {
  const char *name;
  uint32_t call;
  int argument; /* the call's first, or ANY */
  int error;
};

static const struct lack lacks[] = {
    {"io_uring", SYS_io_uring_setup, ANY, EPERM},
    {"tcx", SYS_bpf, BPF_LINK_CREATE, EINVAL},
};

static int forbid(const struct lack *lack) {
  uint32_t refuse = SECCOMP_RET_ERRNO | (uint32_t)lack->error;
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, lack->call, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)lack->argument, 0, lack->argument == ANY ? 0 : 1),
      BPF_STMT(BPF_RET | BPF_K, refuse),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {.len = sizeof code / sizeof code[0], .filter = code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -1
                                                    : prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

int main(int argc, char **argv) {
  for (unsigned i = 0; argc >= 3 && i < sizeof lacks / sizeof lacks[0]; i++) {
    if (strcmp(argv[1], lacks[i].name) != 0)
      continue;
    if (forbid(&lacks[i]) == 0)
      execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 1;
  }
  fputs("usage: without io_uring|tcx PROGRAM ...\n", stderr);
  return 2;
}
