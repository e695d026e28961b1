/* SPDX-License-Identifier: Apache-2.0 */
/* The plain sockets and the waiting that the tests of kernel sockets share. */
#include "peer.h"

hy_shard *shard_with(const hy_config *config, const hy_uring_config *uring, hy_uring_obtained *obtained) {
  hy_shard *shard;
  assert_int_equal(hy_shard_open(config, &shard), 0);
  int status = hy_uring_attach(shard, uring, obtained);
  if (status == -EPERM || status == -ENOSYS) {
    hy_shard_close(shard);
    print_message("%s\n", hy_error_detail());
    skip();
  }
  assert_int_equal(status, 0);
  return shard;
}

hy_shard *shard_plain(void) {
  hy_config config;
  hy_config_default(&config);
  config.frames = 4096;
  config.connections = 512;
  config.sockets = 2048;
  config.tokens = 4096;
  return shard_with(&config, NULL, NULL);
}

hy_event complete(hy_shard *shard, hy_qt qt) {
  hy_event event;
  assert_int_equal(hy_wait(shard, qt, &event, PATIENCE_NS), 1);
  return event;
}

int finish(hy_shard *shard, hy_qt qt) {
  return complete(shard, qt).status;
}

hy_event pop(hy_shard *shard, hy_qd qd) {
  hy_qt qt;
  assert_int_equal(hy_pop(shard, qd, &qt), 0);
  return complete(shard, qt);
}

hy_qt idle_token(hy_shard *shard) {
  static hy_shard *of;
  static hy_qt token;
  hy_event event;
  if (of == shard && hy_wait(shard, token, &event, 0) == 0)
    return token;
  of = shard;
  hy_qd qd;
  hy_addr local = loopback(4, 0);
  assert_int_equal(hy_socket(shard, HY_DGRAM, &qd), 0);
  assert_int_equal(hy_bind(shard, qd, &local), 0);
  assert_int_equal(hy_pop(shard, qd, &token), 0);
  return token;
}

hy_addr loopback(int family, uint16_t port) {
  hy_addr addr;
  assert_int_equal(hy_addr_parse(family == 4 ? "127.0.0.1" : "::1", &addr), 0);
  addr.port = port;
  return addr;
}

hy_qd listener(hy_shard *shard, const char *at, int backlog, uint16_t *port) {
  hy_qd qd;
  hy_addr addr;
  assert_int_equal(hy_addr_parse(at, &addr), 0);
  assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
  assert_int_equal(hy_bind(shard, qd, &addr), 0);
  assert_int_equal(hy_listen(shard, qd, backlog), 0);
  assert_int_equal(hy_local(shard, qd, &addr), 0);
  assert_int_not_equal(addr.port, 0);
  *port = addr.port;
  return qd;
}

static struct timeval patience = {.tv_sec = 10};

static int plain_socket(int family) {
  int fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return fd;
}

int plain_listener(uint16_t *port) {
  int fd = plain_socket(4);
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof in;
  assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
  assert_int_equal(listen(fd, 128), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
  *port = ntohs(in.sin_port);
  return fd;
}

int plain_connect(int family, uint16_t port) {
  int fd = plain_socket(family);
  struct sockaddr_in in = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  struct sockaddr_in6 in6 = {
      .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(port)};
  int rc = family == 4 ? connect(fd, (struct sockaddr *)&in, sizeof in)
                       : connect(fd, (struct sockaddr *)&in6, sizeof in6);
  if (rc == 0) {
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
  }
  rc = -errno;
  close(fd);
  return rc;
}

hy_qd accept_from(hy_shard *shard, hy_qd listening, uint16_t port, int *plain) {
  hy_qt qt;
  assert_int_equal(hy_accept(shard, listening, &qt), 0);
  *plain = plain_connect(4, port);
  assert_true(*plain >= 0);
  hy_event event = complete(shard, qt);
  assert_int_equal(event.status, 0);
  assert_true(event.accepted >= 0);
  return event.accepted;
}

hy_qd accepted(hy_shard *shard, int *plain) {
  uint16_t port;
  hy_qd listening = listener(shard, "127.0.0.1:0", 128, &port);
  hy_qd qd = accept_from(shard, listening, port, plain);
  assert_int_equal(hy_close(shard, listening), 0);
  return qd;
}

void reset_by_closing(int fd) {
  const struct linger now = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

hy_qd connect_to_plain(hy_shard *shard, int *plain) {
  uint16_t port;
  int listening = plain_listener(&port);
  hy_qd qd;
  hy_qt qt;
  hy_addr peer = loopback(4, port);
  assert_int_equal(hy_socket(shard, HY_STREAM, &qd), 0);
  assert_int_equal(hy_connect(shard, qd, &peer, &qt), 0);
  assert_int_equal(finish(shard, qt), 0);
  *plain = accept(listening, NULL, NULL);
  assert_true(*plain >= 0);
  setsockopt(*plain, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  close(listening);
  return qd;
}

void push_text(hy_shard *shard, hy_qd qd, const char *text) {
  hy_sga sga;
  assert_int_equal(hy_sga_alloc(shard, strlen(text), &sga), 0);
  memcpy(sga.segs[0].addr, text, strlen(text));
  hy_qt qt;
  assert_int_equal(hy_push(shard, qd, &sga, &qt), 0);
  hy_sga_free(shard, &sga);
  assert_int_equal(finish(shard, qt), 0);
}

uint64_t counter(const hy_shard *shard, const char *name) {
  for (unsigned i = 0; i < hy_stat_count(); i++)
    if (strcmp(hy_stat_name(i), name) == 0)
      return hy_stat(shard, i);
  fail_msg("no counter is called %s", name);
  return 0;
}

/* A ring that is closed interrupts calls of its thread that wait with a time-out, as these do. */
static ssize_t plain_recv(int fd, void *out, size_t bytes) {
  ssize_t n;
  do
    n = recv(fd, out, bytes, 0);
  while (n < 0 && errno == EINTR);
  return n;
}

void plain_read(int fd, void *out, size_t bytes) {
  for (size_t got = 0; got < bytes;) {
    ssize_t n = plain_recv(fd, (char *)out + got, bytes - got);
    assert_true(n > 0);
    got += (size_t)n;
  }
}

size_t plain_some(hy_shard *shard, int fd) {
  static char bytes[1 << 16];
  for (int tries = 0; tries < 10000; tries++) {
    hy_poll(shard);
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n >= 0)
      return (size_t)n;
    assert_int_equal(errno, EAGAIN);
    struct pollfd on = {.fd = fd, .events = POLLIN};
    poll(&on, 1, 1);
  }
  fail_msg("nothing arrives");
  return 0;
}

int plain_end(int fd) {
  char bytes[4096];
  ssize_t n;
  do
    n = plain_recv(fd, bytes, sizeof bytes);
  while (n > 0);
  return n == 0 ? 0 : -errno;
}
