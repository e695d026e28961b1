/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DPDK ports seen from inside: one scenario per run, in a network namespace with the pair va-vb, whose vb has
 * 10.88.0.1/24.
 *
 *     dpdk-scenarios SCENARIO
 *
 * A scenario that does not hold says which line of it, and exits 1. It waits by polling, with a deadline.
 */
#include "core/shard.h"
#include "scenario.h"

#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAMES = 8192, IFINDEX = 7, KERNEL = 1, BYTES = 4 << 20, WITHIN_S = 20 };

/* ---- a shard with an address ------------------------------------------------------------------------- */

struct side {
  hy_shard *shard;
  hy_addr addr; /* 10.88.0.NUMBER */
  hy_dpdk_obtained got;
};

static hy_addr address(unsigned number, uint16_t port) {
  char text[HY_ADDR_STRLEN];
  snprintf(text, sizeof text, "10.88.0.%u:%u", number, port);
  hy_addr addr;
  CHECK(hy_addr_parse(text, &addr) == 0);
  return addr;
}

static void side_open(struct side *side, unsigned number) {
  hy_config config;
  hy_config_default(&config);
  config.frames = FRAMES;
  config.frame_size = 4096;
  config.app_frames_max = FRAMES / 2;
  config.frame_prefix_bytes = HY_DPDK_PREFIX;
  *side = (struct side){.addr = address(number, 0)};
  CHECK(hy_shard_open(&config, &side->shard) == 0);
}

static hy_dpdk_config port_config(const char *port) {
  return (hy_dpdk_config){.struct_size = sizeof(hy_dpdk_config), .ifindex = IFINDEX, .port = port};
}

static void must_attach(struct side *side, const hy_dpdk_config *config) {
  if (hy_dpdk_attach(side->shard, config, &side->got) < 0) {
    fprintf(stderr, "attach: %s\n", hy_error_detail());
    exit(1);
  }
}

static void mac_of(const char *interface, uint8_t mac[6]) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq request = {0};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
  CHECK(ioctl(fd, SIOCGIFHWADDR, &request) == 0);
  memcpy(mac, request.ifr_hwaddr.sa_data, 6);
  close(fd);
}

/* kernel: 10.88.0.1 is vb, and its MAC is known. Else the stack asks by ARP. */
static void side_address(struct side *side, bool kernel) {
  hy_host *host;
  CHECK(hy_host_create(&host) == 0);
  hy_host_link link = {.ifindex = IFINDEX, .mtu_bytes = 1500, .answers_arp = side->got.answers_arp};
  memcpy(link.mac, side->got.mac, 6);
  hy_host_addr addr = {.addr = side->addr, .ifindex = IFINDEX, .prefix_len = 24};
  hy_host_route route = {.dst = address(0, 0), .prefix_len = 24, .ifindex = IFINDEX};
  hy_host_neigh neigh = {.addr = address(KERNEL, 0), .ifindex = IFINDEX};
  if (kernel)
    mac_of("vb", neigh.mac);
  CHECK(hy_host_update(host, &link, 1, &addr, 1, &route, 1, &neigh, kernel) == 0);
  CHECK(hy_shard_set_host(side->shard, host) == 0);
  hy_host_close(host);
}

static uint64_t counter(const struct side *side, const char *name) {
  uint64_t found = 0;
  for (unsigned i = 0; i < hy_stat_count(); i++) {
    uint64_t value = hy_stat(side->shard, i);
    if (strcmp(hy_stat_name(i), name) == 0)
      found = value;
  }
  return found;
}

/* Closes the device; every frame must be back, except what connections still hold. */
static void side_detach(struct side *side) {
  CHECK(hy_shard_remove_device(side->shard, IFINDEX, 0) == 0);
}

static void nothing_held(const struct side *side) {
  const struct arena *arena = shard_arena(side->shard);
  CHECK(arena->free_count == arena->frames && !arena->lent);
}

/* ---- a stream from one shard to another, both polled here ---------------------------------------------- */

static uint8_t byte_at(uint64_t at) {
  return (uint8_t)(at * 31 + (at >> 8) * 7 + (at >> 16));
}

struct stream {
  struct side *from, *to;
  hy_qd listener, out, in;
  hy_qt out_qt;
  uint64_t sent, received;
  bool draining;
};

static void stream_push(struct stream *s) {
  while (s->sent < BYTES && !s->draining) {
    hy_sga sga;
    size_t len = 1400 < BYTES - s->sent ? 1400 : BYTES - s->sent;
    if (hy_sga_alloc(s->from->shard, len, &sga) < 0)
      return;
    uint64_t at = s->sent;
    for (uint32_t i = 0; i < sga.nsegs; i++)
      for (uint32_t j = 0; j < sga.segs[i].len_bytes; j++)
        ((uint8_t *)sga.segs[i].addr)[j] = byte_at(at++);
    int rc = hy_push(s->from->shard, s->out, &sga, NULL);
    if (rc == -EAGAIN) {
      hy_sga_free(s->from->shard, &sga);
      CHECK(hy_drain(s->from->shard, s->out, &s->out_qt) == 0);
      s->draining = true;
      return;
    }
    CHECK(rc == 0);
    s->sent += len;
  }
}

static void stream_take(struct stream *s, hy_event *event) {
  for (uint32_t i = 0; i < event->sga.nsegs; i++)
    for (uint32_t j = 0; j < event->sga.segs[i].len_bytes; j++)
      CHECK(((uint8_t *)event->sga.segs[i].addr)[j] == byte_at(s->received++));
  hy_sga_free(s->to->shard, &event->sga);
}

static void stream_event(struct stream *s, hy_event *event) {
  hy_qt qt;
  CHECK(event->status == 0);
  switch (event->op) {
  case HY_OP_ACCEPT:
    s->in = event->accepted;
    CHECK(hy_pop(s->to->shard, s->in, &qt) == 0);
    break;
  case HY_OP_POP:
    stream_take(s, event);
    if (s->received < BYTES)
      CHECK(hy_pop(s->to->shard, s->in, &qt) == 0);
    break;
  case HY_OP_CONNECT:
  case HY_OP_DRAIN:
    s->draining = false;
    stream_push(s);
    break;
  default:
    CHECK(false);
  }
}

static void stream_run(struct side *from, struct side *to) {
  struct stream s = {.from = from, .to = to, .draining = true};
  hy_qt qt;
  hy_addr at = to->addr;
  at.port = PORT;
  CHECK(hy_socket(to->shard, HY_STREAM, &s.listener) == 0 && hy_bind(to->shard, s.listener, &at) == 0 &&
        hy_listen(to->shard, s.listener, 4) == 0 && hy_accept(to->shard, s.listener, &qt) == 0);
  CHECK(hy_socket(from->shard, HY_STREAM, &s.out) == 0 && hy_connect(from->shard, s.out, &at, &qt) == 0);
  uint64_t deadline = in_seconds(WITHIN_S);
  while (s.received < BYTES) {
    CHECK(before(deadline));
    hy_event events[16];
    struct side *sides[] = {from, to};
    for (int i = 0; i < 2; i++) {
      int n = hy_wait_any(sides[i]->shard, events, 16, 0);
      CHECK(n >= 0);
      for (int e = 0; e < n; e++)
        stream_event(&s, &events[e]);
    }
    stream_push(&s);
  }
  CHECK(hy_abort(from->shard, s.out) == 0 && hy_abort(to->shard, s.in) == 0 &&
        hy_close(to->shard, s.listener) == 0);
  for (int i = 0; i < 64; i++)
    CHECK(hy_poll(from->shard) >= 0 && hy_poll(to->shard) >= 0);
}

/* ---- scenarios -------------------------------------------------------------------------------------------
 */

static void two_shards_are_joined_by_rings(void) {
  struct side a, b;
  hy_dpdk_config config = port_config("ring:r");
  side_open(&a, 2);
  side_open(&b, 3);
  must_attach(&a, &config);
  must_attach(&b, &config);
  CHECK(strcmp(a.got.name, "ring:r/0") == 0 && strcmp(b.got.name, "ring:r/1") == 0);
  CHECK(memcmp(a.got.mac, b.got.mac, 6) != 0);
  side_address(&a, false);
  side_address(&b, false);
  stream_run(&a, &b);
  stream_run(&b, &a);
  CHECK(counter(&b, "device_copied") > 0); /* from a's arena into b's */
  side_detach(&a);
  side_detach(&b);
  nothing_held(&a);
  nothing_held(&b);

  must_attach(&a, &config); /* and again */
  must_attach(&b, &config);
  side_address(&a, false);
  side_address(&b, false);
  stream_run(&a, &b);
  hy_dpdk_config third = config;
  CHECK(hy_dpdk_attach(a.shard, &third, NULL) == -EBUSY && strstr(hy_error_detail(), "ring:r/1") != NULL);
  hy_shard_close(a.shard);
  hy_shard_close(b.shard);
}

struct flood {
  struct side *side;
  atomic_bool stop;
};

static void *flood_main(void *arg) {
  struct flood *flood = arg;
  struct arena *arena = shard_arena(flood->side->shard);
  struct hy_device *dev = shard_device(flood->side->shard, 0);
  while (!atomic_load(&flood->stop)) {
    uint32_t frames[DEVICE_BURST];
    unsigned n = dev->ops->rx_burst(dev, frames, DEVICE_BURST);
    for (unsigned i = 0; i < n; i++)
      frame_unref(arena, frames[i]);
    for (n = 0; n < 32; n++) {
      frames[n] = frame_alloc(arena);
      if (frames[n] == FRAME_NONE)
        break;
      frame_meta(arena, frames[n])->len = 600;
    }
    unsigned sent = dev->ops->tx_burst(dev, frames, n);
    for (unsigned i = sent; i < n; i++)
      frame_unref(arena, frames[i]);
  }
  return NULL;
}

static void frames_come_back_from_another_thread(void) {
  struct side sides[2];
  struct flood floods[2] = {{.side = &sides[0]}, {.side = &sides[1]}};
  pthread_t threads[2];
  hy_dpdk_config config = port_config("ring:threads");
  for (int i = 0; i < 2; i++) {
    side_open(&sides[i], 2 + (unsigned)i);
    must_attach(&sides[i], &config);
  }
  for (int i = 0; i < 2; i++)
    CHECK(pthread_create(&threads[i], NULL, flood_main, &floods[i]) == 0);
  uint64_t deadline = in_seconds(WITHIN_S);
  struct hy_device_stats stats;
  do {
    CHECK(before(deadline));
    struct hy_device *dev = shard_device(sides[1].shard, 0);
    dev->ops->stats(dev, &stats);
  } while (stats.rx_frames < 200000);
  for (int i = 0; i < 2; i++)
    atomic_store(&floods[i].stop, true);
  for (int i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
  for (int i = 0; i < 2; i++)
    side_detach(&sides[i]);
  for (int i = 0; i < 2; i++) {
    nothing_held(&sides[i]);
    hy_shard_close(sides[i].shard);
  }
}

/* ---- a kernel's client
 * ------------------------------------------------------------------------------------- */

enum { ECHO_BYTES = 64 << 10 };

struct server {
  struct side side;
  pthread_t thread;
  atomic_bool stop;
  atomic_uint accepted;
};

static void server_event(struct server *server, const hy_event *event) {
  hy_shard *shard = server->side.shard;
  hy_qt qt;
  if (event->op == HY_OP_ACCEPT && event->status == 0) {
    atomic_fetch_add(&server->accepted, 1);
    CHECK(hy_pop(shard, event->accepted, &qt) == 0 && hy_accept(shard, event->qd, &qt) == 0);
  } else if (event->op == HY_OP_POP && event->status == 0 && event->sga.nsegs > 0) {
    CHECK(hy_push(shard, event->qd, &event->sga, NULL) == 0 && hy_pop(shard, event->qd, &qt) == 0);
  } else if (event->op == HY_OP_POP && event->status == 0) {
    CHECK(hy_close(shard, event->qd) == 0);
  }
}

static void *server_main(void *arg) {
  struct server *server = arg;
  hy_qd qd;
  hy_qt qt;
  hy_addr any = {.port = PORT};
  hy_shard *shard = server->side.shard;
  CHECK(hy_socket(shard, HY_STREAM, &qd) == 0 && hy_bind(shard, qd, &any) == 0 &&
        hy_listen(shard, qd, 64) == 0);
  CHECK(hy_accept(shard, qd, &qt) == 0);
  while (!atomic_load(&server->stop)) {
    hy_event events[16];
    int n = hy_wait_any(shard, events, 16, 1000000);
    CHECK(n >= 0 || n == -EINTR);
    for (int i = 0; i < n; i++)
      server_event(server, &events[i]);
  }
  return NULL;
}

static void server_start(struct server *server) {
  CHECK(pthread_create(&server->thread, NULL, server_main, server) == 0);
}

static void server_stop(struct server *server) {
  atomic_store(&server->stop, true);
  pthread_join(server->thread, NULL);
}

static int dial(unsigned number) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct timeval patience = {.tv_sec = WITHIN_S};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  to.sin_addr.s_addr = htonl(0x0a580000u + number);
  CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
  return fd;
}

static void echo(unsigned number) {
  int fd = dial(number);
  static uint8_t out[ECHO_BYTES], in[ECHO_BYTES];
  for (uint32_t i = 0; i < ECHO_BYTES; i++)
    out[i] = byte_at(i + (uint64_t)fd);
  for (size_t at = 0; at < ECHO_BYTES; at += 8192) {
    CHECK(send(fd, out + at, 8192, 0) == 8192);
    CHECK(recv(fd, in + at, 8192, MSG_WAITALL) == 8192);
  }
  CHECK(memcmp(in, out, ECHO_BYTES) == 0);
  close(fd);
}

static void queues_of_one_port_belong_to_shards_in_threads(void) {
  static struct server servers[2];
  hy_dpdk_config config = port_config("net_af_packet0,iface=va,qpairs=2");
  config.queues = 2;
  for (uint16_t q = 0; q < 2; q++) {
    side_open(&servers[q].side, 9);
    config.queue = q;
    must_attach(&servers[q].side, &config);
    CHECK(servers[q].side.got.running == (q == 1));
    side_address(&servers[q].side, true);
  }
  hy_dpdk_config again = config;
  CHECK(hy_dpdk_attach(servers[0].side.shard, &again, NULL) == -EBUSY);
  for (int q = 0; q < 2; q++)
    server_start(&servers[q]);
  for (int i = 0; i < 24; i++)
    echo(9);
  CHECK(atomic_load(&servers[0].accepted) + atomic_load(&servers[1].accepted) == 24);
  CHECK(atomic_load(&servers[0].accepted) > 0 && atomic_load(&servers[1].accepted) > 0);
  server_stop(&servers[0]);
  hy_shard_close(servers[0].side.shard); /* the port ends while the other shard still polls it */
  uint64_t deadline = in_seconds(WITHIN_S);
  server_stop(&servers[1]);
  while (counter(&servers[1].side, "devices_lost") == 0) {
    CHECK(before(deadline));
    CHECK(hy_poll(servers[1].side.shard) >= 0);
  }
  hy_shard_close(servers[1].side.shard);
}

static void a_stopped_port_is_lost_and_can_be_had_again(void) {
  struct side side;
  hy_dpdk_config config = port_config("net_af_packet0,iface=va");
  side_open(&side, 9);
  CHECK(hy_dpdk_stop("net_af_packet0") == -ENOENT);
  for (int round = 1; round <= 3; round++) {
    must_attach(&side, &config);
    CHECK(hy_dpdk_attach(side.shard, &config, NULL) == -EBUSY);
    CHECK(hy_dpdk_stop("net_af_packet0") == 0);
    uint64_t deadline = in_seconds(WITHIN_S);
    while (counter(&side, "devices_lost") < (uint64_t)round) {
      CHECK(before(deadline));
      CHECK(hy_poll(side.shard) >= 0);
    }
    nothing_held(&side);
  }
  hy_shard_close(side.shard);
}

static void frames_of_a_port_that_forgets_them_come_back(void) {
  struct side side;
  hy_dpdk_config config = port_config("net_af_xdp0,iface=va");
  side_open(&side, 9);
  for (int round = 0; round < 3; round++) {
    must_attach(&side, &config);
    CHECK(shard_arena(side.shard)->free_count <= FRAMES - 2048);
    side_detach(&side);
    nothing_held(&side);
  }
  hy_shard_close(side.shard);
}

static void a_port_whose_netdev_is_deleted_is_lost(void) {
  struct side side;
  hy_dpdk_config config = port_config("net_af_packet0,iface=va");
  side_open(&side, 9);
  must_attach(&side, &config);
  CHECK(side.got.kernel_ifindex == if_nametoindex("va"));
  CHECK(system("ip link delete va") == 0);
  uint64_t deadline = in_seconds(WITHIN_S);
  while (counter(&side, "devices_lost") == 0) {
    CHECK(before(deadline));
    CHECK(hy_poll(side.shard) >= 0);
  }
  nothing_held(&side);
  hy_shard_close(side.shard);
}

static void a_tap_wakes_a_sleeper_and_raises_no_signal(void) {
  struct side side;
  hy_dpdk_config config = port_config("net_tap0,iface=hytap9");
  config.interrupt = HY_REQUEST_MUST;
  side_open(&side, 9);
  must_attach(&side, &config);
  CHECK(side.got.interrupt);
  CHECK(system("ip addr add 10.99.0.1/24 dev hytap9 && ip link set hytap9 up") == 0);
  hy_event event;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0x0a6300ff)};
  CHECK(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &(int){1}, sizeof(int)) == 0);
  uint64_t deadline = in_seconds(WITHIN_S);
  uint64_t seen = counter(&side, "device_rx_frames");
  for (int i = 0; i < 50; i++) {
    CHECK(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to) == 1);
    while (counter(&side, "device_rx_frames") == seen) {
      CHECK(before(deadline));
      CHECK(hy_wait_any(side.shard, &event, 1, 2000000) == 0); /* not -EINTR */
    }
    seen = counter(&side, "device_rx_frames");
  }
  CHECK(counter(&side, "sleeps") > 0);
  close(fd);
  hy_shard_close(side.shard);
}

static void eal_starts_once_and_with_one_set_of_arguments(void) {
  struct side side;
  side_open(&side, 9);
  const char *eal[] = {"--no-huge", "--no-shconf", "--no-pci"};
  hy_dpdk_config config = port_config("ring:x");
  config.eal = eal;
  config.neal = 3;
  must_attach(&side, &config);
  must_attach(&side, &config);
  config.neal = 2;
  CHECK(hy_dpdk_attach(side.shard, &config, NULL) == -EALREADY &&
        strstr(hy_error_detail(), "the same") != NULL);
  config.neal = 0; /* says nothing of it */
  config.port = "ring:y";
  must_attach(&side, &config);
  hy_shard_close(side.shard);
}

static void a_failed_start_can_be_mended(void) {
  struct side side;
  side_open(&side, 9);
  const char *eal[] = {"--no-huge", "--no-shconf", "--no-pci", "--frobnicate"};
  hy_dpdk_config config = port_config("ring:x");
  config.eal = eal;
  config.neal = 4;
  CHECK(hy_dpdk_attach(side.shard, &config, NULL) == -EIO);
  config.neal = 3;
  must_attach(&side, &config);
  hy_shard_close(side.shard);
}

/* Floods by memif until it is killed. */
static _Noreturn void memif_child(const char *devargs) {
  struct side side;
  struct flood flood = {.side = &side};
  hy_dpdk_config config = port_config(devargs);
  side_open(&side, 3);
  must_attach(&side, &config);
  flood_main(&flood);
  exit(0);
}

static void a_memif_peer_that_is_killed_takes_nobody_with_it(void) {
  char server[128], client[128];
  snprintf(server, sizeof server, "net_memif0,role=server,socket=/tmp/hy-memif-%d,socket-abstract=no",
           getpid());
  snprintf(client, sizeof client, "net_memif0,role=client,socket=/tmp/hy-memif-%d,socket-abstract=no",
           getpid());
  struct side side;
  hy_dpdk_config config = port_config(server);
  fflush(NULL);
  int order[2];
  CHECK(pipe(order) == 0);
  pid_t nursery = fork(); /* before EAL: a process that has it can't be forked */
  CHECK(nursery >= 0);
  if (nursery == 0) {
    char c;
    close(order[1]);
    while (read(order[0], &c, 1) == 1) {
      pid_t child = fork();
      if (child == 0)
        memif_child(client);
      CHECK(read(order[0], &c, 1) == 1);
      kill(child, SIGKILL);
      waitpid(child, NULL, 0);
    }
    exit(0);
  }
  close(order[0]);
  side_open(&side, 2);
  must_attach(&side, &config);
  struct hy_device *dev = shard_device(side.shard, 0);
  struct arena *arena = shard_arena(side.shard);
  uint64_t deadline = in_seconds(3 * WITHIN_S);
  for (int round = 0; round < 8; round++) {
    CHECK(write(order[1], "+", 1) == 1);
    bool killed = false;
    for (unsigned frames_seen = 0, idle = 0; idle < 200000;) {
      CHECK(before(deadline));
      uint32_t frames[DEVICE_BURST];
      unsigned n = dev->ops->rx_burst(dev, frames, DEVICE_BURST);
      unsigned sent = dev->ops->tx_burst(dev, frames, n); /* both directions are under way */
      for (unsigned i = sent; i < n; i++)
        frame_unref(arena, frames[i]);
      frames_seen += n;
      idle = killed && n == 0 ? idle + 1 : 0;
      if (!killed && frames_seen > 20000) {
        CHECK(write(order[1], "-", 1) == 1);
        killed = true;
      }
    }
  }
  close(order[1]);
  waitpid(nursery, NULL, 0);
  side_detach(&side);
  nothing_held(&side);
  hy_shard_close(side.shard);
}

static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {
#define SCENARIO(name)                                                                                       \
  { #name, name }
    SCENARIO(two_shards_are_joined_by_rings),
    SCENARIO(frames_come_back_from_another_thread),
    SCENARIO(queues_of_one_port_belong_to_shards_in_threads),
    SCENARIO(a_stopped_port_is_lost_and_can_be_had_again),
    SCENARIO(frames_of_a_port_that_forgets_them_come_back),
    SCENARIO(a_port_whose_netdev_is_deleted_is_lost),
    SCENARIO(a_tap_wakes_a_sleeper_and_raises_no_signal),
    SCENARIO(eal_starts_once_and_with_one_set_of_arguments),
    SCENARIO(a_failed_start_can_be_mended),
    SCENARIO(a_memif_peer_that_is_killed_takes_nobody_with_it),
#undef SCENARIO
};

int main(int argc, char **argv) {
  size_t count = sizeof scenarios / sizeof *scenarios;
  for (size_t i = 0; i < count; i++) {
    if (argc == 2 && strcmp(argv[1], "--list") == 0)
      puts(scenarios[i].name);
    if (argc == 2 && strcmp(argv[1], scenarios[i].name) == 0) {
      scenarios[i].run();
      return 0;
    }
  }
  return argc == 2 && strcmp(argv[1], "--list") == 0 ? 0 : 2;
}
