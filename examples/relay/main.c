/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay's command line.
 *
 *     hybrid serve relay -- --port 80 --to 10.0.0.9:8080
 *     hybrid-relay --port 8000 --to 127.0.0.1:80          kernel sockets on both sides, no privilege
 *
 * Started by hybrid it takes connections by the bypass and makes its own by kernel sockets, unless --listen
 * and
 * --connect say otherwise.
 */
#include "relay.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  long port;
  int listen, connect; /* enum hy_backend; AUTO: not said */
  const char *to;
};

static volatile sig_atomic_t stopping;

static void on_signal(int signal) {
  stopping = 1;
}

static int usage(void) {
  fputs(
      "usage: hybrid-relay --port PORT --to ADDRESS:PORT [--listen bypass|kernel] [--connect bypass|kernel]\n"
      "                    [--spin[=MICROSECONDS]]\n",
      stderr);
  return 2;
}

static int backend_parse(const char *text) {
  if (strcmp(text, "bypass") == 0)
    return HY_BACKEND_BYPASS;
  return strcmp(text, "kernel") == 0 ? HY_BACKEND_KERNEL : -1;
}

static bool options_parse(int argc, char **argv, struct options *o, hy_config *config, hy_addr *target) {
  static const struct option names[] = {
      {"port", required_argument, NULL, 'p'},   {"to", required_argument, NULL, 't'},
      {"listen", required_argument, NULL, 'l'}, {"connect", required_argument, NULL, 'c'},
      {"spin", optional_argument, NULL, 's'},   {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'p')
      o->port = strtol(optarg, NULL, 10);
    else if (option == 't')
      o->to = optarg;
    else if (option == 'l')
      o->listen = backend_parse(optarg);
    else if (option == 'c')
      o->connect = backend_parse(optarg);
    else if (option == 's')
      /* Without a number never sleep: the lowest latency, and a whole core. */
      config->spin_ns = optarg ? strtoull(optarg, NULL, 10) * 1000 : UINT64_MAX;
    else
      return false;
  }
  return optind == argc && o->port > 0 && o->port <= 65535 && o->listen >= 0 && o->connect >= 0 &&
         o->to != NULL && hy_addr_parse(o->to, target) == 0 && target->family != 0 && target->port != 0;
}

/* The shard that hybrid prepared, or one of our own without any device; kernel sockets are added to both. */
static int shard_open(struct options *o, const hy_config *config, hy_shard **out) {
  int rc = hy_shard_open_served(config, out);
  bool served = rc != -ENOENT;
  if (!served)
    rc = hy_shard_open(config, out);
  if (rc < 0)
    return rc;
  if (o->listen == HY_BACKEND_AUTO)
    o->listen = served ? HY_BACKEND_BYPASS : HY_BACKEND_KERNEL;
  if (o->connect == HY_BACKEND_AUTO)
    o->connect = HY_BACKEND_KERNEL;
  if (!served && (o->listen == HY_BACKEND_BYPASS || o->connect == HY_BACKEND_BYPASS)) {
    fprintf(stderr,
            "hybrid-relay: nobody has prepared a datapath for it: start it with `hybrid serve relay`, "
            "or use kernel sockets on both sides\n");
    return -ENODEV;
  }
  if (o->listen == HY_BACKEND_KERNEL || o->connect == HY_BACKEND_KERNEL)
    rc = hy_uring_attach(*out, NULL, NULL);
  return rc == -EBUSY ? 0 : rc; /* -EBUSY: the policy has asked for kernel sockets already */
}

int main(int argc, char **argv) {
  static struct relay relay;
  struct options options = {0};
  hy_config config;
  hy_config_default(&config);
  if (!options_parse(argc, argv, &options, &config, &relay.target))
    return usage();
  sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
  sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);

  int rc = shard_open(&options, &config, &relay.shard);
  relay.target_backend = options.connect;
  if (rc == 0)
    rc = relay_open(&relay, options.listen, (uint16_t)options.port);
  if (rc == 0)
    rc = hy_shard_ready(relay.shard);
  if (rc == 0) {
    printf("hybrid-relay: listening on tcp port %ld, to %s\n", options.port, options.to);
    fflush(stdout);
    rc = relay_run(&relay, &stopping);
    printf("hybrid-relay: %llu connections relayed, %llu refused\n", (unsigned long long)relay.relayed,
           (unsigned long long)relay.refused);
  }
  if (rc < 0)
    fprintf(stderr, "hybrid-relay: %s. %s\n", hy_strerror(rc), hy_error_detail());
  hy_shard_close(relay.shard);
  return rc < 0 ? 1 : 0;
}
