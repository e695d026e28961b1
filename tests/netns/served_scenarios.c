/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handover of control.h with real sockets: this program is the launcher, its
 * child loses every privilege and takes the datapath over.
 *
 *     served-scenarios SCENARIO native|generic
 */
#include "scenario.h"

#include "core/control.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char client_text[] = "10.77.0.1", server_text[] = "10.77.0.2";
static const uint8_t client_mac[6] = {2, 0, 0, 0, 0, 1};

struct launcher {
  int control; /* ours */
  int xsk_fd;
  pid_t child;
  hy_host *host;
  hy_stats_page *stats;
  uint8_t server_mac[6];
};

static hy_addr address(const char *text) {
  hy_addr addr;
  CHECK(hy_addr_parse(text, &addr) == 0);
  return addr;
}

static void interface_mac(const char *ifname, uint8_t out[6]) {
  struct ifreq request = {0};
  memcpy(request.ifr_name, ifname, strlen(ifname));
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && ioctl(fd, SIOCGIFHWADDR, &request) == 0);
  close(fd);
  memcpy(out, request.ifr_hwaddr.sa_data, 6);
}

/* ---- the application ------------------------------------------------------------------------------ */

/* Echoes datagrams until its launcher ends it. */
static void application(uint32_t frames, int expected) {
  privileges_drop();
  hy_config config;
  hy_config_default(&config);
  config.frames = frames;
  config.app_frames_max = frames / 2;
  hy_shard *shard;
  CHECK(hy_shard_open_served(&config, &shard) == expected);
  if (expected < 0)
    _exit(0);
  hy_qd qd;
  hy_addr local = address(server_text);
  local.port = PORT;
  CHECK(hy_socket(shard, HY_DGRAM, &qd) == 0 && hy_bind(shard, qd, &local) == 0);
  CHECK(hy_shard_ready(shard) == 0);
  for (;;) {
    hy_qt qt;
    hy_event event;
    CHECK(hy_pop(shard, qd, &qt) == 0);
    CHECK(hy_wait(shard, qt, &event, 5000000000) == 1 && event.status == 0);
    bool last = hy_sga_bytes(&event.sga) == 1;
    CHECK(hy_pushto(shard, qd, &event.sga, &event.addr, &qt) == 0);
    CHECK(hy_wait(shard, qt, &event, 5000000000) == 1 && event.status == 0);
    if (last)
      break;
  }
  hy_shard_close(shard);
  _exit(0);
}

/* ---- the launcher ----------------------------------------------------------------------------------- */

static void host_describe(struct launcher *l) {
  interface_mac("vb", l->server_mac);
  hy_host_link link = {.ifindex = ends[1].ifindex, .mtu_bytes = 1500};
  memcpy(link.mac, l->server_mac, sizeof link.mac);
  hy_host_addr addr = {.addr = address(server_text), .ifindex = ends[1].ifindex, .prefix_len = 24};
  hy_host_route route = {.dst = address("10.77.0.0"), .prefix_len = 24, .ifindex = ends[1].ifindex};
  hy_host_neigh neigh = {.addr = address(client_text), .ifindex = ends[1].ifindex};
  memcpy(neigh.mac, client_mac, sizeof neigh.mac);
  CHECK(hy_host_create(&l->host) == 0);
  CHECK(hy_host_update(l->host, &link, 1, &addr, 1, &route, 1, &neigh, 1) == 0);
}

static void launch(struct launcher *l, uint32_t frames, int expected) {
  *l = (struct launcher){0};
  host_describe(l);
  int stats = memfd_create("stats", MFD_CLOEXEC);
  CHECK(stats >= 0 && ftruncate(stats, sizeof(hy_stats_page)) == 0);
  l->stats = mmap(NULL, sizeof(hy_stats_page), PROT_READ, MAP_SHARED, stats, 0);
  CHECK(l->stats != MAP_FAILED);
  l->xsk_fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
  int pair[2];
  CHECK(l->xsk_fd >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
  l->control = pair[0];
  l->child = fork();
  CHECK(l->child >= 0);
  if (l->child == 0) {
    char text[16];
    snprintf(text, sizeof text, "%d", pair[1]);
    setenv("HYBRID_CONTROL", text, 1);
    application(frames, expected);
  }
  close(pair[1]);

  hy_handover handover = {
      .magic = HY_CONTROL_MAGIC,
      .ndevices = 1,
      .port_lo = 40000,
      .port_hi = 40999,
      .devices[0] = {.ifindex = ends[1].ifindex, .ring_size = 256, .kind = HY_CONTROL_AFXDP},
  };
  int fds[3] = {hy_host_fd(l->host), stats, l->xsk_fd};
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof fds)];
  } control = {0};
  struct iovec iov = {&handover, sizeof handover};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof fds);
  memcpy(CMSG_DATA(c), fds, sizeof fds);
  CHECK(sendmsg(l->control, &message, 0) == sizeof handover);
  close(stats);
}

static void put_into_service(struct launcher *l) {
  hy_ready ready = {0};
  while (ready.magic != HY_CONTROL_MAGIC) { /* notices come the same way */
    ssize_t n = recv(l->control, &ready, sizeof ready, 0);
    CHECK(n > 0);
    if (n != sizeof ready)
      ready.magic = 0;
  }
  CHECK(ready.ndevices == 1 && ready.devices[0].afxdp.ring_size == 256 && !ready.devices[0].afxdp.zerocopy);
  CHECK(redirect_enter(&ends[1].redirect, 0, l->xsk_fd) == 0);
  close(l->xsk_fd);
  hy_go go = {.magic = HY_CONTROL_MAGIC};
  CHECK(send(l->control, &go, sizeof go, 0) == sizeof go);
}

static void child_has_ended_well(const struct launcher *l) {
  int status;
  CHECK(waitpid(l->child, &status, 0) == l->child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void launcher_end(struct launcher *l) {
  close(l->control);
  munmap(l->stats, sizeof *l->stats);
  hy_host_close(l->host);
}

/* ---- the client: datagrams by hand over va ---------------------------------------------------------- */

static uint32_t datagram_make(const struct launcher *l, uint32_t payload) {
  struct arena *arena = &ends[0].arena;
  uint32_t index = frame_alloc(arena);
  CHECK(index != FRAME_NONE);
  struct ether_header ether = {.ether_type = htons(ETHERTYPE_IP)};
  memcpy(ether.ether_dhost, l->server_mac, 6);
  memcpy(ether.ether_shost, client_mac, 6);
  struct iphdr ip = {
      .version = 4,
      .ihl = 5,
      .tot_len = htons((uint16_t)(sizeof ip + sizeof(struct udphdr) + payload)),
      .ttl = 64,
      .protocol = IPPROTO_UDP,
      .saddr = inet_addr(client_text),
      .daddr = inet_addr(server_text),
  };
  const uint16_t *words = (const uint16_t *)(const void *)&ip;
  uint32_t sum = 0;
  for (size_t i = 0; i < sizeof ip / 2; i++)
    sum += words[i];
  sum = (sum & 0xffff) + (sum >> 16);
  ip.check = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
  struct udphdr udp = {
      .source = htons(PORT), .dest = htons(PORT), .len = htons((uint16_t)(sizeof udp + payload))};
  uint8_t *at = frame_data(arena, index);
  memcpy(at, &ether, sizeof ether);
  memcpy(at += sizeof ether, &ip, sizeof ip);
  memcpy(at += sizeof ip, &udp, sizeof udp);
  for (uint32_t i = 0; i < payload; i++)
    at[sizeof udp + i] = (uint8_t)(i * 3 + payload);
  frame_meta(arena, index)->len = (uint16_t)(sizeof ether + sizeof ip + sizeof udp + payload);
  return index;
}

static void datagram_echo(struct hy_device *dev, const struct launcher *l, uint32_t payload) {
  uint32_t sent = datagram_make(l, payload), got;
  CHECK(dev->ops->tx_burst(dev, &sent, 1) == 1);
  receive(dev, &got, 1);
  const uint8_t *p = frame_data(dev->arena, got);
  CHECK(frame_meta(dev->arena, got)->len >= 42 + payload);
  CHECK(memcmp(p, client_mac, 6) == 0 && memcmp(p + 6, l->server_mac, 6) == 0);
  for (uint32_t i = 0; i < payload; i++)
    CHECK(p[42 + i] == (uint8_t)(i * 3 + payload));
  frame_unref(dev->arena, got);
}

/* ---- scenarios -------------------------------------------------------------------------------------- */

static void a_process_without_privileges_serves_by_what_it_was_handed(void) {
  wire_up_frames(1024);
  struct hy_device *dev = queue_open(&ends[0], 0);
  struct launcher l;
  launch(&l, 1024, 0);
  put_into_service(&l);
  CHECK(l.stats->magic == HY_CONTROL_MAGIC && l.stats->pid == (uint32_t)l.child);
  CHECK(l.stats->count == hy_stat_count());
  static const uint32_t sizes[] = {2, 64, 500, 1472, 1};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    datagram_echo(dev, &l, sizes[i]);
  child_has_ended_well(&l);
  for (unsigned i = 0; i < hy_stat_count(); i++)
    if (strcmp(hy_stat_name(i), "device_rx_frames") == 0)
      CHECK(l.stats->values[i] == 5);
  launcher_end(&l);
  queue_close(dev);
  nothing_leaked();
}

static void an_arena_that_may_not_be_locked_has_an_error_of_its_own(void) {
  wire_up_frames(1024);
  struct launcher l;
  launch(&l, 8192, -ENOLCK); /* 16 MiB, of the 8 that it may lock */
  child_has_ended_well(&l);
  close(l.xsk_fd);
  launcher_end(&l);
}

#define SCENARIO(name)                                                                                       \
  { #name, name }
static const struct scenario scenarios[] = {
    SCENARIO(a_process_without_privileges_serves_by_what_it_was_handed),
    SCENARIO(an_arena_that_may_not_be_locked_has_an_error_of_its_own),
};

int main(int argc, char **argv) {
  return scenario_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
