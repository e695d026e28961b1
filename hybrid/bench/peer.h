/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's servers in the throughput benchmark. Each sleeps while it has no
 * connection, so that its core is another subject's; with connections it polls,
 * or sleeps whenever nothing has come (`sleep`). One thread, one listener.
 */
#ifndef HYBRID_BENCH_PEER_H
#define HYBRID_BENCH_PEER_H

#include "bench/service.h"

#include <stdbool.h>

struct peer {
  int listener;
  bool sleep;
  const struct service *service;
};

/* epoll, level-triggered: one recv and one send for each connection that is ready. */
__attribute__((noreturn)) void peer_epoll(const struct peer *peer);
/* liburing as its examples have it: multishot accept and receive into provided buffers, one send under way
 * each. */
__attribute__((noreturn)) void peer_io_uring(const struct peer *peer);

#endif
