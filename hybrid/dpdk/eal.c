/* SPDX-License-Identifier: Apache-2.0 */
/* Starting EAL, and what becomes of rte_exit and rte_panic. eal.h has the picture. */
#include "dpdk/eal.h"

#include "dpdk/capture.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_debug.h>
#include <rte_eal.h>
#include <rte_errno.h>

enum { ARGS_MAX = 64, CPUS_TEXT = 1024 };

_Thread_local struct eal_guard *eal_guard EAL_TLS;
static _Thread_local const void *self EAL_TLS;

static struct {
  bool running;
  bool foreign; /* the application had started it */
  int nargs;
  char *args[ARGS_MAX + 4]; /* as the first caller gave them; EAL keeps pointers into its own copy */
  char failed[DPDK_DETAIL_BYTES];
} eal;

static atomic_bool broken;
static char broken_by[DPDK_DETAIL_BYTES];

int dpdk_fail(char *detail, int error, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(detail, DPDK_DETAIL_BYTES, format, args);
  va_end(args);
  return error;
}

/* ---- giving up ------------------------------------------------------------------------------ */

bool eal_broken(void) {
  return atomic_load_explicit(&broken, memory_order_acquire);
}

int eal_explain_broken(char *detail) {
  return dpdk_fail(detail, -EIO, "DPDK has given up in this process (%s): start the program again",
                   broken_by);
}

static _Noreturn void give_up(const char *who, const char *format, va_list args) {
  static atomic_flag first = ATOMIC_FLAG_INIT;
  if (!atomic_flag_test_and_set(&first)) {
    size_t n = (size_t)snprintf(broken_by, sizeof broken_by, "%s: ", who);
    vsnprintf(broken_by + n, sizeof broken_by - n, format, args);
    broken_by[strcspn(broken_by, "\n")] = '\0';
  }
  atomic_store_explicit(&broken, true, memory_order_release);
  struct eal_guard *to = eal_guard;
  if (to != NULL) {
    eal_guard = NULL;
    __builtin_longjmp(to->env, 1);
  }
  /* One of DPDK's own threads: nobody waits for it, and it may hold what it likes. */
  for (;;)
    pause();
}

/* In front of DPDK's own. */
__attribute__((visibility("default"))) void __rte_panic(const char *function, const char *format, ...) {
  va_list args;
  va_start(args, format);
  give_up(function, format, args);
}

__attribute__((visibility("default"))) void rte_exit(int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  give_up("rte_exit", format, args);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

struct job {
  int (*run)(void *);
  void *arg;
  const void *self;
  int rc;
};

const void *eal_self(void) {
  if (self == NULL)
    self = &self;
  return self;
}

static void *job_main(void *arg) {
  struct job *job = arg;
  self = job->self;
  struct eal_guard guard;
  capture_begin();
  if (EAL_GUARD(&guard)) {
    job->rc = -EIO;
  } else {
    job->rc = job->run(job->arg);
    eal_unguard();
  }
  capture_end();
  return NULL;
}

int eal_run(int (*run)(void *), void *arg) {
  if (eal_broken())
    return -EIO;
  struct job job = {.run = run, .arg = arg, .self = eal_self()};
  /* EAL's own threads inherit the mask: no signal of the application ends up in one of them. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  int rc = pthread_create(&thread, NULL, job_main, &job);
  if (rc == 0)
    pthread_join(thread, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return rc != 0 ? -rc : job.rc;
}

void eal_hush(void) {
  capture_clear();
}

const char *eal_said(char text[DPDK_DETAIL_BYTES]) {
  capture_text(text, DPDK_DETAIL_BYTES);
  return text;
}

/* ---- starting --------------------------------------------------------------------------------- */

/* Does a cluster of short options contain one that prints and exits? Those that take an argument end it. */
static bool prints(const char *arg) {
  if (arg[0] != '-')
    return false;
  if (arg[1] == '-') /* getopt takes any beginning that is unique */
    return strncmp(arg, "--he", 4) == 0 || strncmp(arg, "--vers", 6) == 0;
  for (const char *c = arg + 1; *c != '\0' && strchr("abcdlmnrsSw", *c) == NULL; c++)
    if (*c == 'h' || *c == 'v')
      return true;
  return false;
}

static bool names_cores(const char *arg) {
  return strncmp(arg, "-l", 2) == 0 || strncmp(arg, "-c", 2) == 0 || strncmp(arg, "-S", 2) == 0 ||
         strncmp(arg, "--lc", 4) == 0;
}

/* One lcore on all CPUs of the caller: EAL makes no worker threads, and its own few go where the caller may.
 */
static void one_core(char text[CPUS_TEXT]) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  sched_getaffinity(0, sizeof cpus, &cpus);
  int n = snprintf(text, CPUS_TEXT, "--lcores=0@(");
  bool any = false;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE && n < CPUS_TEXT - 8; cpu++) {
    if (!CPU_ISSET(cpu, &cpus))
      continue;
    n += snprintf(text + n, (size_t)(CPUS_TEXT - n), "%s%u", any ? "," : "", cpu);
    any = true;
  }
  snprintf(text + n, (size_t)(CPUS_TEXT - n), ")");
}

static const struct {
  const char *said, *remedy;
} remedies[] = {
    {"hugepage", "reserve some (sysctl vm.nr_hugepages=512, and mount hugetlbfs), or let EAL do without: eal "
                 "arguments --no-huge --no-shconf"},
    {"hugetlbfs", "mount hugetlbfs, or let EAL do without: eal arguments --no-huge --no-shconf"},
    {"option", "take that out of the eal arguments"},
    {"command line", "correct the eal arguments"},
    {"runtime directory", "make /run writable, or add --no-shconf to the eal arguments"},
    {"lcore", "name CPUs that the process may use in the eal arguments"},
    {"memory", "give it less (-m) or make more available"},
    {"dlopen", "correct the path of -d in the eal arguments"},
};

static int explain_start(char *detail) {
  char said[DPDK_DETAIL_BYTES];
  if (eal_broken())
    return eal_explain_broken(detail);
  eal_said(said);
  const char *remedy = "correct the eal arguments";
  for (size_t i = 0; i < sizeof remedies / sizeof *remedies; i++)
    if (strcasestr(said, remedies[i].said) != NULL) {
      remedy = remedies[i].remedy;
      break;
    }
  dpdk_fail(detail, -EIO, "DPDK's EAL did not start (%s): %s", said, remedy);
  memcpy(eal.failed, detail, sizeof eal.failed);
  return -EIO;
}

struct start {
  int argc;
  char **argv;
  int error; /* rte_errno */
};

static int start_job(void *arg) {
  struct start *start = arg;
  int rc = rte_eal_init(start->argc, start->argv);
  start->error = rte_errno;
  return rc < 0 ? -EIO : 0;
}

static bool same_args(const hy_dpdk_config *config) {
  if ((int)config->neal != eal.nargs)
    return false;
  for (int i = 0; i < eal.nargs; i++)
    if (strcmp(config->eal[i], eal.args[i]) != 0)
      return false;
  return true;
}

static bool is_pci(const char *port) {
  unsigned a, b, c, d;
  return sscanf(port, "%x:%x:%x.%u", &a, &b, &c, &d) == 4 || sscanf(port, "%x:%x.%u", &a, &b, &c) == 3;
}

static void remember_args(const hy_dpdk_config *config) {
  for (int i = 0; i < eal.nargs; i++)
    free(eal.args[i]);
  eal.nargs = 0;
  for (uint32_t i = 0; i < config->neal; i++)
    eal.args[eal.nargs++] = strdup(config->eal[i]);
}

int eal_start(const hy_dpdk_config *config, char *detail) {
  if (eal_broken())
    return eal_explain_broken(detail);
  if (eal.running) {
    if (config->neal > 0 && !eal.foreign && !same_args(config))
      return dpdk_fail(detail, -EALREADY,
                       "EAL runs in this process already, with other arguments: give every DPDK port of an "
                       "application the same");
    return 0;
  }
  if (config->neal > ARGS_MAX)
    return dpdk_fail(detail, -EINVAL, "%u eal arguments are more than %d: shorten them", config->neal,
                     ARGS_MAX);
  bool cores = false;
  for (uint32_t i = 0; i < config->neal; i++) {
    if (prints(config->eal[i]))
      return dpdk_fail(detail, -EINVAL, "%s makes EAL print and exit: take it out of the eal arguments",
                       config->eal[i]);
    cores = cores || names_cores(config->eal[i]);
  }

  /* EAL keeps pointers into them: never freed once it runs. */
  static char *argv[ARGS_MAX + 8];
  static char core_text[CPUS_TEXT];
  int argc = 0;
  argv[argc++] = strdup("hybrid");
  for (uint32_t i = 0; i < config->neal; i++)
    argv[argc++] = strdup(config->eal[i]);
  if (config->neal == 0) {
    argv[argc++] = strdup("--no-shconf");
    argv[argc++] = strdup("--no-huge");
    argv[argc++] = strdup("--no-telemetry");
    if (is_pci(config->port)) {
      argv[argc++] = strdup("-a");
      argv[argc++] = strdup(config->port);
    } else {
      argv[argc++] = strdup("--no-pci");
    }
  }
  if (!cores) {
    one_core(core_text);
    argv[argc++] = strdup(core_text);
  }
  argv[argc] = NULL;

  eal_hush();
  struct start start = {.argc = argc, .argv = argv};
  if (eal_run(start_job, &start) == 0) {
    eal.running = true;
    remember_args(config);
    return 0;
  }
  if (start.error == EALREADY && eal.failed[0] == '\0') {
    eal.running = eal.foreign = true;
    return 0;
  }
  if (start.error == EALREADY)
    return dpdk_fail(detail, -EIO, "%.300s; it cannot be tried twice: start the program again", eal.failed);
  return explain_start(detail);
}
