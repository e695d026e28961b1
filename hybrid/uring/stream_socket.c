/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses, and the system calls that open a socket and say what it is. None is made per packet.
 *
 * Sockets are blocking ones: for io_uring that means "wait for it in the kernel, and complete then", where a
 * non-blocking one would complete with EAGAIN.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <string.h>
#include <unistd.h>

#include "tcp/wire.h"
#include "uring/stream.h"

static int option_set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

void addr_from_sockaddr(const void *sa, hy_addr *out) {
  sa_family_t family;
  memcpy(&family, sa, sizeof family);
  *out = (hy_addr){0};
  if (family == AF_INET) {
    struct sockaddr_in in;
    memcpy(&in, sa, sizeof in);
    ip_map4(out->ip, (const uint8_t *)&in.sin_addr);
    out->port = ntohs(in.sin_port);
    out->family = 4;
  } else if (family == AF_INET6) {
    struct sockaddr_in6 in6;
    memcpy(&in6, sa, sizeof in6);
    memcpy(out->ip, &in6.sin6_addr, 16);
    out->port = ntohs(in6.sin6_port);
    out->family = ip_is_4(out->ip) ? 4 : 6;
  }
}

socklen_t addr_to_sockaddr(const hy_addr *addr, int family, void *sa) {
  if (family == AF_INET) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(addr->port)};
    memcpy(&in.sin_addr, addr->ip + 12, 4);
    memcpy(sa, &in, sizeof in);
    return sizeof in;
  }
  /* An IPv4 address is in its mapped form already, which is how a socket of both families takes it. */
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(addr->port)};
  memcpy(&in6.sin6_addr, addr->ip, 16);
  memcpy(sa, &in6, sizeof in6);
  return sizeof in6;
}

int socket_family(int fd) {
  int family = 0;
  socklen_t len = sizeof family;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0 ? -errno : family;
}

int socket_open(int type, uint8_t family) {
  int fd = socket(family == 4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0);
  bool is4 = family == 4;
  if (fd < 0 && errno == EAFNOSUPPORT && family == 0) { /* a host without IPv6: all its addresses are IPv4 */
    fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    is4 = true;
  }
  if (fd < 0)
    return -errno;
  if (!is4)
    option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, family == 6);
  if (type == SOCK_STREAM) {
    option_set(fd, IPPROTO_TCP, TCP_NODELAY, 1); /* accepted ones inherit it */
  } else {
    /* As the common stack does: what is longer than the path's MTU is refused, not fragmented. */
    option_set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
    if (!is4)
      option_set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO);
  }
  return fd;
}

int socket_bind(int fd, const hy_addr *local) {
  struct sockaddr_in6 sa;
  int family = socket_family(fd);
  if (family < 0)
    return family;
  int type = 0;
  socklen_t len = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
    return -errno;
  if (type == SOCK_STREAM) /* a server that is started again must not wait for TIME_WAIT */
    option_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  hy_addr any = *local;
  if (family == AF_INET && local->family != 4)
    any.family = 4, memset(any.ip, 0, sizeof any.ip);
  len = addr_to_sockaddr(&any, family, &sa);
  return bind(fd, (const struct sockaddr *)&sa, len) < 0 ? -errno : 0;
}

int socket_connect(int fd, const hy_addr *peer) {
  struct sockaddr_in6 sa;
  int family = socket_family(fd);
  if (family < 0)
    return family;
  socklen_t len = addr_to_sockaddr(peer, family, &sa);
  return connect(fd, (const struct sockaddr *)&sa, len) < 0 ? -errno : 0;
}

int socket_local(int fd, hy_addr *out) {
  struct sockaddr_in6 sa = {0};
  socklen_t len = sizeof sa;
  if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
    return -errno;
  addr_from_sockaddr(&sa, out);
  return 0;
}

int socket_peer(int fd, hy_addr *out) {
  struct sockaddr_in6 sa = {0};
  socklen_t len = sizeof sa;
  if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0)
    return -errno;
  addr_from_sockaddr(&sa, out);
  return 0;
}

void socket_abort(int fd) {
  const struct linger now = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}
