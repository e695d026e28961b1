/* SPDX-License-Identifier: Apache-2.0 */
/* The key-value server's command line. */
#include "bench/backend.h"
#include "server.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char usage[] =
    "usage: hybrid-kv [--port PORT] [--bind ADDRESS]... [--max-memory BYTES] [--max-clients N]\n"
    "                 [--spin[=MICROSECONDS]] [--backend SPEC]\n"
    "\n"
    "A key-value server that speaks Redis's protocol (RESP2) on hybrid's own TCP stack.\n"
    "\n"
    "  --port PORT         1..65535; default 6379\n"
    "  --bind ADDRESS      a local IPv4 or IPv6 address; may be repeated; default: all of them\n"
    "  --max-memory BYTES  for keys and values, with k, m or g; default 256m, at least 1m\n"
    "  --max-clients N     1..16384; default 1024\n"
    "  --spin[=US]         poll for so long before sleeping; without a number never sleep:\n"
    "                      the lowest latency, and a whole core; 0: sleep at once\n"
    "  --backend SPEC      run by itself on this backend, with no agent: uring, tap=NAME@ADDRESS/PREFIX, "
    "...\n";

enum { EXIT_USAGE = 2 };

static volatile sig_atomic_t stopping;

static void on_signal(int signal) {
  stopping = 1;
}

static bool read_number(const char *text, unsigned long long least, unsigned long long most,
                        unsigned long long *out) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || end == text || text[0] == '-')
    return false;
  unsigned shift = 0;
  if (*end != '\0') {
    switch (*end | 0x20) {
    case 'k':
      shift = 10;
      break;
    case 'm':
      shift = 20;
      break;
    case 'g':
      shift = 30;
      break;
    default:
      return false;
    }
    end++;
  }
  if (*end != '\0' || value > most >> shift || value << shift < least)
    return false;
  *out = value << shift;
  return true;
}

/* What is wrong with the command line, for a person; NULL: nothing. */
static const char *read_options(int argc, char **argv, struct server_options *o, const char **backend,
                                bool *help) {
  static const struct option names[] = {
      {"port", required_argument, NULL, 'p'},
      {"bind", required_argument, NULL, 'b'},
      {"max-memory", required_argument, NULL, 'm'},
      {"max-clients", required_argument, NULL, 'c'},
      {"spin", optional_argument, NULL, 's'},
      {"backend", required_argument, NULL, 'B'},
      {"help", no_argument, NULL, 'h'},
      {0},
  };
  unsigned long long number;
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    switch (option) {
    case 'p':
      if (!read_number(optarg, 1, 65535, &number))
        return "--port takes a number from 1 to 65535";
      o->kv.port = (uint16_t)number;
      break;
    case 'b':
      if (o->nbinds == SERVER_BINDS_MAX)
        return "--bind can be given 16 times";
      if (hy_addr_parse(optarg, &o->binds[o->nbinds]) < 0 || o->binds[o->nbinds].port != 0)
        return "--bind takes an IPv4 or IPv6 address without a port";
      o->nbinds++;
      break;
    case 'm':
      if (!read_number(optarg, 1 << 20, 1ull << 40, &number))
        return "--max-memory takes bytes, from 1m to 1024g";
      o->kv.max_memory_bytes = number;
      break;
    case 'c':
      if (!read_number(optarg, 1, 16384, &number))
        return "--max-clients takes a number from 1 to 16384";
      o->kv.max_clients = (uint32_t)number;
      break;
    case 's':
      if (optarg == NULL)
        o->spin_ns = UINT64_MAX;
      else if (read_number(optarg, 0, 1000000, &number))
        o->spin_ns = number > 0 ? number * 1000 : 1;
      else
        return "--spin takes microseconds, from 0 to 1000000, or nothing";
      break;
    case 'B':
      *backend = optarg;
      break;
    case 'h':
      *help = true;
      break;
    default:
      return ""; /* getopt has said it */
    }
  }
  if (optind < argc)
    return "it takes options only";
  for (unsigned i = 0; i < o->nbinds; i++)
    o->binds[i].port = o->kv.port;
  return NULL;
}

int main(int argc, char **argv) {
  static struct server_options options = {
      .kv = {.port = 6379, .max_clients = 1024, .max_memory_bytes = 256u << 20}};
  const char *backend = NULL;
  bool help = false;
  const char *wrong = read_options(argc, argv, &options, &backend, &help);
  if (wrong != NULL) {
    if (*wrong != '\0')
      fprintf(stderr, "hybrid-kv: %s\n", wrong);
    fputs("try: hybrid-kv --help\n", stderr);
    return EXIT_USAGE;
  }
  if (help) {
    fputs(usage, stdout);
    return 0;
  }
  sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
  sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
  if (getrandom(options.kv.hash_key, sizeof options.kv.hash_key, 0) != sizeof options.kv.hash_key) {
    fprintf(stderr, "hybrid-kv: no random key for its hash table: %s\n", strerror(errno));
    return 1;
  }

  hy_config config;
  hy_shard *shard = NULL;
  server_shard_config(&options, &config);
  int rc = backend_open(backend, &config, &shard);
  if (rc == -ENOENT && backend == NULL) {
    fputs("hybrid-kv: nobody has prepared a datapath for it: start it with `hybrid serve kv`, "
          "or with `hybrid run -- hybrid-kv`\n",
          stderr);
    return 1;
  }
  if (rc == 0)
    rc = server_run(shard, &options, &stopping);
  if (rc < 0)
    fprintf(stderr, "hybrid-kv: %s\n", backend_error(rc));
  hy_shard_close(shard);
  return rc < 0 ? 1 : 0;
}
