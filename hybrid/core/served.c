/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The application's end of control.h: taking over the datapath that a launcher
 * prepared, and telling it when the queues may go into service.
 *
 * Nothing here needs a privilege, with one exception that is the kernel's: the
 * arena is counted against RLIMIT_MEMLOCK once for every AF_XDP socket, and only
 * CAP_IPC_LOCK lifts that (-ENOLCK says so).
 *
 * The launcher holds more rights than we do, so it is believed, but not blindly:
 * the socket may be anything that a wrong HYBRID_CONTROL names, and a message may
 * come from another build.
 */
#include "core/handover.h"
#include "core/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SERVED_ENV "HYBRID_CONTROL"

enum {
  SERVED_PATIENCE_MS = 10000, /* how long the launcher may take to answer; it only enters a few map rows */
  SERVED_FDS_MAX = 2 + HY_CONTROL_DEVICES,
  SERVED_FD_HOST = 0,
  SERVED_FD_STATS = 1,
  SERVED_FD_DEVICES = 2,
};

static_assert(sizeof(hy_placement) == 8 && sizeof(hy_handover_device) == 20 + HY_CONTROL_ARGS_BYTES &&
                  sizeof(hy_handover) == 28 + HY_CONTROL_EAL_BYTES + 8 * HY_PLACEMENTS +
                                             HY_CONTROL_DEVICES * sizeof(hy_handover_device),
              "no padding between two builds");
static_assert(sizeof(hy_attached) != sizeof(hy_notice) && sizeof(hy_ready) != sizeof(hy_notice),
              "told apart by their size");
static_assert(HY_CONTROL_DEVICES <= SHARD_DEVICES, "a shard can take what a handover can name");

/* A handover with its descriptors: -1 once somebody else owns one. */
struct handover {
  hy_handover body;
  unsigned nfds;
  int fds[SERVED_FDS_MAX];
};

static int64_t monotonic_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Waits for a datagram. -ETIMEDOUT. Signals neither end the waiting nor prolong it. */
static int readable_wait(int fd) {
  int64_t deadline = monotonic_ms() + SERVED_PATIENCE_MS;
  for (;;) {
    int64_t left = deadline - monotonic_ms();
    struct pollfd on = {.fd = fd, .events = POLLIN};
    int n = poll(&on, 1, left > 0 ? (int)left : 0);
    if (n > 0)
      return 0;
    if (n == 0)
      return -ETIMEDOUT;
    if (errno != EINTR)
      return -errno;
  }
}

/*
 * One datagram of exactly len bytes with up to max descriptors, which are the
 * caller's also where this fails. -EAGAIN: there is none. -ECONNRESET: the launcher
 * is gone. -EPROTO: anything else than such a datagram.
 */
static int datagram_take(int fd, void *out, size_t len, int *fds, unsigned max, unsigned *nfds) {
  *nfds = 0;
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int) * SERVED_FDS_MAX)];
  } control;
  assert(max <= SERVED_FDS_MAX);
  struct iovec iov = {.iov_base = out, .iov_len = len};
  struct msghdr message = {
      .msg_iov = &iov,
      .msg_iovlen = 1,
      .msg_control = max > 0 ? &control : NULL,
      .msg_controllen = CMSG_SPACE(sizeof(int) * max) * (max > 0),
  };
  ssize_t n;
  do
    n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return -errno;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (unsigned i = 0; i < count; i++) {
      int one;
      memcpy(&one, CMSG_DATA(c) + i * sizeof one, sizeof one);
      if (*nfds < max)
        fds[(*nfds)++] = one;
      else
        close(one);
    }
  }
  if (n == 0)
    return -ECONNRESET;
  return (size_t)n == len && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ? 0 : -EPROTO;
}

/* As datagram_take, and waits for it. -ETIMEDOUT. */
static int datagram_receive(int fd, void *out, size_t len, int *fds, unsigned max, unsigned *nfds) {
  *nfds = 0;
  int status = readable_wait(fd);
  return status < 0 ? status : datagram_take(fd, out, len, fds, max, nfds);
}

static int datagram_send(int fd, const void *what, size_t len) {
  ssize_t n;
  do
    n = send(fd, what, len, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return errno == EPIPE ? -ECONNRESET : -errno;
  return 0;
}

/* The socket that the launcher left to this process. -ENOENT: there was no launcher. */
static int control_take(void) {
  const char *text = getenv(SERVED_ENV);
  if (text == NULL)
    return -ENOENT;
  char *end;
  errno = 0;
  long fd = strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || fd < 0 || fd > INT_MAX)
    return -EINVAL;
  int type = 0;
  socklen_t len = sizeof type;
  if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
    return -errno;
  if (type != SOCK_SEQPACKET)
    return -EINVAL;
  if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
    return -errno;
  /* There is one handover: a second shard, or a program that this one starts, must not wait for another. */
  unsetenv(SERVED_ENV);
  return (int)fd;
}

static bool handover_valid(const struct handover *h) {
  const hy_handover *b = &h->body;
  return b->magic == HY_CONTROL_MAGIC && b->ndevices <= HY_CONTROL_DEVICES &&
         (b->ndevices > 0 || b->kernel.wanted) && b->nplacements <= HY_PLACEMENTS &&
         h->nfds == SERVED_FD_DEVICES + b->ndevices && b->port_lo <= b->port_hi &&
         (b->port_lo > 0) == (b->port_hi > 0);
}

/* Texts end where they should. */
static void handover_terminate(hy_handover *b) {
  b->eal[sizeof b->eal - 1] = '\0';
  for (uint32_t i = 0; i < HY_CONTROL_DEVICES; i++)
    b->devices[i].args[sizeof b->devices[i].args - 1] = '\0';
}

static void handover_close(struct handover *h) {
  for (unsigned i = 0; i < h->nfds; i++)
    if (h->fds[i] >= 0)
      close(h->fds[i]);
}

static int host_follow(hy_shard *shard, int fd) {
  hy_host *host;
  int status = hy_host_open(fd, &host);
  if (status == 0)
    shard_follow_host(shard, host);
  return status;
}

static int stats_page_map(hy_shard *shard, int fd) {
  struct stat file;
  if (fstat(fd, &file) < 0)
    return -errno;
  if (file.st_size < (off_t)sizeof(hy_stats_page)) /* beyond its end a store would be a SIGBUS */
    return -EPROTO;
  hy_stats_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED)
    return -errno;
  int status = shard_set_stats_page(shard, page);
  if (status < 0)
    munmap(page, sizeof *page);
  return status;
}

static int devices_attach(hy_shard *shard, struct handover *h) {
  shard->ready.ndevices = h->body.ndevices;
  for (uint32_t i = 0; i < h->body.ndevices; i++) {
    int fd = h->fds[SERVED_FD_DEVICES + i];
    h->fds[SERVED_FD_DEVICES + i] = -1;
    int status = handover_attach(shard, &h->body.devices[i], h->body.eal, fd, &shard->ready.devices[i]);
    if (status < 0 && !h->body.lenient)
      return status;
  }
  return 0;
}

/* Kernel sockets, where they are asked for. As a fallback they may be missing, which is told. */
static int kernel_attach(hy_shard *shard, const hy_handover_kernel *asked) {
  if (!asked->wanted) {
    shard->ready.kernel = 1;
    return 0;
  }
  const hy_uring_config config = {
      .struct_size = sizeof config,
      .sqpoll = asked->sqpoll,
      .napi_busy_poll = asked->busy_poll,
      .zerocopy = asked->zerocopy ? HY_URING_ZEROCOPY_AUTO : HY_URING_ZEROCOPY_NO,
      .strict = asked->strict,
  };
  shard->ready.kernel = hy_uring_attach(shard, &config, NULL);
  if (shard->ready.kernel < 0)
    handover_note(shard->ready.kernel_note);
  return asked->wanted > 1 || asked->strict ? shard->ready.kernel : 0;
}

/* As the application asks; DPDK keeps its descriptor of a frame in the frame. */
static int shard_open(const hy_config *asked, const hy_handover *h, hy_shard **out) {
  hy_config config;
  hy_config_default(&config);
  if (asked != NULL) {
    if (asked->struct_size != sizeof config)
      return -EINVAL;
    config = *asked;
  }
  for (uint32_t i = 0; i < h->ndevices; i++)
    if (h->devices[i].kind == HY_CONTROL_DPDK && config.frame_prefix_bytes < HY_DPDK_PREFIX)
      config.frame_prefix_bytes = HY_DPDK_PREFIX;
  return hy_shard_open(&config, out);
}

int hy_shard_open_served(const hy_config *config, hy_shard **out) {
  *out = NULL;
  int control = control_take();
  if (control < 0)
    return control;
  struct handover h;
  hy_shard *shard = NULL;
  int status = datagram_receive(control, &h.body, sizeof h.body, h.fds, SERVED_FDS_MAX, &h.nfds);
  if (status != 0)
    goto fail;
  status = -EPROTO;
  if (!handover_valid(&h))
    goto fail;
  handover_terminate(&h.body);
  status = shard_open(config, &h.body, &shard);
  if (status != 0)
    goto fail;

  status = host_follow(shard, h.fds[SERVED_FD_HOST]);
  if (status < 0)
    goto fail;
  status = stats_page_map(shard, h.fds[SERVED_FD_STATS]);
  if (status < 0)
    goto fail;
  shard->ready.magic = HY_CONTROL_MAGIC;
  status = devices_attach(shard, &h);
  if (status < 0)
    goto fail;
  status = kernel_attach(shard, &h.body.kernel);
  if (status < 0)
    goto fail;
  status = hy_place(shard, h.body.placements, h.body.nplacements);
  if (status < 0)
    goto fail;
  if (h.body.port_lo > 0)
    shard_set_ports(shard, h.body.port_lo, h.body.port_hi);
  shard->control_fd = control;
  hy_shard_set_notice_fd(shard, control);
  handover_close(&h);
  *out = shard;
  return 0;

fail:
  hy_shard_close(shard);
  handover_close(&h);
  close(control);
  return status;
}

int hy_shard_ready(hy_shard *shard) {
  if (shard->control_fd < 0)
    return 0;
  int status = datagram_send(shard->control_fd, &shard->ready, sizeof shard->ready);
  if (status < 0)
    return status;
  hy_go go;
  unsigned nfds;
  status = datagram_receive(shard->control_fd, &go, sizeof go, NULL, 0, &nfds);
  if (status < 0)
    return status;
  if (go.magic != HY_CONTROL_MAGIC || go.status > 0)
    return -EPROTO;
  shard->serving = go.status == 0;
  return go.status;
}

/* Without room for an answer nothing is taken: a launcher that has stopped must not stop its application. */
static bool can_answer(int fd) {
  struct pollfd on = {.fd = fd, .events = POLLOUT};
  return poll(&on, 1, 0) == 1 && (on.revents & POLLOUT);
}

void served_chores(struct hy_shard *shard) {
  while (can_answer(shard->control_fd)) {
    hy_handover_more more;
    int fd = -1;
    unsigned nfds;
    int status = datagram_take(shard->control_fd, &more, sizeof more, &fd, 1, &nfds);
    if (status == -EAGAIN)
      return;
    if (status < 0 || more.magic != HY_CONTROL_MAGIC || nfds != 1) {
      /* The launcher has ended, or is another build's: what there is goes on as it is. */
      if (nfds == 1)
        close(fd);
      shard->serving = false;
      return;
    }
    more.device.args[sizeof more.device.args - 1] = '\0';
    more.eal[sizeof more.eal - 1] = '\0';
    hy_attached attached;
    handover_attach(shard, &more.device, more.eal, fd, &attached);
    (void)datagram_send(shard->control_fd, &attached, sizeof attached);
  }
}
