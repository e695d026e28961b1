/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hybrid.h - the public interface of libhybrid.
 *
 * A program opens a *shard* (one thread's world: buffers, devices, network
 * stack, timers), opens *queue descriptors* (qd, the sockets of this library) on
 * it, and starts *operations*. Every operation returns at once with a *queue
 * token* (qt); hy_wait_any() hands back the operations that have completed, many
 * per call. Nothing is shared between shards and nothing here takes a lock, so
 * a shard is used by one thread at a time.
 *
 *          hy_pop(qd) -> qt                   hy_push(qd, sga) -> qt
 *              |                                   |
 *              v                                   v
 *     +----------------- hy_wait_any(shard, events) ----------------+
 *     | flush what was pushed | poll devices | timers | completions |
 *     +-------------------------------------------------------------+
 *
 * Memory. Payload lives in frames of the shard's arena, which is the memory that
 * the devices read and write (the UMEM of an AF_XDP socket, for one). A scatter-
 * gather array (hy_sga) names up to HY_SGA_SEGS pieces of such frames and holds
 * one reference on each:
 *   - hy_pop completes with an sga that is the application's until hy_sga_free;
 *   - hy_push *borrows*: the bytes must not change until the push has completed,
 *     which is when the peer has acknowledged them (TCP) or the device has sent
 *     them (UDP). The application's own reference may be freed at any time.
 *
 * Errors. Functions return 0 or a count, or a negative errno; nothing prints.
 * hy_strerror() gives the sentence. Everything is bounded by hy_config, and a
 * limit that is hit returns -ENOBUFS (or -EAGAIN where waiting helps) and counts.
 *
 * Units are in the names: _ns nanoseconds, _bytes bytes. Ports and addresses in
 * hy_addr are host byte order and network byte order respectively.
 */
#ifndef HYBRID_H
#define HYBRID_H

#ifndef HY_CDEF
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define HY_API __attribute__((visibility("default")))
#else
#define HY_API
#endif

enum {
  HY_ABI = 1,      /* of the C interface; apart from the project's version */
  HY_SGA_SEGS = 8, /* pieces per scatter-gather array */
  HY_ADDR_STRLEN = 56,
};

typedef struct hy_shard hy_shard;
typedef int32_t hy_qd;  /* queue descriptor; >= 0 */
typedef uint64_t hy_qt; /* queue token; index and generation; 0 is never one */

/* ---- addresses ---------------------------------------------------------- */

/* An IPv4 address is stored as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), with family 4. */
typedef struct hy_addr {
  uint8_t ip[16];
  uint16_t port;  /* host byte order */
  uint8_t family; /* 4, 6, or 0: unspecified */
  uint8_t reserved;
} hy_addr;

/* "10.0.0.1", "10.0.0.1:80", "2001:db8::1", "[2001:db8::1]:80", ":80", "*:80". -EINVAL if none of them. */
HY_API int hy_addr_parse(const char *text, hy_addr *out);
/* Writes at most HY_ADDR_STRLEN bytes with the terminator; returns text. */
HY_API const char *hy_addr_format(const hy_addr *addr, char *text);

/* ---- a shard ------------------------------------------------------------ */

enum hy_clock {
  HY_CLOCK_MONOTONIC = 0, /* the machine's */
  HY_CLOCK_VIRTUAL = 1,   /* hy_clock_set(): for tests and simulation */
};

enum hy_hugepages { HY_HUGEPAGES_NO = 0, HY_HUGEPAGES_TRY = 1, HY_HUGEPAGES_MUST = 2 };

/* Zero in a field means "the default"; hy_config_default() fills them all in. */
typedef struct hy_config {
  uint32_t struct_size;    /* sizeof(hy_config), so that the structure can grow */
  uint32_t frames;         /* frames in the arena (default 16384) */
  uint32_t frame_size;     /* bytes; 2048 (default) or 4096 */
  uint32_t sockets;        /* queue descriptors (default 65536) */
  uint32_t connections;    /* TCP connections, TIME_WAIT included (default 16384) */
  uint32_t tokens;         /* operations outstanding or unread (default 65536) */
  uint32_t rcvbuf_bytes;   /* receive window limit per connection (default 1 MiB) */
  uint32_t sndbuf_bytes;   /* unacknowledged + unsent bytes per connection (default 1 MiB) */
  uint32_t app_frames_max; /* frames the application may hold at once (0: half of them) */
  /*
   * Bytes at the start of each frame that a driver's own descriptor takes up: 0 (default), or what
   * a backend asks for (hy_dpdk_attach). A multiple of 64, at most 256.
   */
  uint32_t frame_prefix_bytes;
  uint8_t clock;     /* enum hy_clock */
  uint8_t hugepages; /* enum hy_hugepages (default TRY) */
  uint8_t seeded;    /* 1: use seed below instead of the kernel's entropy (tests) */
  uint8_t reserved;
  uint16_t port_lo; /* ephemeral ports of outgoing connections (default 32768) */
  uint16_t port_hi; /* inclusive (default 60999) */
  uint64_t spin_ns; /* how long a wait polls before it sleeps (default 50 us; UINT64_MAX: never sleeps) */
  uint8_t seed[32];
} hy_config;

HY_API void hy_config_default(hy_config *config);

/*
 * Allocates all memory the shard will ever use. config may be NULL.
 * -EINVAL a field is out of range; -ENOMEM; -EOPNOTSUPP hugepages must be had and can't.
 */
HY_API int hy_shard_open(const hy_config *config, hy_shard **out);

/*
 * Opens a shard with the devices that `hybrid run` (or `hybrid serve`) prepared
 * and handed to this process over the socket named in HYBRID_CONTROL.
 * -ENOENT: not started by hybrid.
 */
HY_API int hy_shard_open_served(const hy_config *config, hy_shard **out);
/*
 * Tells whoever started this process that it is listening: its queues are put
 * into service and it is safe to announce the address. Waits for the answer.
 * 0 also for a shard that isn't served.
 */
HY_API int hy_shard_ready(hy_shard *shard);

/* Aborts every connection, returns every frame, closes every device. NULL is allowed. */
HY_API void hy_shard_close(hy_shard *shard);

/* The shard's time: nanoseconds, monotonic, as of the last poll. */
HY_API uint64_t hy_now(const hy_shard *shard);
/* Virtual clock only: sets the time the next poll will see. -EINVAL if it goes back. */
HY_API int hy_clock_set(hy_shard *shard, uint64_t now_ns);

/* ---- scatter-gather arrays ---------------------------------------------- */

typedef struct hy_seg {
  void *addr;
  uint32_t len_bytes;
  uint32_t frame; /* the frame this piece lies in; for the library */
} hy_seg;

typedef struct hy_sga {
  uint32_t nsegs;
  uint32_t reserved;
  hy_seg segs[HY_SGA_SEGS];
} hy_sga;

/*
 * Space for up to len_bytes of payload, laid out so that each piece can leave as
 * one segment without a copy. -EMSGSIZE: more than HY_SGA_SEGS frames hold (ask
 * hy_sga_max); -ENOBUFS: out of frames, or the application holds app_frames_max.
 */
HY_API int hy_sga_alloc(hy_shard *shard, size_t len_bytes, hy_sga *out);
/* Most bytes that one hy_sga_alloc can give. */
HY_API size_t hy_sga_max(const hy_shard *shard);
/* Drops the application's reference on every piece and empties the array. */
HY_API void hy_sga_free(hy_shard *shard, hy_sga *sga);
/* A second reference on the same bytes (to push them twice, say). */
HY_API int hy_sga_ref(hy_shard *shard, const hy_sga *sga, hy_sga *out);
/* Total payload. */
HY_API size_t hy_sga_bytes(const hy_sga *sga);

/* ---- placement ---------------------------------------------------------- */

/* What carries a queue's bytes. */
enum hy_backend {
  HY_BACKEND_AUTO = 0,   /* as the placement table says */
  HY_BACKEND_BYPASS = 1, /* the stack of this library, over whatever device leads there */
  HY_BACKEND_KERNEL = 2, /* the kernel's own sockets, through io_uring (hy_uring_attach) */
};

/*
 * A row of the placement table: local ports, and what carries them. An application binds port 6379
 * and does not say on what; the table, compiled from the policy, says it.
 */
typedef struct hy_placement {
  uint8_t protocol; /* 6 TCP, 17 UDP, 0 both */
  uint8_t to;       /* enum hy_backend, not AUTO */
  /*
   * HY_BACKEND_KERNEL: a listener here listens on kernel sockets as well, so that what reaches
   * the kernel because the bypass is gone (or does not cover it) is served all the same. 0: it doesn't.
   */
  uint8_t fallback;
  uint8_t reserved;
  uint16_t port_lo, port_hi; /* both included */
} hy_placement;

enum { HY_PLACEMENTS = 256 };

/*
 * Replaces the table; n may be 0. The first row that covers the protocol and the port decides. Without
 * one: the bypass where the shard has a device, else the kernel where the shard has it. -E2BIG: more than
 * HY_PLACEMENTS; -EINVAL: a row makes no sense. Queues that are bound or connected stay where they are.
 *
 * Outgoing connections go by the bypass if a route leads there over one of the shard's links and the table
 * (where it has rows) steers the replies, else by the kernel.
 */
HY_API int hy_place(hy_shard *shard, const hy_placement *rows, unsigned n);

/* ---- queues ------------------------------------------------------------- */

enum hy_type { HY_STREAM = 1, HY_DGRAM = 2 };

/* -ENOBUFS: config.sockets are open already. */
HY_API int hy_socket(hy_shard *shard, int type, hy_qd *out);
/*
 * Port 0 takes an ephemeral one. An unspecified address (family 0, or all
 * zeroes) takes every local address of that family, or of both for family 0.
 * -EADDRINUSE, -EADDRNOTAVAIL (no such local address), -EINVAL (bound already).
 */
HY_API int hy_bind(hy_shard *shard, hy_qd qd, const hy_addr *local);
/* backlog bounds half-open plus unaccepted connections; 1..65535. */
HY_API int hy_listen(hy_shard *shard, hy_qd qd, int backlog);

/* The address bound, or the peer's. -ENOTCONN where there is none. */
HY_API int hy_local(hy_shard *shard, hy_qd qd, hy_addr *out);
HY_API int hy_peer(hy_shard *shard, hy_qd qd, hy_addr *out);

/*
 * Insists on what carries this queue, whatever the table says, and takes it as it is: no fallback. Before
 * hy_bind and hy_connect. -ENODEV: the shard has no such transport. -EISCONN: it is bound or connected.
 */
HY_API int hy_set_backend(hy_shard *shard, hy_qd qd, int backend);
/* What carries it: enum hy_backend; HY_BACKEND_AUTO: not decided yet. -EBADF. */
HY_API int hy_backend_of(hy_shard *shard, hy_qd qd);

/* A pointer that every event of this qd carries; an accepted qd starts with NULL. */
HY_API int hy_set_user(hy_shard *shard, hy_qd qd, void *user);

/* ---- operations --------------------------------------------------------- */

/*
 * Each starts an operation and stores its token. All of them fail at once with
 *   -EBADF     no such qd            -ENOBUFS  config.tokens are in use
 *   -EINVAL    wrong kind of qd for it
 * and otherwise complete through hy_wait or hy_wait_any, where status is 0 or
 *   -ECONNREFUSED -ECONNRESET -ETIMEDOUT -EHOSTUNREACH -ENETUNREACH -ECANCELED ...
 */

/* Completes with a new connection: event.accepted and event.addr (the peer). */
HY_API int hy_accept(hy_shard *shard, hy_qd qd, hy_qt *qt);
/* Completes when the connection is established. Binds to an ephemeral port if unbound. */
HY_API int hy_connect(hy_shard *shard, hy_qd qd, const hy_addr *peer, hy_qt *qt);
/*
 * Sends the sga's bytes. Completes when the peer has acknowledged all of them.
 * With qt NULL there is no completion: on success the application's references
 * have passed to the library, and an error shows at the next pop. Where the call
 * fails the sga stays the application's, to be pushed again or freed.
 * -EAGAIN: config.sndbuf_bytes are queued, or less when frames run short (see hy_drain); -EPIPE: shut down or
 * reset; -ENOTCONN.
 */
HY_API int hy_push(hy_shard *shard, hy_qd qd, const hy_sga *sga, hy_qt *qt);
/* Datagrams: as hy_push, to a peer. -EMSGSIZE: larger than the path's MTU allows. */
HY_API int hy_pushto(hy_shard *shard, hy_qd qd, const hy_sga *sga, const hy_addr *peer, hy_qt *qt);
/*
 * Completes when there is something to read: event.sga (TCP: what has arrived,
 * one piece at least; UDP: one datagram, from event.addr). End of stream: status
 * 0 and an sga of 0 pieces.
 */
HY_API int hy_pop(hy_shard *shard, hy_qd qd, hy_qt *qt);
/* Completes when at most half of what may be queued is. */
HY_API int hy_drain(hy_shard *shard, hy_qd qd, hy_qt *qt);
/* Ends one operation with -ECANCELED. -ENOENT: the token is stale or already complete. */
HY_API int hy_cancel(hy_shard *shard, hy_qt qt);

/* No more pushes: what is queued is sent, then FIN. Popping goes on. */
HY_API int hy_shutdown(hy_shard *shard, hy_qd qd);
/*
 * Gives the qd back. Its outstanding operations complete with -ECANCELED. What
 * was pushed is still delivered and the connection closed in order, unless data
 * had arrived that was never popped: then the peer sees a reset, so that it
 * knows of the loss (RFC 2525 section 2.17).
 */
HY_API int hy_close(hy_shard *shard, hy_qd qd);
/* Closes by reset: nothing more is delivered. */
HY_API int hy_abort(hy_shard *shard, hy_qd qd);

enum hy_op {
  HY_OP_ACCEPT = 1,
  HY_OP_CONNECT = 2,
  HY_OP_PUSH = 3,
  HY_OP_POP = 4,
  HY_OP_DRAIN = 5,
};

typedef struct hy_event {
  hy_qt qt;
  void *user; /* hy_set_user */
  hy_qd qd;
  int32_t op;     /* enum hy_op */
  int32_t status; /* 0 or a negative errno */
  hy_qd accepted; /* HY_OP_ACCEPT: the new qd; else -1 */
  hy_addr addr;   /* HY_OP_ACCEPT: the peer; HY_OP_POP of a datagram: its sender */
  hy_sga sga;     /* HY_OP_POP: the application's until hy_sga_free */
} hy_event;

/*
 * Polls until something has completed or timeout_ns have passed (negative: for
 * ever; 0: one pass), then fills up to max events and returns how many: 0 for a
 * time-out. Completions are handed out in the order in which they happened, each
 * once. -EINTR: a signal arrived while asleep.
 */
HY_API int hy_wait_any(hy_shard *shard, hy_event *events, int max, int64_t timeout_ns);
/* The same for one token; other completions stay for later. Returns 1, 0 on time-out, -ENOENT stale. */
HY_API int hy_wait(hy_shard *shard, hy_qt qt, hy_event *event, int64_t timeout_ns);
/* One pass over devices, transports and timers, never sleeping. Returns what it found: frames and
 * completions. */
HY_API int hy_poll(hy_shard *shard);

HY_API const char *hy_strerror(int error);
/*
 * What more there is to say of the last attach or open that failed in this thread: one sentence
 * with the remedy, or "". Valid until the next call that fails.
 */
HY_API const char *hy_error_detail(void);

/* ---- statistics --------------------------------------------------------- */

/* Counters only grow. Names come from hy_stat_name(i), 0 <= i < hy_stat_count(). */
HY_API unsigned hy_stat_count(void);
HY_API const char *hy_stat_name(unsigned index);
HY_API const char *hy_stat_help(unsigned index);
HY_API uint64_t hy_stat(const hy_shard *shard, unsigned index);

/* ---- the host's addresses, routes and neighbours ------------------------- */

/*
 * What the stack must know of the host, as a table in shared memory: whoever
 * follows the kernel writes it, shards read it without a lock. An update
 * replaces the whole table at once. One writer.
 */
typedef struct hy_host hy_host;

enum { HY_HOST_LINKS = 16, HY_HOST_ADDRS = 128, HY_HOST_ROUTES = 256, HY_HOST_NEIGHS = 1024 };

typedef struct hy_host_link {
  uint32_t ifindex;
  uint32_t mtu_bytes; /* of IP packets */
  uint8_t mac[6];
  uint8_t answers_arp; /* 1: no kernel behind this device, the stack does ARP and ND itself */
  uint8_t reserved;
} hy_host_link;

typedef struct hy_host_addr {
  hy_addr addr; /* port unused */
  uint32_t ifindex;
  uint32_t prefix_len; /* of the family */
} hy_host_addr;

typedef struct hy_host_route {
  hy_addr dst;
  hy_addr gateway; /* family 0: on link */
  hy_addr source;  /* preferred source; family 0: any address of the link */
  uint32_t prefix_len;
  uint32_t ifindex;
  uint32_t metric;    /* lower wins among equal prefixes */
  uint32_t mtu_bytes; /* 0: the link's */
} hy_host_route;

typedef struct hy_host_neigh {
  hy_addr addr;
  uint32_t ifindex;
  uint8_t mac[6];
  uint16_t reserved;
} hy_host_neigh;

/* Writer's side. Memory is a sealed-size memfd; hy_host_fd() is what a reader maps. */
HY_API int hy_host_create(hy_host **out);
HY_API int hy_host_fd(const hy_host *host);
HY_API void hy_host_close(hy_host *host);
/* Replaces everything. -E2BIG: more rows than the table has; nothing is changed then. */
HY_API int hy_host_update(hy_host *host, const hy_host_link *links, unsigned nlinks,
                          const hy_host_addr *addrs, unsigned naddrs, const hy_host_route *routes,
                          unsigned nroutes, const hy_host_neigh *neighs, unsigned nneighs);

/* Reader's side: the shard follows this table. The shard keeps its own mapping. */
HY_API int hy_shard_set_host(hy_shard *shard, const hy_host *host);

/*
 * Where a shard reports what only the control plane can mend: one datagram
 * (struct hy_notice) per notice, sent without waiting. -1: nowhere.
 */
enum hy_notice_kind {
  HY_NOTICE_NEIGH_MISSING = 1, /* addr on ifindex has no neighbour entry */
  HY_NOTICE_READY = 2,         /* hy_shard_ready */
  HY_NOTICE_BOUND = 3,         /* a port has been bound: addr.port, protocol in arg, see below */
  HY_NOTICE_UNBOUND = 4,
  HY_NOTICE_DEVICE_LOST = 5, /* queue arg of ifindex has failed for good and was taken out */
};
/* In arg of BOUND and UNBOUND: a socket of the program's own in the kernel holds the port (too). */
enum { HY_NOTICE_IN_KERNEL = 0x100 };
typedef struct hy_notice {
  uint32_t kind;
  uint32_t ifindex;
  hy_addr addr;
  uint32_t arg;
} hy_notice;
HY_API int hy_shard_set_notice_fd(hy_shard *shard, int fd);

/* What a shard is given to move its packets with. */
#include "hybrid_devices.h"

#ifndef HY_CDEF
#ifdef __cplusplus
}
#endif
#endif
#endif
