/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of the kernel for the benchmark programs; see net.h. */
#include "bench/net.h"

#include "bench/bench.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

struct addrinfo *net_resolve(const char *address, const char *port) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC,
                           .ai_socktype = SOCK_STREAM,
                           .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
  struct addrinfo *found;
  int error = getaddrinfo(address, port, &hints, &found);
  if (error)
    bench_fail("%s port %s: %s", address, port, gai_strerror(error));
  return found;
}

int net_listen(const char *address, const char *port, int backlog) {
  struct addrinfo *at = net_resolve(address, port);
  int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
      bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, backlog) < 0)
    bench_fail("cannot listen on %s port %s: %s", address, port, strerror(errno));
  freeaddrinfo(at);
  return fd;
}

void net_nodelay(int fd) {
  int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
    bench_fail("TCP_NODELAY: %s", strerror(errno));
}
