/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting up an AF_XDP socket by the kernel's own interface, <linux/if_xdp.h>.
 *
 *   socket -> register memory -> size the rings -> map them -> bind
 *
 * What a later kernel brought is asked for first, and left away where the kernel
 * refuses it: metadata on transmit with the registration, several frames per packet
 * with the bind.
 */
#include "afxdp/xsk.h"

#include "afxdp/netdev.h"
#include "afxdp/newer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  BUSY_POLL_US = 20,       /* what SO_BUSY_POLL wants to be more than 0; calls here never wait */
  BUSY_POLL_BUDGET = 64,   /* frames per busy-polling call: our burst */
  BUSY_PAUSE_NS = 1000000, /* between attempts at a queue that is taken */
  BUSY_ATTEMPTS = 300,
  SKB_BYTES = 2304, /* what a full-size frame is charged to the socket's send buffer in copy mode */
};

static int option_set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

static int option_get(int fd, int level, int name) {
  int value = 0;
  socklen_t len = sizeof value;
  return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

static int xsk_socket(int *fd) {
  if (*fd < 0) {
    *fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    return *fd < 0 ? -errno : 0;
  }
  int domain = option_get(*fd, SOL_SOCKET, SO_DOMAIN);
  if (domain < 0)
    return domain;
  return domain == AF_XDP ? 0 : -EAFNOSUPPORT;
}

static int umem_register(int fd, const struct arena *arena, bool metadata) {
  /* headroom 0: the kernel leaves 256 bytes (XDP_PACKET_HEADROOM) in front of what it receives anyway. */
  struct umem_reg umem = {
      .addr = (uintptr_t)arena->base,
      .len = arena->size_bytes,
      .chunk_size = arena->frame_size,
      .flags = metadata ? XDP_UMEM_TX_METADATA_LEN : 0,
      .tx_metadata_len = metadata ? sizeof(struct tx_metadata) : 0,
  };
  if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof umem) == 0)
    return 0;
  /* The kernel's ENOBUFS is about RLIMIT_MEMLOCK; ours means that a bound of the configuration is hit. */
  return errno == ENOBUFS ? -ENOLCK : -errno;
}

static int rings_map(struct xsk *xsk, uint32_t size) {
  static const int sizes[XSK_RINGS] = {XDP_RX_RING, XDP_TX_RING, XDP_UMEM_FILL_RING,
                                       XDP_UMEM_COMPLETION_RING};
  static const off_t places[XSK_RINGS] = {XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_FILL_RING,
                                          (off_t)XDP_UMEM_PGOFF_COMPLETION_RING};
  for (int i = 0; i < XSK_RINGS; i++) {
    int status = option_set(xsk->fd, SOL_XDP, sizes[i], (int)size);
    if (status < 0)
      return status;
  }
  struct xdp_mmap_offsets offsets;
  socklen_t len = sizeof offsets;
  if (getsockopt(xsk->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &len) < 0)
    return -errno;
  if (len != sizeof offsets) /* before Linux 5.4, which had no flags to ask for wakeups */
    return -EOPNOTSUPP;
  const struct xdp_ring_offset *at[XSK_RINGS] = {&offsets.rx, &offsets.tx, &offsets.fr, &offsets.cr};
  for (int i = 0; i < XSK_RINGS; i++) {
    size_t slot = i == XSK_RX || i == XSK_TX ? sizeof(struct xdp_desc) : sizeof(uint64_t);
    size_t bytes = at[i]->desc + size * slot;
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, xsk->fd, places[i]);
    if (map == MAP_FAILED)
      return -errno;
    xsk->maps[i] = map;
    xsk->map_bytes[i] = bytes;
    uint8_t *base = map;
    ring_init(&xsk->rings[i], (uint32_t *)(void *)(base + at[i]->producer),
              (uint32_t *)(void *)(base + at[i]->consumer), (uint32_t *)(void *)(base + at[i]->flags),
              base + at[i]->desc, size);
  }
  return 0;
}

/*
 * Asks for busy polling. Turning it on wants CAP_NET_ADMIN, so a socket that was
 * handed to us may have been given it by whoever opened it.
 */
static void busy_poll_request(int fd) {
  option_set(fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, 1);
  option_set(fd, SOL_SOCKET, SO_BUSY_POLL, BUSY_POLL_US);
  option_set(fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, BUSY_POLL_BUDGET);
}

/* It is had only where there is a NAPI instance behind the queue for the calls to poll. */
static bool busy_poll_obtained(int fd) {
  return option_get(fd, SOL_SOCKET, SO_PREFER_BUSY_POLL) == 1 &&
         option_get(fd, SOL_SOCKET, SO_BUSY_POLL) > 0 && option_get(fd, SOL_SOCKET, SO_INCOMING_NAPI_ID) > 0;
}

/*
 * A socket that was closed gives its queue back a little later: after an RCU grace
 * period and from a work queue. So EBUSY is final only when it has lasted, or the
 * program that takes over from another could not.
 */
static int bind_patiently(int fd, const struct sockaddr_xdp *address) {
  const struct timespec pause = {.tv_nsec = BUSY_PAUSE_NS};
  for (int attempt = 1;; attempt++) {
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) == 0)
      return 0;
    if (errno != EBUSY || attempt == BUSY_ATTEMPTS)
      return -errno;
    nanosleep(&pause, NULL);
  }
}

/* Asks for the mode that was requested, and for less of what may be done without until the kernel agrees. */
static int bind_own(int fd, const hy_afxdp_config *config, hy_afxdp_obtained *got) {
  struct sockaddr_xdp address = {
      .sxdp_family = AF_XDP,
      .sxdp_ifindex = config->ifindex,
      .sxdp_queue_id = config->queue,
  };
  uint16_t mode = config->copy == HY_XDP_ZEROCOPY ? XDP_ZEROCOPY : config->copy == HY_XDP_COPY ? XDP_COPY : 0;
  bool multi = config->multi_buffer != HY_REQUEST_NO;
  for (;;) {
    address.sxdp_flags = (uint16_t)(XDP_USE_NEED_WAKEUP | mode | (multi ? XDP_USE_SG : 0));
    int status = bind_patiently(fd, &address);
    got->multi_buffer = status == 0 && multi;
    if (status == -EOPNOTSUPP && mode == XDP_ZEROCOPY && !config->strict)
      mode = XDP_COPY;
    else if ((status == -EINVAL || status == -EOPNOTSUPP) && multi && config->multi_buffer != HY_REQUEST_MUST)
      multi = false;
    else
      return status;
  }
}

/*
 * With the registration of another socket, whose mode is then ours too. Anything but 0: it could not be had,
 * and the socket is as it was.
 */
static int bind_beside(int fd, int beside_fd, const hy_afxdp_config *config) {
  struct sockaddr_xdp address = {
      .sxdp_family = AF_XDP,
      .sxdp_flags = XDP_SHARED_UMEM,
      .sxdp_ifindex = config->ifindex,
      .sxdp_queue_id = config->queue,
      .sxdp_shared_umem_fd = (uint32_t)beside_fd,
  };
  return bind_patiently(fd, &address);
}

static int zerocopy_obtained(int fd) {
  struct xdp_options options = {0};
  socklen_t len = sizeof options;
  if (getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &len) < 0)
    return -errno;
  return (options.flags & XDP_OPTIONS_ZEROCOPY) != 0;
}

/* Also where the kernel, and not the device, would complete them. */
static bool checksum_asked(const hy_afxdp_config *config) {
  return config->tx_checksum == HY_REQUEST_MUST || config->tx_checksum == HY_REQUEST_ASK;
}

/* Whether to be had by sharing is all that would be had by an own registration. */
static bool sharing_agrees(const struct xsk_beside *beside, const hy_afxdp_config *config,
                           const struct netdev_features *device) {
  int zerocopy = zerocopy_obtained(beside->fd);
  bool wants_zerocopy = config->copy == HY_XDP_ZEROCOPY ||
                        (config->copy == HY_XDP_COPY_AUTO && (device->xdp & NETDEV_XDP_ZEROCOPY));
  return zerocopy >= 0 && wants_zerocopy == zerocopy &&
         config->multi_buffer != (beside->multi_buffer ? HY_REQUEST_NO : HY_REQUEST_MUST) &&
         (beside->metadata || !checksum_asked(config));
}

/* Registers the arena and binds, or binds with the registration that there is. */
static int memory_and_bind(struct xsk *xsk, const struct arena *arena, const hy_afxdp_config *config,
                           const struct xsk_beside *beside, const struct netdev_features *device,
                           hy_afxdp_obtained *got) {
  int status = -EOPNOTSUPP;
  if (beside->fd >= 0 && config->shared_umem != HY_REQUEST_NO && sharing_agrees(beside, config, device)) {
    status = bind_beside(xsk->fd, beside->fd, config);
    if (status == 0) {
      got->shared_umem = 1;
      got->multi_buffer = beside->multi_buffer;
      xsk->metadata = beside->metadata;
      return 0;
    }
    if (status == -EBUSY || status == -ENODEV)
      return status;
  }
  if (beside->fd >= 0 && config->shared_umem == HY_REQUEST_MUST)
    return status;
  xsk->metadata = checksum_asked(config) ||
                  (config->tx_checksum == HY_REQUEST_AUTO && (device->xsk & NETDEV_XSK_TX_CHECKSUM));
  status = umem_register(xsk->fd, arena, xsk->metadata);
  if (status == -EINVAL && xsk->metadata && config->tx_checksum != HY_REQUEST_MUST) {
    xsk->metadata = false;
    status = umem_register(xsk->fd, arena, false);
  }
  if (status == -EINVAL && xsk->metadata) /* before Linux 6.8 */
    return -EOPNOTSUPP;
  return status < 0 ? status : bind_own(xsk->fd, config, got);
}

int xsk_open(struct xsk *xsk, const struct arena *arena, const hy_afxdp_config *config,
             const struct xsk_beside *beside, uint32_t ring_size, hy_afxdp_obtained *obtained) {
  *xsk = (struct xsk){.fd = config->xsk_fd};
  *obtained =
      (hy_afxdp_obtained){.need_wakeup = 1, .hugepages = arena->hugepages != 0, .ring_size = ring_size};
  int status = xsk_socket(&xsk->fd);
  if (status < 0)
    goto fail;
  status = rings_map(xsk, ring_size);
  if (status < 0)
    goto fail;

  /* Each of these only makes fewer calls do the same work: what the kernel refuses, it refuses. */
  option_set(xsk->fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, (int)ring_size);
  int sndbuf = (int)ring_size * SKB_BYTES;
  if (option_set(xsk->fd, SOL_SOCKET, SO_SNDBUFFORCE, sndbuf) < 0 &&
      option_get(xsk->fd, SOL_SOCKET, SO_SNDBUF) < sndbuf) /* whoever opened it may have given it more */
    option_set(xsk->fd, SOL_SOCKET, SO_SNDBUF, sndbuf);

  if (config->busy_poll)
    busy_poll_request(xsk->fd);
  struct netdev_features device;
  netdev_ask(config->ifindex, &device); /* all zero where the kernel does not say */
  status = memory_and_bind(xsk, arena, config, beside, &device, obtained);
  if (status < 0)
    goto fail;
  status = zerocopy_obtained(xsk->fd);
  if (status < 0)
    goto fail;
  obtained->zerocopy = status == 1;
  obtained->busy_poll = config->busy_poll && busy_poll_obtained(xsk->fd);
  obtained->tx_checksum = xsk->metadata && (obtained->zerocopy ? (device.xsk & NETDEV_XSK_TX_CHECKSUM) != 0
                                                               : checksum_asked(config));
  status = -EOPNOTSUPP;
  if ((config->strict && config->busy_poll && !obtained->busy_poll) ||
      (config->multi_buffer == HY_REQUEST_MUST && !obtained->multi_buffer) ||
      (config->tx_checksum == HY_REQUEST_MUST && !obtained->tx_checksum))
    goto fail;
  return 0;

fail:
  xsk_close(xsk);
  return status;
}

void xsk_close(struct xsk *xsk) {
  for (int i = 0; i < XSK_RINGS; i++)
    if (xsk->maps[i] != NULL)
      munmap(xsk->maps[i], xsk->map_bytes[i]);
  if (xsk->fd >= 0)
    close(xsk->fd);
  *xsk = (struct xsk){.fd = -1};
}
