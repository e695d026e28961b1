/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of this folder share: a shard with kernel sockets, and ordinary blocking sockets of a
 * thread or of the test itself as the other side. Every wait is bounded.
 */
#ifndef HYBRID_TESTS_URING_PEER_H
#define HYBRID_TESTS_URING_PEER_H

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit/check.h"
#include "hybrid.h"

#define PATIENCE_NS (10 * 1000000000LL)

/* A shard with kernel sockets; NULL: this host has no io_uring, and the test is skipped. */
hy_shard *shard_with(const hy_config *config, const hy_uring_config *uring, hy_uring_obtained *obtained);
hy_shard *shard_plain(void);

/* Fails the test where the operation does not complete in time. */
hy_event complete(hy_shard *shard, hy_qt qt);
hy_event pop(hy_shard *shard, hy_qd qd);
/* Status of the operation. */
int finish(hy_shard *shard, hy_qt qt);
/* Polls until the condition holds, or the test fails. */
#define until(shard, condition)                                                                              \
  do {                                                                                                       \
    for (int tries = 0; !(condition); tries++) {                                                             \
      assert_true(tries < 10000);                                                                            \
      hy_event none;                                                                                         \
      assert_int_equal(hy_wait(shard, idle_token(shard), &none, 1000000), 0);                                \
    }                                                                                                        \
  } while (0)
/* The token of an operation that never completes: to wait for time to pass. */
hy_qt idle_token(hy_shard *shard);

hy_addr loopback(int family, uint16_t port);
hy_qd listener(hy_shard *shard, const char *at, int backlog, uint16_t *port);
/* A listening socket of the kernel's on 127.0.0.1. */
int plain_listener(uint16_t *port);
int plain_connect(int family, uint16_t port);
/* A connected pair: ours accepts a plain one. */
hy_qd accepted(hy_shard *shard, int *plain);
void reset_by_closing(int fd);
hy_qd accept_from(hy_shard *shard, hy_qd listening, uint16_t port, int *plain);
/* Or ours by connecting to a plain listener. */
hy_qd connect_to_plain(hy_shard *shard, int *plain);

/* And the push has completed. */
void push_text(hy_shard *shard, hy_qd qd, const char *text);
uint64_t counter(const hy_shard *shard, const char *name);
/* What has arrived, while the shard goes on; 0: the end of the stream. Fails the test where nothing comes. */
size_t plain_some(hy_shard *shard, int fd);
/* Reads exactly so many bytes or fails the test. */
void plain_read(int fd, void *out, size_t bytes);
/* What recv() says in the end: 0 for the end of the stream, or a negative errno. What came before is dropped.
 */
int plain_end(int fd);

#endif
