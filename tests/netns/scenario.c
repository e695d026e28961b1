/* SPDX-License-Identifier: Apache-2.0 */
/* The scenario programs' common ground; see scenario.h. */
#include "scenario.h"

#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bool generic;
struct end ends[2] = {{.ifname = "va"}, {.ifname = "vb"}};

static uint64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint8_t byte_of(uint32_t number, uint32_t at) {
  return (uint8_t)(number * 131 + at * 7 + (at >> 8));
}

void datagram_write(uint8_t *bytes, uint32_t number, uint32_t len) {
  memset(bytes, 0, HEADERS);
  memset(bytes, 0xff, 6);
  bytes[6] = 2;
  bytes[12] = 0x08;
  bytes[14] = 0x45;
  bytes[23] = 17;
  bytes[36] = PORT >> 8;
  bytes[37] = PORT & 0xff;
  memcpy(bytes + HEADERS, &number, sizeof number);
  for (uint32_t at = HEADERS + sizeof number; at < len; at++)
    bytes[at] = byte_of(number, at);
}

bool before(uint64_t deadline_ns) {
  return now_ns() < deadline_ns;
}

uint64_t in_seconds(unsigned seconds) {
  return now_ns() + seconds * 1000000000ull;
}

void wire_up_frames(uint32_t frames) {
  for (int i = 0; i < 2; i++) {
    ends[i].ifindex = if_nametoindex(ends[i].ifname);
    CHECK(ends[i].ifindex != 0);
    CHECK(arena_init(&ends[i].arena, frames, 2048, 0, HY_HUGEPAGES_NO) == 0);
    CHECK(redirect_attach(&ends[i].redirect, ends[i].ifindex, generic, PORT) == 0);
  }
}

hy_afxdp_config config_of(const struct end *end, uint32_t queue) {
  return (hy_afxdp_config){
      .struct_size = sizeof(hy_afxdp_config),
      .ifindex = end->ifindex,
      .queue = queue,
      .xsk_fd = -1,
      .map_fd = end->redirect.map_fd,
      .ring_size = 256,
  };
}

struct hy_device *queue_open(struct end *end, uint32_t queue) {
  hy_afxdp_config config = config_of(end, queue);
  struct hy_device *dev = NULL;
  CHECK(afxdp_open(&end->arena, &config, NULL, NULL, &dev) == 0);
  return dev;
}

void queue_close(struct hy_device *dev) {
  dev->ops->close(dev);
}

void nothing_leaked(void) {
  for (int e = 0; e < 2; e++) {
    CHECK(ends[e].arena.free_count == ends[e].arena.frames);
    for (uint32_t i = 0; i < ends[e].arena.frames; i++)
      CHECK(frame_meta(&ends[e].arena, i)->refs == 0 &&
            !(frame_meta(&ends[e].arena, i)->flags & FRAME_IN_DEVICE));
  }
}

void interface_set(const char *ifname, bool up) {
  struct ifreq request = {0};
  memcpy(request.ifr_name, ifname, strlen(ifname));
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0);
  request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  CHECK(ioctl(fd, SIOCSIFFLAGS, &request) == 0);
  close(fd);
}

void mtu_set(int mtu_bytes) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  for (int i = 0; i < 2; i++) {
    struct ifreq request = {.ifr_mtu = mtu_bytes};
    memcpy(request.ifr_name, ends[i].ifname, strlen(ends[i].ifname));
    CHECK(ioctl(fd, SIOCSIFMTU, &request) == 0);
  }
  close(fd);
}

void receive(struct hy_device *dev, uint32_t *frames, uint32_t count) {
  uint64_t deadline = in_seconds(5);
  for (uint32_t have = 0; have < count;) {
    CHECK(before(deadline));
    uint32_t want = count - have < DEVICE_BURST ? count - have : DEVICE_BURST;
    have += dev->ops->rx_burst(dev, frames + have, want);
  }
}

void privileges_drop(void) {
  struct rlimit limit = {.rlim_cur = 8 << 20, .rlim_max = 8 << 20};
  CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
  /* A user of its own: what an earlier one had locked may be released a little after its end. */
  uid_t nobody = (uid_t)(1000000 + getpid());
  CHECK(setgroups(0, NULL) == 0 && setgid(nobody) == 0 && setuid(nobody) == 0);
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {0};
  CHECK(syscall(SYS_capset, &header, data) == 0);
  CHECK(socket(AF_XDP, SOCK_RAW, 0) == -1 && errno == EPERM);
}

int scenario_main(int argc, char **argv, const struct scenario *scenarios, size_t count) {
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (size_t i = 0; i < count; i++)
      puts(scenarios[i].name);
    return 0;
  }
  if (argc != 3)
    return 2;
  generic = strcmp(argv[2], "generic") == 0;
  for (size_t i = 0; i < count; i++)
    if (strcmp(argv[1], scenarios[i].name) == 0) {
      scenarios[i].run();
      return 0;
    }
  return 2;
}
