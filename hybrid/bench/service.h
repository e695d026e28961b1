/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel's servers in the throughput benchmark serve: the echo, and the
 * key-value server's own sessions (examples/kv), so that only the way to the
 * network differs from ours.
 */
#ifndef HYBRID_BENCH_SERVICE_H
#define HYBRID_BENCH_SERVICE_H

#include <stddef.h>

enum { SERVICE_CONNECTIONS = 1024 };

struct service {
  const char *name;
  void (*init)(void);
  void (*open)(unsigned connection);
  void (*close)(unsigned connection);
  /* The reply to a piece of input: valid until the next call; may be the input itself. */
  const void *(*run)(unsigned connection, const void *data, size_t bytes, size_t *reply_bytes);
};

/* "echo" or "kv"; NULL: neither. */
const struct service *service_named(const char *name);

#endif
