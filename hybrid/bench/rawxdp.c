/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `raw-afxdp` subject of the round-trip benchmark: frames over our AF_XDP
 * device with no stack above it, which is the least that any stack on it can take.
 *
 *     hybrid-bench-rawxdp --echo --ifname NAME
 *     hybrid-bench-rawxdp --ping --ifname NAME --dst-mac MAC [--size BYTES]
 *
 *     [--queue N] [--mode native|generic] [--copy auto|zerocopy|copy] [--busy-poll]
 *     [--port P] [--core N]
 *
 * Both ends attach redirect.h's program, which goes when the program ends. The
 * frames are IPv4 UDP from 198.18.0.1 to 198.18.0.2 (RFC 2544's addresses) and
 * back. --ping holds the conversation of bench.h: one sample per frame, which
 * spins for its reply. --echo announces itself the same way, then swaps addresses
 * and sends back what comes; it sleeps while no round is under way, to leave its
 * core to another subject, and ends with its standard input.
 */
#include "afxdp/afxdp.h"
#include "bench/bench.h"
#include "bench/redirect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const uint64_t patience_ns = 5000000000u; /* a frame that takes this long is lost */
static const uint64_t quiet_ns = 20000000u;      /* without a frame: no round is under way */

enum { FRAMES = 4096, FRAME_SIZE = 2048, ADDRESS_PING = 0xc6120001, ADDRESS_ECHO = 0xc6120002 };

/* A frame of ours. No checksum over the payload (RFC 768 allows zero), as there is no stack to make one. */
struct probe {
  struct ether_header ether;
  struct iphdr ip;
  struct udphdr udp;
  uint64_t sequence;
} __attribute__((packed));
static_assert(sizeof(struct probe) == 50, "fits the shortest Ethernet frame");

struct settings {
  int role;
  char ifname[IF_NAMESIZE];
  bool generic;
  hy_afxdp_config device;
  uint16_t port;
  uint32_t size_bytes;
  struct ether_addr dst_mac;
  int core;
};

static void interface_mac(const char *ifname, struct ether_addr *out) {
  struct ifreq request = {0};
  memcpy(request.ifr_name, ifname, strnlen(ifname, sizeof request.ifr_name - 1));
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
    bench_fail("%s: %s", ifname, strerror(errno));
  close(fd);
  memcpy(out, request.ifr_hwaddr.sa_data, sizeof *out);
}

static uint16_t ip_checksum(struct iphdr ip) {
  uint16_t words[sizeof ip / 2];
  memcpy(words, &ip, sizeof words);
  uint32_t sum = 0;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    sum += words[i];
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t) ~((sum & 0xffff) + (sum >> 16));
}

static struct probe probe_make(const struct settings *s) {
  struct probe p = {
      .ether.ether_type = htons(ETHERTYPE_IP),
      .ip = {.version = 4,
             .ihl = 5,
             .tot_len = htons((uint16_t)(s->size_bytes - sizeof p.ether)),
             .ttl = 64,
             .protocol = IPPROTO_UDP,
             .saddr = htonl(ADDRESS_PING),
             .daddr = htonl(ADDRESS_ECHO)},
      .udp = {.source = htons(s->port),
              .dest = htons(s->port),
              .len = htons((uint16_t)(s->size_bytes - sizeof p.ether - sizeof p.ip))},
  };
  struct ether_addr own;
  interface_mac(s->ifname, &own);
  memcpy(p.ether.ether_shost, &own, sizeof own);
  memcpy(p.ether.ether_dhost, &s->dst_mac, sizeof s->dst_mac);
  p.ip.check = ip_checksum(p.ip);
  return p;
}

/* Swapping leaves both checksums as they were. */
static void probe_turn(struct probe *p) {
  uint8_t mac[ETH_ALEN];
  memcpy(mac, p->ether.ether_dhost, sizeof mac);
  memcpy(p->ether.ether_dhost, p->ether.ether_shost, sizeof mac);
  memcpy(p->ether.ether_shost, mac, sizeof mac);
  uint32_t address = p->ip.saddr;
  p->ip.saddr = p->ip.daddr;
  p->ip.daddr = address;
}

static void send_frames(struct hy_device *dev, const uint32_t *frames, unsigned n) {
  uint32_t unused[DEVICE_BURST];
  for (unsigned sent = 0; sent < n;) {
    sent += dev->ops->tx_burst(dev, frames + sent, n - sent);
    if (sent < n) { /* a poll makes room; what arrives meanwhile is more than both ends have in flight */
      unsigned got = dev->ops->rx_burst(dev, unused, DEVICE_BURST);
      for (unsigned i = 0; i < got; i++)
        frame_unref(dev->arena, unused[i]);
    }
  }
}

/* Until there is a frame; false: standard input has ended. */
static bool sleep_until_frame(struct hy_device *dev) {
  for (;;) {
    if (dev->ops->wait_arm(dev))
      return true;
    struct pollfd on[2] = {{.fd = dev->ops->wait_fd(dev), .events = POLLIN},
                           {.fd = STDIN_FILENO, .events = POLLIN}};
    if (poll(on, 2, -1) < 0 && errno != EINTR)
      bench_fail("poll: %s", strerror(errno));
    char ignored[64];
    if (on[1].revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
      return false;
    if (on[0].revents & POLLIN)
      return true;
  }
}

static void echo(struct hy_device *dev) {
  uint32_t frames[DEVICE_BURST];
  bench_ready();
  while (sleep_until_frame(dev)) {
    struct bench_idle idle = {0};
    while (!bench_quiet(&idle, quiet_ns)) {
      unsigned n = dev->ops->rx_burst(dev, frames, DEVICE_BURST);
      if (n == 0)
        continue;
      for (unsigned i = 0; i < n; i++)
        probe_turn((struct probe *)(void *)frame_data(dev->arena, frames[i]));
      send_frames(dev, frames, n);
      idle = (struct bench_idle){0};
    }
  }
}

struct pinger {
  struct hy_device *dev;
  const struct settings *settings;
  struct probe probe;
};

static uint32_t round_trip(void *context) {
  struct pinger *pinger = context;
  struct hy_device *dev = pinger->dev;
  const struct settings *s = pinger->settings;
  struct probe *p = &pinger->probe;
  uint32_t frames[DEVICE_BURST];
  p->sequence++;
  uint64_t sent_ns = bench_now_ns();
  uint32_t index = frame_alloc(dev->arena);
  if (index == FRAME_NONE)
    bench_fail("out of frames");
  struct frame *f = frame_meta(dev->arena, index);
  memcpy(frame_data(dev->arena, index), p, sizeof *p);
  f->len = (uint16_t)s->size_bytes;
  send_frames(dev, &index, 1);
  for (unsigned tries = 1;; tries++) {
    bool mine = false;
    unsigned n = dev->ops->rx_burst(dev, frames, DEVICE_BURST);
    for (unsigned i = 0; i < n; i++) {
      const struct probe *reply = (const void *)frame_data(dev->arena, frames[i]);
      mine |= frame_meta(dev->arena, frames[i])->len == s->size_bytes && reply->sequence == p->sequence;
      frame_unref(dev->arena, frames[i]);
    }
    uint64_t ns = bench_now_ns() - sent_ns;
    if (mine)
      return ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
    if (ns > patience_ns)
      bench_fail("no answer for %u s", (unsigned)(patience_ns / 1000000000u));
  }
}

static void ping(struct hy_device *dev, const struct settings *s) {
  struct pinger pinger = {.dev = dev, .settings = s, .probe = probe_make(s)};
  bench_ready();
  for (struct bench_round round; bench_next_round(&round);) {
    uint32_t *ns = bench_take(&round, round_trip, &pinger);
    /* The other end is asleep before the answer is given: the next subject finds a quiet core. */
    struct timespec quiet = {.tv_nsec = (long)(2 * quiet_ns)};
    nanosleep(&quiet, NULL);
    bench_answer_ns(ns, round.count);
  }
}

static uint8_t one_of(const char *option, const char *text, const char *const *words, uint8_t count) {
  for (uint8_t i = 0; i < count; i++)
    if (strcmp(text, words[i]) == 0)
      return i;
  bench_fail("%s can't be \"%s\"", option, text);
}

static void settings_read(struct settings *s, int argc, char **argv) {
  static const struct option options[] = {
      {"echo", no_argument, NULL, 'e'},         {"ping", no_argument, NULL, 'p'},
      {"ifname", required_argument, NULL, 'i'}, {"dst-mac", required_argument, NULL, 'd'},
      {"size", required_argument, NULL, 's'},   {"queue", required_argument, NULL, 'q'},
      {"mode", required_argument, NULL, 'm'},   {"copy", required_argument, NULL, 'y'},
      {"busy-poll", no_argument, NULL, 'b'},    {"port", required_argument, NULL, 'P'},
      {"core", required_argument, NULL, 'c'},   {NULL, 0, NULL, 0},
  };
  static const char *const modes[] = {"native", "generic"};
  static const char *const copies[] = {"auto", "zerocopy", "copy"};
  *s = (struct settings){
      .device = {.struct_size = sizeof s->device, .xsk_fd = -1, .map_fd = -1},
      .port = 7007,
      .size_bytes = 64,
      .core = -1,
  };
  bool dst_mac = false;
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (opt) {
    case 'e':
    case 'p':
      s->role = opt;
      break;
    case 'i':
      s->device.ifindex = if_nametoindex(optarg);
      if (s->device.ifindex == 0)
        bench_fail("there is no interface %s here", optarg);
      snprintf(s->ifname, sizeof s->ifname, "%s", optarg);
      break;
    case 'd':
      dst_mac = ether_aton_r(optarg, &s->dst_mac) != NULL;
      break;
    case 's':
      s->size_bytes = bench_number("--size", optarg, 1514);
      break;
    case 'q':
      s->device.queue = bench_number("--queue", optarg, REDIRECT_QUEUES - 1);
      break;
    case 'm':
      s->generic = one_of("--mode", optarg, modes, 2) == 1;
      break;
    case 'y':
      s->device.copy = one_of("--copy", optarg, copies, 3);
      break;
    case 'b':
      s->device.busy_poll = 1;
      break;
    case 'P':
      s->port = (uint16_t)bench_number("--port", optarg, 65535);
      break;
    case 'c':
      s->core = (int)bench_number("--core", optarg, 1023);
      break;
    default:
      exit(2);
    }
  }
  if (!s->role || !s->device.ifindex || optind != argc || (s->role == 'p' && !dst_mac))
    bench_fail("expected --echo or --ping, --ifname NAME, and with --ping a --dst-mac");
  if (s->size_bytes < 64)
    bench_fail("--size is 64 to 1514");
  s->device.strict = s->device.copy != HY_XDP_COPY_AUTO;
}

int main(int argc, char **argv) {
  struct settings s;
  settings_read(&s, argc, argv);
  bench_pin(s.core);
  struct arena arena;
  int status = arena_init(&arena, FRAMES, FRAME_SIZE, 0, HY_HUGEPAGES_NO);
  if (status < 0)
    bench_fail("packet memory: %s", strerror(-status));
  struct redirect redirect;
  status = redirect_attach(&redirect, s.device.ifindex, s.generic, s.port);
  if (status < 0)
    bench_fail("steering frames of %s: %s", s.ifname, strerror(-status));
  s.device.map_fd = redirect.map_fd;
  hy_afxdp_obtained obtained;
  struct hy_device *dev;
  status = afxdp_open(&arena, &s.device, NULL, &obtained, &dev);
  if (status < 0)
    bench_fail("AF_XDP queue %u of %s: %s", s.device.queue, s.ifname, strerror(-status));
  fprintf(stderr, "%s %s, %s%s\n", s.ifname, s.generic ? "generic" : "native",
          obtained.zerocopy ? "zero-copy" : "copy", obtained.busy_poll ? ", busy polling" : "");
  if (s.role == 'e')
    echo(dev);
  else
    ping(dev, &s);
  dev->ops->close(dev);
  redirect_detach(&redirect);
  arena_fini(&arena);
  return 0;
}
