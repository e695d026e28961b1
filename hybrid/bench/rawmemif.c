/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `raw-memif` subject of the round-trip benchmark: frames over DPDK's memif
 * port, from one process to another and back with no stack, which is the least
 * that any stack on it can take.
 *
 *     hybrid-bench-rawmemif --echo --socket PATH [--core N]
 *     hybrid-bench-rawmemif --ping --socket PATH [--core N] [--size BYTES]
 *
 * The echo makes the socket, the ping comes to it. Both speak bench.h's
 * conversation as rawxdp.c does: --ping one sample per frame, which spins for its
 * reply; --echo announces itself, turns round what comes, and ends with its
 * standard input. A memif port has nothing to sleep on when it is polled: while no
 * round is under way the echo looks once a millisecond, to leave its core to
 * another subject.
 */
#include "bench/bench.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MBUFS = 4096, MBUF_BYTES = RTE_MBUF_DEFAULT_BUF_SIZE, RING = 1024, BURST = 32, SIZE_MAX_BYTES = 1514 };
static const uint64_t patience_ns = 5000000000u; /* a frame that takes this long is lost */
static const uint64_t quiet_ns = 20000000u;      /* without a frame: no round is under way */

struct port {
  uint16_t id;
  struct rte_mempool *pool;
  uint16_t size_bytes;
  uint64_t sequence;
};

struct probe {
  struct rte_ether_hdr ether;
  uint64_t sequence;
};

static void eal_start(const char *vdev) {
  char program[] = "hybrid-bench-rawmemif", memory[] = "64", device[160];
  char *argv[] = {program,
                  (char[]){"--no-pci"},
                  (char[]){"--no-shconf"},
                  (char[]){"--no-huge"},
                  (char[]){"-m"},
                  memory,
                  (char[]){"--no-telemetry"},
                  (char[]){"--log-level=error"},
                  device,
                  NULL};
  if ((size_t)snprintf(device, sizeof device, "--vdev=%s", vdev) >= sizeof device)
    bench_fail("the path of the socket is too long");
  if (rte_eal_init((int)(sizeof argv / sizeof argv[0]) - 1, argv) < 0)
    bench_fail("DPDK: %s", rte_strerror(rte_errno));
}

static void port_open(struct port *port, bool server, const char *path) {
  char vdev[128];
  snprintf(vdev, sizeof vdev, "net_memif0,role=%s,socket=%s,socket-abstract=no", server ? "server" : "client",
           path);
  eal_start(vdev);
  struct rte_eth_conf conf = {0};
  port->pool = rte_pktmbuf_pool_create("frames", MBUFS, 0, 0, MBUF_BYTES, SOCKET_ID_ANY);
  int error = port->pool ? 0 : -rte_errno;
  if (!error)
    error = rte_eth_dev_configure(port->id, 1, 1, &conf);
  if (!error)
    error = rte_eth_rx_queue_setup(port->id, 0, RING, rte_socket_id(), NULL, port->pool);
  if (!error)
    error = rte_eth_tx_queue_setup(port->id, 0, RING, rte_socket_id(), NULL);
  if (!error)
    error = rte_eth_dev_start(port->id);
  if (error)
    bench_fail("memif at %s: %s", path, rte_strerror(-error));
}

static bool port_is_up(const struct port *port) {
  struct rte_eth_link link;
  return rte_eth_link_get_nowait(port->id, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

static void nap(uint64_t ns) {
  struct timespec time = {.tv_nsec = (long)ns};
  nanosleep(&time, NULL);
}

/* What there is no room for is dropped: there never are so many under way. */
static void send_frames(const struct port *port, struct rte_mbuf **frames, uint16_t n) {
  for (uint16_t sent = rte_eth_tx_burst(port->id, 0, frames, n); sent < n; sent++)
    rte_pktmbuf_free(frames[sent]);
}

static bool input_ended(void) {
  struct pollfd on = {.fd = STDIN_FILENO, .events = POLLIN};
  char ignored[64];
  return poll(&on, 1, 0) > 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

static void echo(const struct port *port) {
  struct rte_mbuf *frames[BURST];
  struct bench_idle idle = {0};
  bench_ready();
  for (;;) {
    uint16_t n = rte_eth_rx_burst(port->id, 0, frames, BURST);
    if (n > 0) {
      for (uint16_t i = 0; i < n; i++) {
        struct rte_ether_hdr *ether = rte_pktmbuf_mtod(frames[i], struct rte_ether_hdr *);
        struct rte_ether_addr to = ether->dst_addr;
        ether->dst_addr = ether->src_addr;
        ether->src_addr = to;
      }
      send_frames(port, frames, n);
      idle = (struct bench_idle){0};
    } else if (bench_quiet(&idle, quiet_ns)) {
      if (input_ended())
        return;
      nap(1000000);
      idle.polls = 2 * 1024 - 1; /* looks at the clock again after the next empty burst */
    }
  }
}

static uint32_t round_trip(void *context) {
  struct port *port = context;
  struct rte_mbuf *frame = rte_pktmbuf_alloc(port->pool), *frames[BURST];
  if (!frame)
    bench_fail("out of frames");
  struct probe probe = {.sequence = ++port->sequence};
  uint64_t sent_ns = bench_now_ns();
  memcpy(rte_pktmbuf_append(frame, port->size_bytes), &probe, sizeof probe);
  send_frames(port, &frame, 1);
  for (;;) {
    bool mine = false;
    uint16_t n = rte_eth_rx_burst(port->id, 0, frames, BURST);
    for (uint16_t i = 0; i < n; i++) {
      const struct probe *reply = rte_pktmbuf_mtod(frames[i], const struct probe *);
      mine |= frames[i]->pkt_len == port->size_bytes && reply->sequence == probe.sequence;
      rte_pktmbuf_free(frames[i]);
    }
    uint64_t ns = bench_now_ns() - sent_ns;
    if (mine)
      return (uint32_t)ns;
    if (ns > patience_ns)
      bench_fail("no answer for %u s", (unsigned)(patience_ns / 1000000000u));
  }
}

static void ping(struct port *port) {
  uint64_t give_up_ns = bench_now_ns() + patience_ns;
  while (!port_is_up(port)) {
    if (bench_now_ns() > give_up_ns)
      bench_fail("the other end of the memif did not come up");
    nap(1000000);
  }
  bench_ready();
  for (struct bench_round round; bench_next_round(&round);) {
    uint32_t *ns = bench_take(&round, round_trip, port);
    nap(2 * quiet_ns); /* the echo rests before the answer is given */
    bench_answer_ns(ns, round.count);
  }
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"echo", no_argument, NULL, 'e'},         {"ping", no_argument, NULL, 'p'},
      {"socket", required_argument, NULL, 's'}, {"size", required_argument, NULL, 'b'},
      {"core", required_argument, NULL, 'c'},   {NULL, 0, NULL, 0}};
  struct port port = {.size_bytes = 64};
  const char *path = NULL;
  int role = 0, core = -1;
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (opt) {
    case 'e':
    case 'p':
      role = opt;
      break;
    case 's':
      path = optarg;
      break;
    case 'b':
      port.size_bytes = (uint16_t)bench_number("--size", optarg, SIZE_MAX_BYTES);
      break;
    case 'c':
      core = (int)bench_number("--core", optarg, 1023);
      break;
    default:
      return 2;
    }
  }
  if (!role || !path || port.size_bytes < sizeof(struct probe) || optind != argc)
    bench_fail("expected --echo or --ping, --socket PATH, and a --size of at least %zu",
               sizeof(struct probe));
  port_open(&port, role == 'e', path);
  bench_pin(core); /* after DPDK, which puts its main thread on a core of its own choice */
  if (role == 'e')
    echo(&port);
  else
    ping(&port);
  rte_eth_dev_stop(port.id);
  rte_eal_cleanup();
  return 0;
}
