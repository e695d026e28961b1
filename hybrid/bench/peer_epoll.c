/* SPDX-License-Identifier: Apache-2.0 */
/* The epoll server; see peer.h. */
#include "bench/bench.h"
#include "bench/net.h"
#include "bench/peer.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 64, PIECE = 64 << 10, LISTENER = SERVICE_CONNECTIONS };

struct connection {
  int fd; /* -1: not in use */
  /* What the socket had no room for. Nothing more is read until it has left. */
  char *unsent;
  size_t unsent_bytes, sent_bytes;
};

struct server {
  const struct peer *peer;
  int epoll;
  unsigned nconnections;
  struct connection connections[SERVICE_CONNECTIONS];
  char piece[PIECE];
};

static void watch(const struct server *s, int how, int fd, unsigned number, uint32_t events) {
  struct epoll_event event = {.events = events, .data.u32 = number};
  if (epoll_ctl(s->epoll, how, fd, &event) < 0)
    bench_fail("epoll_ctl: %s", strerror(errno));
}

static void on_listener(struct server *s) {
  int fd = accept4(s->peer->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  unsigned number = 0;
  if (fd < 0)
    bench_fail("accept: %s", strerror(errno));
  while (number < SERVICE_CONNECTIONS && s->connections[number].fd >= 0)
    number++;
  if (number == SERVICE_CONNECTIONS)
    bench_fail("more than %d connections", SERVICE_CONNECTIONS);
  net_nodelay(fd);
  s->connections[number] = (struct connection){.fd = fd};
  s->nconnections++;
  s->peer->service->open(number);
  watch(s, EPOLL_CTL_ADD, fd, number, EPOLLIN);
}

static void connection_end(struct server *s, unsigned number) {
  struct connection *c = &s->connections[number];
  s->peer->service->close(number);
  free(c->unsent);
  close(c->fd);
  c->fd = -1;
  s->nconnections--;
}

static void connection_keep(struct server *s, unsigned number, const char *rest, size_t bytes) {
  struct connection *c = &s->connections[number];
  c->unsent = malloc(bytes);
  if (!c->unsent)
    bench_fail("no memory for %zu bytes", bytes);
  memcpy(c->unsent, rest, bytes);
  c->unsent_bytes = bytes;
  c->sent_bytes = 0;
  watch(s, EPOLL_CTL_MOD, c->fd, number, EPOLLOUT);
}

static void on_room(struct server *s, unsigned number) {
  struct connection *c = &s->connections[number];
  ssize_t sent = send(c->fd, c->unsent + c->sent_bytes, c->unsent_bytes - c->sent_bytes, MSG_NOSIGNAL);
  if (sent < 0 && errno == EAGAIN)
    return;
  if (sent < 0) {
    connection_end(s, number);
    return;
  }
  c->sent_bytes += (size_t)sent;
  if (c->sent_bytes < c->unsent_bytes)
    return;
  free(c->unsent);
  c->unsent = NULL;
  watch(s, EPOLL_CTL_MOD, c->fd, number, EPOLLIN);
}

static void on_input(struct server *s, unsigned number) {
  struct connection *c = &s->connections[number];
  ssize_t got = recv(c->fd, s->piece, PIECE, 0);
  if (got < 0 && errno == EAGAIN)
    return;
  if (got <= 0) {
    connection_end(s, number);
    return;
  }
  size_t bytes;
  const char *reply = s->peer->service->run(number, s->piece, (size_t)got, &bytes);
  ssize_t sent = send(c->fd, reply, bytes, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN)
    connection_end(s, number);
  else if (sent < 0 || (size_t)sent < bytes)
    connection_keep(s, number, reply + (sent > 0 ? sent : 0), bytes - (size_t)(sent > 0 ? sent : 0));
}

void peer_epoll(const struct peer *peer) {
  static struct server s;
  s.peer = peer;
  s.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (s.epoll < 0)
    bench_fail("epoll: %s", strerror(errno));
  for (unsigned i = 0; i < SERVICE_CONNECTIONS; i++)
    s.connections[i].fd = -1;
  watch(&s, EPOLL_CTL_ADD, peer->listener, LISTENER, EPOLLIN);
  for (;;) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(s.epoll, events, EVENTS, peer->sleep || s.nconnections == 0 ? -1 : 0);
    if (n < 0 && errno != EINTR)
      bench_fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
      unsigned number = events[i].data.u32;
      if (number == LISTENER)
        on_listener(&s);
      else if (s.connections[number].unsent)
        on_room(&s, number);
      else
        on_input(&s, number);
    }
  }
}
