/* SPDX-License-Identifier: Apache-2.0 */
/* hy_packet_attach(): a packet socket for a shard (packet(7)). */
#include "core/error.h"
#include "core/shard.h"
#include "tcp/wire.h"
#include "uring/frames.h"
#include "uring/quiet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  BUFFER_BYTES = 8 << 20, /* what may wait in the socket, where the process may say */
  ALL = 0xffffff,         /* of a packet, longer than any */
  VLAN_PRESENT = SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT,
};

/* ---- the filter of own mode, which needs no privilege -------------------------------- */

struct filter {
  struct sock_filter code[64];
  unsigned short n;
};

/* A test: how many instructions to skip where it holds, and where not. */
static void emit(struct filter *f, unsigned code, uint32_t k, unsigned yes, unsigned no) {
  assert(f->n < sizeof f->code / sizeof f->code[0]);
  f->code[f->n++] = (struct sock_filter){
      .code = (unsigned short)code, .jt = (unsigned char)yes, .jf = (unsigned char)no, .k = k};
}

static void emit_return(struct filter *f, uint32_t bytes) {
  emit(f, BPF_RET | BPF_K, bytes, 0, 0);
}

static void emit_load(struct filter *f, unsigned size, uint32_t at) {
  emit(f, BPF_LD | size | BPF_ABS, at, 0, 0);
}

/* Accepts a packet whose destination at `at` is one of our addresses of the family, and no other. */
static void emit_addresses(struct filter *f, const hy_packet_config *config, uint8_t family, uint32_t at) {
  unsigned words = family == 4 ? 1 : 4;
  for (unsigned i = 0; i < config->naddrs; i++) {
    if (config->addrs[i].family != family)
      continue;
    const uint8_t *ip = config->addrs[i].ip + (family == 4 ? 12 : 0);
    for (unsigned w = 0; w < words; w++) {
      emit_load(f, BPF_W, at + 4 * w);
      /* Past this address' remaining words and its return. */
      emit(f, BPF_JMP | BPF_JEQ | BPF_K, load32(ip + (size_t)4 * w), 0, 2 * (words - w - 1) + 1);
    }
    emit_return(f, ALL);
  }
  emit_return(f, 0);
}

/*
 *   tagged                           no
 *   to a group address: ARP, ICMPv6  yes
 *   to our MAC: ARP, ICMPv6          yes;  IP to one of our addresses, where these are named
 */
static void filter_build(struct filter *f, const hy_packet_config *config, const uint8_t mac[6]) {
  f->n = 0;
  emit_load(f, BPF_B, (uint32_t)VLAN_PRESENT);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
  emit_return(f, 0);
  emit_load(f, BPF_H, 12);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, ETH_ARP, 0, 1);
  emit_return(f, ALL);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, ETH_IP6, 0, 3);
  emit_load(f, BPF_B, ETH_LEN + 6);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, PROTO_ICMP6, 0, 1);
  emit_return(f, ALL);
  emit_load(f, BPF_W, 0);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, load32(mac), 1, 0);
  emit_return(f, 0);
  emit_load(f, BPF_H, 4);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, load16(mac + 4), 1, 0);
  emit_return(f, 0);
  if (config->naddrs == 0) {
    emit_return(f, ALL);
    return;
  }
  emit_load(f, BPF_H, 12);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, ETH_IP6, 0, 0);
  unsigned short fork = (unsigned short)(f->n - 1);
  emit_addresses(f, config, 6, ETH_LEN + 24);
  f->code[fork].jf = (unsigned char)(f->n - fork - 1);
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, ETH_IP4, 1, 0);
  emit_return(f, 0);
  emit_addresses(f, config, 4, ETH_LEN + 16);
}

/* ---- the socket -------------------------------------------------------------------------- */

static bool mac_given(const hy_packet_config *config) {
  static const uint8_t none[6];
  return config->mode == HY_PACKET_OWN && memcmp(config->mac, none, 6) != 0;
}

static bool flows_valid(const hy_packet_flow *flows, unsigned n) {
  for (unsigned i = 0; i < n; i++)
    if ((flows[i].protocol != PROTO_TCP && flows[i].protocol != PROTO_UDP) ||
        flows[i].port_lo > flows[i].port_hi)
      return false;
  return n <= HY_PACKET_FLOWS;
}

static int config_check(const hy_packet_config *config) {
  if (config->struct_size != sizeof *config || config->mode > HY_PACKET_SHARED ||
      config->naddrs > HY_PACKET_ADDRS || !flows_valid(config->flows, config->nflows))
    return error_detail_set(-EINVAL, "the configuration makes no sense: struct_size, mode, addrs or flows");
  for (unsigned i = 0; i < config->naddrs; i++)
    if (config->addrs[i].family != 4 && config->addrs[i].family != 6)
      return error_detail_set(-EINVAL,
                              "an address of the packet device has no family: name it, or leave it out");
  if (config->packet_fd >= 0)
    return 0;
  if (config->mode == HY_PACKET_OWN && !mac_given(config) && config->naddrs == 0)
    return error_detail_set(-EINVAL,
                            "with the interface's own MAC address, the IP addresses that are ours alone have "
                            "to be named");
  if (config->mode == HY_PACKET_SHARED && config->nflows == 0)
    return error_detail_set(-EINVAL, "shared mode serves the flows that are named: name one at least");
  if (config->mac[0] & 1)
    return error_detail_set(-EINVAL, "a group address cannot be the MAC address of a station");
  return 0;
}

static int look_up(int fd, uint32_t interface, hy_packet_obtained *got) {
  struct ifreq request = {.ifr_ifindex = (int)interface};
  if (ioctl(fd, SIOCGIFNAME, &request) < 0)
    return error_detail_set(-ENODEV, "there is no interface with the index %u in this network namespace",
                            interface);
  if (ioctl(fd, SIOCGIFMTU, &request) < 0)
    return error_detail_set(-errno, "the MTU of %s cannot be read: %s", request.ifr_name, strerror(errno));
  got->mtu_bytes = (uint32_t)request.ifr_mtu;
  if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
    return error_detail_set(-errno, "the address of %s cannot be read: %s", request.ifr_name,
                            strerror(errno));
  memcpy(got->mac, request.ifr_hwaddr.sa_data, 6);
  return 0;
}

static int option_on(int fd, int option) {
  int on = 1;
  return setsockopt(fd, SOL_PACKET, option, &on, sizeof on) < 0 ? -errno : 0;
}

static void buffer_set(int fd, int force, int option) {
  int bytes = BUFFER_BYTES;
  if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) < 0)
    setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes);
}

/* Nothing arrives before the bind, which comes last, when the filter is in place. */
static int socket_open(const hy_packet_config *config, struct quiet **quiet, hy_packet_obtained *got) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return errno == EPERM
               ? error_detail_set(-EPERM,
                                  "a packet socket wants CAP_NET_RAW: run as root, or give the process that")
               : error_detail_set(-errno, "a packet socket cannot be opened: %s", strerror(errno));
  int status = look_up(fd, config->interface, got);
  if (status < 0)
    goto fail;
  status = option_on(fd, PACKET_VNET_HDR);
  if (status == 0)
    status = option_on(fd, PACKET_IGNORE_OUTGOING);
  if (status == 0)
    status = option_on(fd, PACKET_QDISC_BYPASS);
  if (status < 0) {
    error_detail_set(status, "the packet socket lacks an option (%s): Linux 4.20 or later is needed",
                     strerror(-status));
    goto fail;
  }
  buffer_set(fd, SO_RCVBUFFORCE, SO_RCVBUF);
  buffer_set(fd, SO_SNDBUFFORCE, SO_SNDBUF);
  if (config->mode == HY_PACKET_OWN) {
    struct filter filter;
    filter_build(&filter, config, mac_given(config) ? config->mac : got->mac);
    struct sock_fprog program = {.len = filter.n, .filter = filter.code};
    struct packet_mreq all = {.mr_ifindex = (int)config->interface, .mr_type = PACKET_MR_PROMISC};
    if (!mac_given(config)) /* solicitations for our IPv6 addresses go to groups that the kernel isn't in */
      all.mr_type = PACKET_MR_ALLMULTI;
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) < 0) {
      status = error_detail_set(-errno, "the packet socket's filter cannot be set: %s", strerror(errno));
      goto fail;
    }
  } else {
    status = quiet_open(config, fd, quiet);
    if (status < 0)
      goto fail;
    got->quiet = (uint8_t)status;
  }
  struct sockaddr_ll address = {
      .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)config->interface};
  if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
    status = error_detail_set(-errno, "the packet socket cannot be bound: %s", strerror(errno));
    goto fail;
  }
  if (mac_given(config))
    memcpy(got->mac, config->mac, 6);
  return fd;

fail:
  if (*quiet != NULL)
    quiet_close(*quiet);
  close(fd);
  return status;
}

/* A socket of hy_packet_open(), perhaps in another process. */
static int socket_check(const hy_packet_config *config, uint32_t *interface, hy_packet_obtained *got) {
  int fd = config->packet_fd;
  struct sockaddr_ll bound = {0};
  socklen_t len = sizeof bound;
  int on = 0;
  socklen_t on_len = sizeof on;
  if (getsockname(fd, (struct sockaddr *)&bound, &len) < 0 || bound.sll_family != AF_PACKET ||
      bound.sll_ifindex == 0 || getsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, &on_len) < 0 || !on) {
    close(fd);
    return error_detail_set(-EINVAL, "the descriptor is not a packet socket as hy_packet_open() makes them");
  }
  *interface = (uint32_t)bound.sll_ifindex;
  int status = look_up(fd, *interface, got);
  if (status < 0) {
    close(fd);
    return status;
  }
  if (mac_given(config))
    memcpy(got->mac, config->mac, 6);
  return fd;
}

int hy_packet_open(const hy_packet_config *config) {
  error_detail_clear();
  int status = config_check(config);
  if (status < 0)
    return status;
  if (config->mode != HY_PACKET_OWN || config->packet_fd >= 0)
    return error_detail_set(-EINVAL, "only sockets in own mode can be opened for somebody else");
  hy_packet_obtained got = {0};
  struct quiet *none = NULL;
  return socket_open(config, &none, &got);
}

int hy_packet_attach(hy_shard *shard, const hy_packet_config *config, hy_packet_obtained *obtained) {
  error_detail_clear();
  struct quiet *quiet = NULL;
  hy_packet_obtained got = {.offload = 1};
  int status = config_check(config);
  if (status < 0) {
    if (config->packet_fd >= 0)
      close(config->packet_fd);
    return status;
  }
  uint32_t interface = config->interface;
  int fd =
      config->packet_fd >= 0 ? socket_check(config, &interface, &got) : socket_open(config, &quiet, &got);
  if (fd < 0)
    return fd;
  struct frames_setup setup = {
      .kind = FRAMES_PACKET,
      .fd = fd,
      .interface = interface,
      .ifindex = config->ifindex ? config->ifindex : interface,
      .header = true,
  };
  struct frames_obtained frames;
  struct hy_device *dev;
  status = frames_open(shard_arena(shard), &setup, &frames, &dev);
  if (status < 0) {
    if (quiet != NULL)
      quiet_close(quiet);
    return status;
  }
  if (quiet != NULL)
    frames_set_companion(dev, quiet, quiet_tick, quiet_close);
  got.deferred = frames.deferred;
  status = shard_add_device(shard, dev);
  if (status < 0) {
    dev->ops->close(dev);
    return error_detail_set(status, "the shard has as many devices as it can have");
  }
  if (obtained != NULL)
    *obtained = got;
  return 0;
}

int hy_packet_set_flows(hy_shard *shard, uint32_t ifindex, const hy_packet_flow *flows, unsigned n) {
  error_detail_clear();
  if (!flows_valid(flows, n))
    return error_detail_set(-EINVAL,
                            "a flow is TCP (6) or UDP (17), from a lower to a higher port; %d at most",
                            (int)HY_PACKET_FLOWS);
  for (uint32_t i = 0; i < SHARD_DEVICES; i++) {
    struct hy_device *dev = shard_device(shard, i);
    struct quiet *quiet = dev != NULL && dev->ifindex == ifindex ? frames_companion(dev) : NULL;
    if (quiet == NULL)
      continue;
    quiet_set_flows(quiet, flows, n);
    return 0;
  }
  return error_detail_set(-ENODEV, "the shard has no packet device in shared mode with this row");
}
