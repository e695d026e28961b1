/* SPDX-License-Identifier: Apache-2.0 */
/* hy_tap_attach(): a queue of a TAP device for a shard (Documentation/networking/tuntap.rst). */
#include "core/error.h"
#include "uring/frames.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20 /* Linux 6.2 */
#define TUN_F_USO6 0x40
#endif

static int tun_open(void) {
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd >= 0)
    return fd;
  int status = -errno;
  if (status == -ENOENT || status == -ENODEV || status == -ENXIO)
    error_detail_set(status,
                     "there is no /dev/net/tun: load the module tun, or give the container the device "
                     "(docker run --device /dev/net/tun)");
  else if (status == -EPERM || status == -EACCES)
    error_detail_set(
        status, "/dev/net/tun may not be opened: the container's device rules or its permissions forbid it");
  else
    error_detail_set(status, "/dev/net/tun cannot be opened: %s", strerror(-status));
  return status == -ENODEV || status == -ENXIO ? -ENOENT : status;
}

static int tun_name(int fd, const hy_tap_config *config, bool header) {
  struct ifreq request = {0};
  memcpy(request.ifr_name, config->name, sizeof config->name);
  unsigned flags = IFF_TAP | IFF_NO_PI | (header ? IFF_VNET_HDR : 0u) |
                   (config->multi_queue ? (unsigned)IFF_MULTI_QUEUE : 0u);
  request.ifr_flags = (short)flags;
  if (ioctl(fd, TUNSETIFF, &request) == 0)
    return 0;
  int status = -errno;
  if (status == -EPERM)
    error_detail_set(
        status,
        "a TAP device wants CAP_NET_ADMIN: run as root, or have somebody who may make it open the queue "
        "for this user (ip tuntap add mode tap user NAME)");
  else if (status == -EBUSY)
    error_detail_set(
        status,
        "the interface %s is in use, or has one queue: take another name, or ask for multi_queue for "
        "each of its queues",
        config->name);
  else
    error_detail_set(status, "the TAP device %s cannot be had: %s", config->name, strerror(-status));
  return status;
}

/* What the kernel may leave undone on the way to us. */
static bool offload_set(int fd) {
  unsigned usual = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  return ioctl(fd, TUNSETOFFLOAD, usual | TUN_F_USO4 | TUN_F_USO6) == 0 ||
         ioctl(fd, TUNSETOFFLOAD, usual) == 0;
}

static int look_up(int fd, struct ifreq *request, hy_tap_obtained *got) {
  int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (sock < 0)
    goto fail;
  memcpy(got->name, request->ifr_name, sizeof got->name);
  if (ioctl(sock, SIOCGIFINDEX, request) < 0)
    goto fail;
  got->ifindex = (uint32_t)request->ifr_ifindex;
  if (ioctl(sock, SIOCGIFMTU, request) < 0)
    goto fail;
  got->mtu_bytes = (uint32_t)request->ifr_mtu;
  if (ioctl(fd, SIOCGIFHWADDR, request) < 0)
    goto fail;
  memcpy(got->mac, request->ifr_hwaddr.sa_data, sizeof got->mac);
  close(sock);
  return 0;

fail:;
  int status = -errno;
  error_detail_set(status, "the TAP device %s cannot be looked at from this network namespace: %s",
                   request->ifr_name, strerror(-status));
  if (sock >= 0)
    close(sock);
  return status;
}

/* Takes over a given descriptor, also on failure. */
static int tap_open(const hy_tap_config *config, int *fd, bool *header, hy_tap_obtained *got) {
  *fd = config->tap_fd;
  int status = 0;
  struct ifreq request = {0};
  bool wants = config->offload != HY_REQUEST_NO;
  if (*fd < 0) {
    status = *fd = tun_open();
    if (status >= 0)
      status = tun_name(*fd, config, wants);
    if (status < 0)
      goto fail;
  }
  if (ioctl(*fd, TUNGETIFF, &request) < 0) {
    status = errno == EBADFD ? -ENODEV : -EINVAL;
    error_detail_set(status, "the descriptor is not a queue of a TAP device");
    goto fail;
  }
  unsigned flags = (unsigned short)request.ifr_flags;
  if (!(flags & IFF_TAP) || !(flags & IFF_NO_PI)) {
    status = -EINVAL;
    error_detail_set(status, "%s has to be a TAP device without packet information (IFF_TAP, IFF_NO_PI)",
                     request.ifr_name);
    goto fail;
  }
  *header = (flags & IFF_VNET_HDR) != 0;
  int bytes = 10;
  if (*header && ioctl(*fd, TUNSETVNETHDRSZ, &bytes) < 0) {
    status = -errno;
    error_detail_set(status, "%s does not take the usual header: %s", request.ifr_name, strerror(-status));
    goto fail;
  }
  got->offload = *header && wants && offload_set(*fd);
  if (config->offload == HY_REQUEST_MUST && !got->offload) {
    status = -EOPNOTSUPP;
    error_detail_set(status, "%s cannot leave checksums and segmentation to us: open it with IFF_VNET_HDR",
                     request.ifr_name);
    goto fail;
  }
  status = look_up(*fd, &request, got);
  if (status == 0)
    return 0;

fail:
  if (*fd >= 0)
    close(*fd);
  return status;
}

int hy_tap_attach(hy_shard *shard, const hy_tap_config *config, hy_tap_obtained *obtained) {
  error_detail_clear();
  hy_tap_obtained got = {0};
  if (config->struct_size != sizeof *config || config->offload > HY_REQUEST_MUST ||
      config->registered > HY_REQUEST_MUST || config->name[HY_IFNAME_BYTES - 1] != '\0') {
    if (config->tap_fd >= 0)
      close(config->tap_fd);
    return error_detail_set(-EINVAL,
                            "the configuration makes no sense: struct_size, name, offload or registered");
  }
  struct frames_setup setup = {.kind = FRAMES_TAP, .registered = config->registered};
  int status = tap_open(config, &setup.fd, &setup.header, &got);
  if (status < 0)
    return status;
  setup.interface = got.ifindex;
  setup.queue = config->queue;
  setup.ifindex = config->ifindex ? config->ifindex : got.ifindex;
  struct frames_obtained frames;
  struct hy_device *dev;
  status = frames_open(shard_arena(shard), &setup, &frames, &dev);
  if (status < 0)
    return status;
  got.registered = frames.registered;
  got.deferred = frames.deferred;
  status = shard_add_device(shard, dev);
  if (status < 0) {
    error_detail_set(status, "the shard has as many devices as it can have");
    dev->ops->close(dev);
    return status;
  }
  if (obtained != NULL)
    *obtained = got;
  return 0;
}
