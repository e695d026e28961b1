/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of the kernel's servers in the throughput benchmark; peer.h
 * says what they are.
 *
 *     hybrid-bench-peer --engine epoll|io_uring --service echo|kv [--sleep] [--core N] ADDRESS PORT
 */
#include "bench/bench.h"
#include "bench/net.h"
#include "bench/peer.h"

#include <getopt.h>
#include <string.h>

int main(int argc, char **argv) {
  static const struct option options[] = {{"engine", required_argument, NULL, 'e'},
                                          {"service", required_argument, NULL, 's'},
                                          {"sleep", no_argument, NULL, 'w'},
                                          {"core", required_argument, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};
  struct peer peer = {0};
  const char *engine = "";
  int core = -1;
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (opt) {
    case 'e':
      engine = optarg;
      break;
    case 's':
      peer.service = service_named(optarg);
      break;
    case 'w':
      peer.sleep = true;
      break;
    case 'c':
      core = (int)bench_number("--core", optarg, 1023);
      break;
    default:
      return 2;
    }
  }
  void (*run)(const struct peer *) = strcmp(engine, "epoll") == 0      ? peer_epoll
                                     : strcmp(engine, "io_uring") == 0 ? peer_io_uring
                                                                       : NULL;
  if (argc - optind != 2 || !run || !peer.service)
    bench_fail("expected --engine epoll|io_uring, --service echo|kv, an address and a port");
  bench_pin(core);
  peer.service->init();
  peer.listener = net_listen(argv[optind], argv[optind + 1], SERVICE_CONNECTIONS);
  bench_ready();
  run(&peer);
}
