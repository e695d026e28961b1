/* SPDX-License-Identifier: Apache-2.0 */
/* The arguments, the shards, and the loop that each of them lives in; see agent.h. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Orders are looked for so often while nothing happens. */
#define LOOK_NS (300 * 1000)

enum { EVENTS = 64, SAID_MAX = 4096, PAUSE_MS = 1 };

static int config_set(hy_config *config, const char *text) {
  static const struct {
    const char *name;
    size_t at;
  } fields[] = {
      {"frames", offsetof(hy_config, frames)},
      {"frame_size", offsetof(hy_config, frame_size)},
      {"sockets", offsetof(hy_config, sockets)},
      {"connections", offsetof(hy_config, connections)},
      {"tokens", offsetof(hy_config, tokens)},
      {"rcvbuf_bytes", offsetof(hy_config, rcvbuf_bytes)},
      {"sndbuf_bytes", offsetof(hy_config, sndbuf_bytes)},
      {"app_frames_max", offsetof(hy_config, app_frames_max)},
      {"frame_prefix_bytes", offsetof(hy_config, frame_prefix_bytes)},
  };
  const char *value = strchr(text, '=');
  if (value == NULL)
    return -EINVAL;
  size_t len = (size_t)(value - text);
  uint32_t number = (uint32_t)strtoul(value + 1, NULL, 10);
  if (strncmp(text, "ports", len) == 0) {
    config->port_lo = (uint16_t)number;
    config->port_hi =
        (uint16_t)strtoul(strchr(value, '-') == NULL ? value : strchr(value, '-') + 1, NULL, 10);
    return 0;
  }
  if (strncmp(text, "spin_ns", len) == 0) {
    config->spin_ns = number;
    return 0;
  }
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (strlen(fields[i].name) == len && strncmp(fields[i].name, text, len) == 0) {
      memcpy((char *)config + fields[i].at, &number, sizeof number);
      return 0;
    }
  return -EINVAL;
}

static struct spec spec_default(void) {
  struct spec spec = {.in = STDIN_FILENO, .out = STDOUT_FILENO, .cpu = -1};
  hy_config_default(&spec.config);
  return spec;
}

/* How many shards the arguments describe, or -EINVAL. */
static int arguments_parse(int argc, char **argv, struct spec specs[AGENT_SHARDS]) {
  static const struct option options[] = {
      {"io", required_argument, NULL, 'i'},
      {"pin", required_argument, NULL, 'p'},
      {"config", required_argument, NULL, 'c'},
      {"link", required_argument, NULL, 'l'},
      {"addr", required_argument, NULL, 'd'},
      {"neigh", required_argument, NULL, 'n'},
      {"attach", required_argument, NULL, 'a'},
      {"and", no_argument, NULL, '&'},
      {NULL, 0, NULL, 0},
  };
  int n = 0, option, rc = 0;
  struct spec *spec = &specs[0];
  *spec = spec_default();
  while (rc == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    char *end;
    switch (option) {
    case 'i':
      spec->in = (int)strtol(optarg, &end, 10);
      spec->out = *end == ',' ? (int)strtol(end + 1, NULL, 10) : -1;
      break;
    case 'p':
      spec->cpu = (int)strtol(optarg, NULL, 10);
      break;
    case 'c':
      rc = config_set(&spec->config, optarg);
      break;
    case 'l':
      rc = host_link_parse(spec, optarg);
      break;
    case 'd':
      rc = host_addr_parse(spec, optarg);
      break;
    case 'n':
      rc = host_neigh_parse(spec, optarg);
      break;
    case 'a':
      if (spec->nattaches == AGENT_ATTACHES)
        return -EINVAL;
      spec->attaches[spec->nattaches++] = optarg;
      break;
    case '&':
      if (++n == AGENT_SHARDS)
        return -EINVAL;
      spec = &specs[n];
      *spec = spec_default();
      break;
    default:
      return -EINVAL;
    }
  }
  return rc < 0 ? rc : n + 1;
}

static int agent_open(struct agent *a, const struct spec *spec) {
  a->spec = spec;
  a->sockets = calloc(AGENT_SOCKETS, sizeof *a->sockets);
  a->held = calloc(AGENT_HELD, sizeof *a->held);
  a->out = fdopen(spec->out, "w");
  if (a->sockets == NULL || a->held == NULL || a->out == NULL)
    return -ENOMEM;
  setvbuf(a->out, NULL, _IOLBF, 0);
  if (fcntl(spec->in, F_SETFL, O_NONBLOCK) < 0)
    return -errno;
  int rc = hy_shard_open(&spec->config, &a->shard);
  return rc == 0 && spec->nlinks > 0 ? host_give(spec, a->shard) : rc;
}

static void agent_close(struct agent *a) {
  hy_shard_close(a->shard);
  for (unsigned i = 0; a->sockets != NULL && i < AGENT_SOCKETS; i++)
    for (struct op *op = a->sockets[i].ops, *next; op != NULL; op = next) {
      next = op->next;
      free(op);
    }
  free(a->sockets);
  free(a->held);
}

static int64_t patience(struct agent *a) {
  if (a->nap_id == 0)
    return LOOK_NS;
  uint64_t now = agent_now_ns();
  return now < a->nap_until_ns ? (int64_t)(a->nap_until_ns - now) : 0;
}

/*
 * Two shards that can only be polled would take both cores of a small machine from everybody else: a wait
 * that found nothing and did not sleep is followed by a moment in which only orders are waited for.
 */
static void give_way(struct agent *a, uint64_t *slept) {
  uint64_t sleeps = hy_stat(a->shard, a->sleeps_index);
  if (sleeps == *slept) {
    struct pollfd orders = {.fd = a->spec->in, .events = POLLIN};
    poll(&orders, 1, PAUSE_MS);
  }
  *slept = sleeps;
}

static void *agent_live(void *argument) {
  struct agent *a = argument;
  if (a->spec->cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)a->spec->cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  hy_event events[EVENTS];
  uint64_t slept = 0;
  while (strcmp(hy_stat_name(a->sleeps_index), "sleeps") != 0)
    a->sleeps_index++;
  while (a->nap_id != 0 || orders_obey(a)) {
    int n = hy_wait_any(a->shard, events, EVENTS, patience(a));
    if (n < 0 && n != -EINTR) {
      answer_with(a, 0, n, ", \"event\": \"the wait failed\"");
      break;
    }
    for (int i = 0; i < n; i++)
      op_event(a, &events[i]);
    if (n == 0 && a->nap_id == 0)
      give_way(a, &slept);
    if (a->nap_id != 0 && (n > 0 || agent_now_ns() >= a->nap_until_ns))
      orders_nap_over(a, n > 0 ? (unsigned)n : 0);
  }
  return NULL;
}

int main(int argc, char **argv) {
  static struct spec specs[AGENT_SHARDS];
  static struct agent agents[AGENT_SHARDS];
  char said[SAID_MAX] = "";
  pthread_t thread;
  int n = arguments_parse(argc, argv, specs), rc = n < 0 ? n : 0;
  if (n < 0) {
    fprintf(stderr, "%s: an argument that agent.h does not know\n", argv[0]);
    return 2;
  }
  for (int i = 0; rc == 0 && i < n; i++)
    rc = agent_open(&agents[i], &specs[i]);
  if (rc == 0)
    rc = attach_all(agents, (unsigned)n, said, sizeof said);
  for (int i = 0; i < n && agents[i].out != NULL; i++)
    answer_with(&agents[i], 0, rc, ", \"obtained\": {%s}, \"detail\": \"%s\"", said,
                rc < 0 ? hy_error_detail() : "");
  if (rc == 0 && n > 1)
    rc = -pthread_create(&thread, NULL, agent_live, &agents[1]);
  if (rc == 0) {
    agent_live(&agents[0]);
    if (n > 1)
      pthread_join(thread, NULL);
  }
  for (int i = 0; i < n; i++)
    agent_close(&agents[i]);
  return rc == 0 ? 0 : 1;
}
