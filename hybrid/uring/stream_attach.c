/* SPDX-License-Identifier: Apache-2.0 */
/* hy_uring_attach(): kernel sockets for a shard. Everything is set up here, and said to have been had or not.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "core/error.h"
#include "uring/stream.h"

enum {
  ENTRIES_DEFAULT = 512,
  ENTRIES_MAX = 16384,
  COMPLETIONS_MIN = 4096,
  BUFFERS_DEFAULT = 1024,
  BUFFERS_MAX = 32768,  /* the kernel's */
  OTHER_SOCKETS = 1024, /* listeners and datagram sockets, beside the connections */
  SQPOLL_IDLE_MS = 1000,
  ZEROCOPY_BYTES_DEFAULT = 32 << 10, /* below, pinning and notifying cost more than the copy */
  NAPI_BUSY_POLL_US = 50,
};

static bool power_of_two(uint32_t n) {
  return n != 0 && (n & (n - 1)) == 0;
}

static uint32_t power_below(uint32_t n) {
  return n == 0 ? 0 : 1u << (31 - __builtin_clz(n));
}

static int resolve(const hy_shard *shard, const hy_uring_config *given, hy_uring_config *out) {
  *out = given ? *given : (hy_uring_config){.struct_size = sizeof *out};
  if (out->struct_size != sizeof *out)
    return error_detail_set(-EINVAL,
                            "hy_uring_config is of another version: build the program against this hybrid.h");
  uint32_t lendable = power_below(shard->config.frames / 4);
  if (out->entries == 0)
    out->entries = ENTRIES_DEFAULT;
  if (out->buffers == 0)
    out->buffers = lendable < BUFFERS_DEFAULT ? lendable : BUFFERS_DEFAULT;
  if (out->zerocopy_bytes == 0)
    out->zerocopy_bytes = ZEROCOPY_BYTES_DEFAULT;
  if (!power_of_two(out->entries) || out->entries < STREAM_SQES_EACH || out->entries > ENTRIES_MAX)
    return error_detail_set(-EINVAL, "entries must be a power of two from 8 to %d", ENTRIES_MAX);
  if (!power_of_two(out->buffers) || out->buffers > BUFFERS_MAX || out->buffers > shard->config.frames / 2)
    return error_detail_set(-EINVAL,
                            "buffers must be a power of two, at most %d and half of the arena's %u frames",
                            BUFFERS_MAX, shard->config.frames);
  if (out->zerocopy > HY_URING_ZEROCOPY_ALWAYS)
    return error_detail_set(-EINVAL, "zerocopy must be one of enum hy_uring_zerocopy");
  return 0;
}

static int ring_open(struct uring *u, const hy_uring_config *c) {
  uint32_t completions = COMPLETIONS_MIN;
  while (completions < 4 * c->entries || completions < 2 * c->buffers)
    completions *= 2;
  struct io_uring_params params = {
      .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |
               IORING_SETUP_SINGLE_ISSUER,
      .cq_entries = completions,
      .sq_thread_idle = SQPOLL_IDLE_MS,
  };
  params.flags |= c->sqpoll ? IORING_SETUP_SQPOLL : IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  int rc = io_uring_queue_init_params(c->entries, &u->ring, &params);
  if (rc < 0) {
    u->ring.ring_fd = -1;
    return uring_explain(rc);
  }
  u->sqpoll = c->sqpoll;
  return 0;
}

/* The table may be as long as the process may have descriptors: more are asked for while it is made. */
static bool files_register(struct uring *u) {
  struct rlimit had, more;
  bool raise = getrlimit(RLIMIT_NOFILE, &had) == 0 && had.rlim_cur < u->nsocks;
  more = (struct rlimit){.rlim_cur = had.rlim_max < u->nsocks ? had.rlim_max : u->nsocks,
                         .rlim_max = had.rlim_max};
  if (raise)
    setrlimit(RLIMIT_NOFILE, &more);
  int rc = io_uring_register_files_sparse(&u->ring, u->nsocks);
  if (raise)
    setrlimit(RLIMIT_NOFILE, &had);
  return rc == 0;
}

static bool arena_register(struct uring *u) {
  struct iovec all = {.iov_base = u->shard->arena.base, .iov_len = u->shard->arena.size_bytes};
  return io_uring_register_buffers(&u->ring, &all, 1) == 0;
}

static bool napi_register(struct uring *u) {
  struct uring_napi napi = {.busy_poll_us = NAPI_BUSY_POLL_US};
  return io_uring_register((unsigned)u->ring.ring_fd, URING_REGISTER_NAPI, &napi, 1) == 0;
}

/* The first thing that was asked for and could not be had. */
static const char *missing(const hy_uring_config *c, const hy_uring_obtained *o) {
  bool zerocopy = c->zerocopy != HY_URING_ZEROCOPY_NO;
  return zerocopy && !o->zerocopy ? "zero-copy sends want Linux 6.1 with SENDMSG_ZC"
         : !c->no_registered_files && !o->registered_files
             ? "registered files want Linux 6.13, and RLIMIT_NOFILE "
               "must cover every connection"
         : !c->no_registered_buffers && !o->registered_buffers
             ? "registered buffers want the arena locked in memory: "
               "raise RLIMIT_MEMLOCK or grant CAP_IPC_LOCK"
         : c->napi_busy_poll && !o->napi_busy_poll ? "NAPI busy polling wants Linux 6.9"
                                                   : NULL;
}

static int resources(struct uring *u, const hy_uring_config *c, hy_uring_obtained *o) {
  int rc = tables_init(u);
  if (rc < 0)
    return error_detail_set(rc, "not enough memory for %u connections", u->shard->config.connections);
  rc = lent_init(u, c->buffers);
  if (rc < 0)
    return uring_explain(rc);
  rc = uring_bell_open(&u->bell, &u->ring);
  if (rc < 0)
    return rc;
  u->files = !c->no_registered_files && u->has.files && files_register(u);
  u->fixed_buffers = !c->no_registered_buffers && arena_register(u);
  u->zerocopy_bytes = !u->has.zerocopy || c->zerocopy == HY_URING_ZEROCOPY_NO ? UINT32_MAX
                      : c->zerocopy == HY_URING_ZEROCOPY_ALWAYS               ? 0
                                                                              : c->zerocopy_bytes;
  *o = (hy_uring_obtained){
      .entries = c->entries,
      .buffers = c->buffers,
      .deferred_taskrun = !u->sqpoll,
      .sqpoll = u->sqpoll,
      .bundles = u->has.bundles,
      .zerocopy = u->zerocopy_bytes != UINT32_MAX,
      .zerocopy_reports = u->zerocopy_bytes != UINT32_MAX && u->has.zerocopy_report,
      .registered_files = u->files,
      .registered_buffers = u->fixed_buffers,
      .napi_busy_poll = c->napi_busy_poll && napi_register(u),
  };
  const char *lacks = c->strict ? missing(c, o) : NULL;
  return lacks ? error_detail_set(-EOPNOTSUPP, "%s", lacks) : 0;
}

void stream_free(struct uring *u) {
  if (u->ring.ring_fd >= 0)
    io_uring_queue_exit(&u->ring);
  uring_bell_close(&u->bell);
  lent_fini(u);
  tables_fini(u);
  free(u);
}

int hy_uring_attach(hy_shard *shard, const hy_uring_config *config, hy_uring_obtained *obtained) {
  error_detail_clear();
  hy_uring_config c;
  int rc = resolve(shard, config, &c);
  if (rc < 0)
    return rc;
  if (shard->transports[HY_BACKEND_KERNEL])
    return error_detail_set(-EBUSY, "the shard has kernel sockets already");
  struct uring *u = aligned_alloc(64, (sizeof *u + 63) & ~(size_t)63);
  if (!u)
    return -ENOMEM;
  *u = (struct uring){
      .transport = {.ops = &stream_transport},
      .shard = shard,
      .bell = {.fd = -1},
      .ring = {.ring_fd = -1},
      .frame_room = arena_frame_room(&shard->arena),
      .nsocks = STREAM_ALSO_MAX + shard->config.connections +
                (shard->config.sockets < OTHER_SOCKETS ? shard->config.sockets : OTHER_SOCKETS),
      .dgram_header = {.msg_namelen = sizeof(struct sockaddr_in6)},
  };
  hy_uring_obtained had = {0};
  rc = stream_probe(&u->has);
  if (rc == 0)
    rc = ring_open(u, &c);
  if (rc == 0)
    rc = resources(u, &c, &had);
  if (rc == 0)
    rc = shard_add_transport(shard, HY_BACKEND_KERNEL, &u->transport);
  if (rc < 0) {
    stream_free(u);
    return rc;
  }
  if (obtained)
    *obtained = had;
  return 0;
}
