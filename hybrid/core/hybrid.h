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
  HY_NOTICE_BOUND = 3,         /* a port has been bound: addr.port, protocol in arg */
  HY_NOTICE_UNBOUND = 4,
  HY_NOTICE_DEVICE_LOST = 5, /* queue arg of ifindex has failed for good and was taken out */
};
typedef struct hy_notice {
  uint32_t kind;
  uint32_t ifindex;
  hy_addr addr;
  uint32_t arg;
} hy_notice;
HY_API int hy_shard_set_notice_fd(hy_shard *shard, int fd);

/* ---- devices ------------------------------------------------------------ */

/*
 * Devices may come and go while the shard runs. One that fails for good (its interface is deleted) is
 * taken out by the shard itself: connections over it end with -ENETDOWN, listeners stay,
 * HY_NOTICE_DEVICE_LOST is sent and `devices_lost` counts. This takes one out on purpose, with the same end
 * for its connections. -ENODEV: the shard has no such queue.
 */
HY_API int hy_shard_remove_device(hy_shard *shard, uint32_t ifindex, uint32_t queue);

/* The memory device: a wire between two shards of one process (or one shard and itself). */
HY_API int hy_memory_attach(hy_shard *a, uint32_t ifindex_a, hy_shard *b, uint32_t ifindex_b);

/*
 * AF_XDP. Opens queue `queue` of interface `ifindex` for this shard; steering
 * frames to it is the control plane's business (map_fd). The call takes
 * xsk_fd over, also where it fails (a socket can be set up only once).
 * -EPERM: xsk_fd is -1 and CAP_NET_RAW is missing. -ENOLCK: the arena can't be
 * locked in memory: it counts against RLIMIT_MEMLOCK of the user, once for all queues
 * that share a registration (shared_umem), unless the process has CAP_IPC_LOCK. -EBUSY: the queue has an
 * AF_XDP socket, or xsk_fd was set up before. -ENODEV, -EINVAL: no such interface,
 * no such queue. -EOPNOTSUPP: strict, and what was requested can't be had.
 */
enum hy_xdp_mode { HY_XDP_AUTO = 0, HY_XDP_NATIVE = 1, HY_XDP_GENERIC = 2 };
enum hy_xdp_copy { HY_XDP_COPY_AUTO = 0, HY_XDP_ZEROCOPY = 1, HY_XDP_COPY = 2 };
/* For what costs nothing to ask for: taken where it can be had, not asked for, or -EOPNOTSUPP without it. */
enum hy_xdp_want { HY_XDP_TRY = 0, HY_XDP_WITHOUT = 1, HY_XDP_MUST = 2 };
typedef struct hy_afxdp_config {
  uint32_t struct_size;
  uint32_t ifindex;
  uint32_t queue;
  int32_t xsk_fd;       /* an AF_XDP socket opened by somebody with the privilege, or -1 */
  int32_t map_fd;       /* XSKMAP to enter the socket into, or -1: the caller will */
  uint32_t ring_size;   /* descriptors in each of the four rings; power of two; 0: 2048 */
  uint8_t copy;         /* requested: enum hy_xdp_copy */
  uint8_t busy_poll;    /* requested: 1: SO_PREFER_BUSY_POLL */
  uint8_t strict;       /* 1: what was requested must be obtained, or -EOPNOTSUPP */
  uint8_t multi_buffer; /* enum hy_xdp_want: packets of several frames, for an MTU beyond one (Linux 6.6) */
  uint8_t shared_umem;  /* enum hy_xdp_want: one registration of the arena for all queues of the shard */
  /*
   * enum hy_xdp_want: transport checksums are completed on the way out (Linux 6.8). TRY: where the device
   * does it, in zero-copy mode. MUST: in copy mode too, where the kernel sees to it as for packets of its own:
   * right for all but a veth peer that reads frames before they are complete (ethtool -K DEV tx off).
   */
  uint8_t tx_checksum;
  uint8_t reserved[2];
} hy_afxdp_config;
typedef struct hy_afxdp_obtained {
  uint8_t zerocopy; /* 1: zero-copy, 0: copy */
  uint8_t busy_poll;
  uint8_t need_wakeup;
  uint8_t hugepages;
  uint32_t ring_size;
  uint8_t multi_buffer;
  uint8_t shared_umem; /* 1: the arena was registered by an earlier queue, and is counted there */
  uint8_t tx_checksum;
  uint8_t reserved;
  uint32_t packet_bytes_max; /* longest packet, from the Ethernet header on */
} hy_afxdp_obtained;
HY_API int hy_afxdp_attach(hy_shard *shard, const hy_afxdp_config *config, hy_afxdp_obtained *obtained);

/*
 * Frames where XDP can't be had, moved by io_uring: a TAP device or a packet
 * socket. Both need Linux 5.19, and 6.1 to be at their best. Every failure has its
 * sentence in hy_error_detail(). The device gets its addresses from the row
 * `ifindex` of the host table, as every device does (hy_host_update).
 */
enum hy_request { HY_REQUEST_AUTO = 0, HY_REQUEST_NO = 1, HY_REQUEST_MUST = 2 /* or -EOPNOTSUPP */ };
enum { HY_IFNAME_BYTES = 16, HY_PACKET_ADDRS = 4, HY_PACKET_FLOWS = 16 };

/*
 * TAP: a cable to the host's kernel, whose end is the interface. It wants nothing but /dev/net/tun and
 * CAP_NET_ADMIN, or a queue that somebody else opened (tap_fd). The kernel's end has the kernel's MAC and
 * addresses; ours are the table's, in a row with answers_arp = 1. With multi_queue each call is one more
 * queue of the same name, and the kernel sends a flow to the queue that last sent for it. Bringing the
 * interface up is left to whoever gives it an address. -ENOENT no /dev/net/tun; -EPERM; -EBUSY the name
 * belongs to a TAP in use, or one of another kind; -EINVAL; -ENOLCK registered buffers must be had and can't
 * be locked.
 */
typedef struct hy_tap_config {
  uint32_t struct_size;
  uint32_t ifindex;           /* row of the host table; 0: the interface's own index */
  uint32_t queue;             /* which of several this is: for hy_shard_remove_device() */
  char name[HY_IFNAME_BYTES]; /* "": the kernel chooses */
  int32_t tap_fd;             /* a queue that TUNSETIFF was called for, taken over; or -1 */
  uint8_t multi_queue;        /* 1: the interface may have several */
  uint8_t offload;    /* enum hy_request: checksums and segmentation are left undone on the way to us */
  uint8_t registered; /* enum hy_request: the arena as a registered buffer to send from */
  uint8_t reserved;
} hy_tap_config;
typedef struct hy_tap_obtained {
  char name[HY_IFNAME_BYTES];
  uint32_t ifindex;   /* the interface's own */
  uint32_t mtu_bytes; /* its */
  uint8_t mac[6];     /* the kernel's end: not ours */
  uint8_t offload;
  uint8_t registered;
  uint8_t deferred; /* 1: the kernel works when asked (Linux 6.1) */
  uint8_t reserved[3];
} hy_tap_obtained;
HY_API int hy_tap_attach(hy_shard *shard, const hy_tap_config *config, hy_tap_obtained *obtained);

/*
 * A packet socket sees what the kernel sees, and the kernel answers what it sees. Two ways to keep it quiet:
 *
 *   HY_PACKET_OWN     We are another station on the wire, with a MAC address that the kernel doesn't have
 * (the interface turns promiscuous) or, with mac all zeroes, only with IP addresses that it doesn't have. The
 * kernel takes our frames for somebody else's. The row of the table has answers_arp = 1. CAP_NET_RAW is
 * enough: right for containers, on veth and bridges. Where the network lets through one MAC address only
 * (macvlan, most clouds), leave mac at zeroes; the host must not forward then, or it would pass our packets
 * on. HY_PACKET_SHARED  We serve `flows` of the interface's own MAC and addresses. A program at the
 * interface's tc ingress, which comes after packet sockets, drops exactly these flows before the kernel's
 *                     stack sees them, so that it resets nothing. It goes with the device: at once where the
 *                     kernel has tcx (Linux 6.6); else it is a clsact filter that lets everything pass when
 * the shard has not been polled for 10 s, so that a process that was killed takes nothing with it. The kernel
 * answers ARP and ND: answers_arp = 0, with the kernel's neighbours in the table. Wants CAP_BPF and
 * CAP_NET_ADMIN besides. Ports of outgoing connections (hy_config.port_lo, port_hi) are flows too, and must
 * be outside the kernel's ip_local_port_range.
 *
 * VLAN-tagged frames and fragments stay the kernel's in both. Packets that the sender's kernel merged or left
 * without a checksum (veth, virtual machines) are cut up and marked as checked.
 * -EPERM; -ENODEV no such interface; -EINVAL; -EOPNOTSUPP.
 */
enum hy_packet_mode { HY_PACKET_OWN = 0, HY_PACKET_SHARED = 1 };
typedef struct hy_packet_flow {
  uint8_t protocol; /* 6 or 17 */
  uint8_t reserved;
  uint16_t port_lo, port_hi; /* destination, inclusive */
} hy_packet_flow;
typedef struct hy_packet_config {
  uint32_t struct_size;
  uint32_t interface; /* index of the interface */
  uint32_t ifindex;   /* row of the host table; 0: the same number */
  int32_t packet_fd;  /* from hy_packet_open() with this configuration, taken over; or -1: opened here */
  uint8_t mode;       /* enum hy_packet_mode */
  uint8_t mac[6];     /* own: ours; all zeroes: the interface's */
  uint8_t naddrs;     /* destinations that are ours; 0: every one (own: with a MAC of our own only) */
  uint8_t nflows;     /* shared: at least one */
  uint8_t reserved[3];
  hy_addr addrs[HY_PACKET_ADDRS];
  hy_packet_flow flows[HY_PACKET_FLOWS];
} hy_packet_config;
typedef struct hy_packet_obtained {
  uint32_t mtu_bytes; /* the interface's */
  uint8_t mac[6];     /* what our frames are to be sent from */
  uint8_t offload;    /* 1: merged packets and partial checksums are understood */
  uint8_t quiet;      /* shared: 1 tcx, 2 clsact */
  uint8_t deferred;   /* 1: the kernel works when asked (Linux 6.1) */
  uint8_t reserved[3];
} hy_packet_obtained;
HY_API int hy_packet_attach(hy_shard *shard, const hy_packet_config *config, hy_packet_obtained *obtained);
/*
 * Shared mode: other flows from now on, as ports are bound and given back. -ENODEV: the shard has no shared
 * packet device with this row.
 */
HY_API int hy_packet_set_flows(hy_shard *shard, uint32_t ifindex, const hy_packet_flow *flows, unsigned n);
/*
 * The privileged half of an attach in own mode, for a process without privileges: a socket, bound and
 * filtered, to be sent to it. Returns the descriptor.
 */
HY_API int hy_packet_open(const hy_packet_config *config);

/*
 * What io_uring offers here, found out by opening rings and closing them again. The caller sets struct_size.
 * -EPERM, -EACCES: io_uring is disabled, by kernel.io_uring_disabled or by a seccomp filter.
 * -ENOSYS: the kernel has no io_uring, or one older than Linux 5.6.
 */
typedef struct hy_uring_features {
  uint32_t struct_size;
  uint32_t opcodes; /* how many operations the kernel knows */
  uint8_t single_issuer;
  uint8_t defer_taskrun;
  uint8_t sqpoll;
  uint8_t multishot;    /* accept and receive */
  uint8_t buffer_rings; /* provided buffers that need no system call */
  uint8_t registered_files;
  uint8_t zerocopy_send;
  uint8_t napi_busy_poll;
} hy_uring_features;
HY_API int hy_uring_probe(hy_uring_features *out);

/* ---- kernel sockets ------------------------------------------------------ */

/*
 * Kernel sockets, driven by io_uring, beside the bypass or without any: HY_BACKEND_KERNEL. The same queues,
 * tokens and buffers; no privilege and no device. Linux 6.1.
 *
 * A push completes when the kernel has taken all of its bytes over, and one that was sent without a copy when
 * the kernel reads them no more: the peer has acknowledged them. sndbuf_bytes bounds what the kernel has not
 * taken or still reads; what it has copied is bounded by its own net.ipv4.tcp_wmem.
 *
 * From the first wait or poll on the shard stays with the thread that made it.
 */
enum hy_uring_zerocopy {
  HY_URING_ZEROCOPY_AUTO = 0, /* long sends, on connections where the kernel does not copy after all */
  HY_URING_ZEROCOPY_NO = 1,
  HY_URING_ZEROCOPY_ALWAYS = 2, /* every send of a connection: to try it */
};
typedef struct hy_uring_config {
  uint32_t struct_size;
  uint32_t entries; /* submissions per call; a power of two; 0: 512 */
  uint32_t buffers; /* frames lent to the kernel to receive into; a power of two; 0: 1024, or what fits */
  uint32_t zerocopy_bytes;       /* AUTO: sends from this size on; 0: 32 KiB */
  uint8_t zerocopy;              /* enum hy_uring_zerocopy */
  uint8_t sqpoll;                /* requested: 1: a thread of the kernel's submits, which wants a core */
  uint8_t napi_busy_poll;        /* requested: 1: waiting polls the network devices (Linux 6.9) */
  uint8_t no_registered_files;   /* 1: connections stay ordinary descriptors */
  uint8_t no_registered_buffers; /* 1: the arena is not registered */
  uint8_t strict; /* 1: what was requested, or not switched off, must be obtained, or -EOPNOTSUPP */
  uint8_t reserved[2];
} hy_uring_config;
typedef struct hy_uring_obtained {
  uint32_t entries;
  uint32_t buffers;
  uint8_t deferred_taskrun; /* SINGLE_ISSUER and DEFER_TASKRUN: the kernel works only inside our calls */
  uint8_t sqpoll;
  uint8_t bundles; /* one receive fills several frames (Linux 6.10) */
  uint8_t zerocopy;
  uint8_t zerocopy_reports;   /* the kernel says whether it copied after all (Linux 6.2) */
  uint8_t registered_files;   /* connections need no descriptor of the process (Linux 6.13) */
  uint8_t registered_buffers; /* zero-copy sends need not pin memory each time */
  uint8_t napi_busy_poll;
} hy_uring_obtained;
/*
 * config and obtained may be NULL. -EPERM, -ENOSYS: io_uring is switched off (sysctl, seccomp); -EOPNOTSUPP:
 * the kernel is too old, or strict and something can't be had; -EBUSY: the shard has kernel sockets already;
 * -EINVAL, -ENOMEM. hy_error_detail() says more.
 */
HY_API int hy_uring_attach(hy_shard *shard, const hy_uring_config *config, hy_uring_obtained *obtained);

/*
 * DPDK, in a shared object of its own (libhybrid-dpdk.so, beside libhybrid) that the first call loads: a
 * host without DPDK runs everything else. Frames and mbufs are one memory: the shard must be opened with
 * frame_prefix_bytes = HY_DPDK_PREFIX, where the driver keeps its descriptor of each frame.
 *
 * A port is shared and a queue is owned: each queue of a port is attached once, by one shard, and shards
 * may be in different threads. The first attach of a port says how many queues it has; frames
 * move from the moment when the last of them is attached. EAL, DPDK's runtime, starts once per process,
 * with the arguments of the first attach.
 *
 * Whatever DPDK does when something goes wrong in it (rte_exit, rte_panic) ends here as an error:
 * afterwards every port of the process is dead and only a new process can use DPDK again.
 *
 * -ENOENT: the plugin or DPDK itself is not installed. -ELIBBAD: it was built for another libhybrid or
 * another DPDK. -EIO: EAL did not start, or has given up. -ENODEV: no such port, or its driver refused.
 * -EBUSY: the queue is attached. -EINVAL: a field is out of range. -ENOMEM: the arena is too small for the
 * port's rings. -EOPNOTSUPP: strict, and what was requested can't be had. hy_error_detail() says more.
 */
enum { HY_DPDK_PREFIX = 192, HY_DPDK_NAME_BYTES = 64 };
enum hy_dpdk_offload { HY_DPDK_OFFLOAD_AUTO = 0, HY_DPDK_OFFLOAD_NO = 1, HY_DPDK_OFFLOAD_MUST = 2 };
struct hy_steer_rule; /* bpf/steer.h: `to afxdp` means: to this port's shards */
typedef struct hy_dpdk_config {
  uint32_t struct_size;
  uint32_t ifindex; /* row of the host table that describes the link */
  /*
   * "net_memif0,role=server,id=0,socket=/run/x", "net_af_xdp0,iface=eth1", "0000:03:00.0", or the name of a
   * port that there is. "ring:NAME" (twice) joins two shards of this process by a pair of rings.
   */
  const char *port;
  const char *const *eal; /* arguments of EAL; NULL: no hugepages, no files, and no PCI unless port names one */
  uint32_t neal;
  uint16_t queue;
  uint16_t queues;  /* of the port; 0: 1 */
  uint16_t rx_desc; /* of each queue; 0: 512, or what the driver and the arena allow */
  uint16_t tx_desc;
  uint16_t mtu_bytes; /* 0: as it is */
  uint8_t checksum;   /* requested: enum hy_dpdk_offload, both directions */
  uint8_t interrupt;  /* requested: enum hy_dpdk_offload: sleep on the port's interrupt */
  uint8_t flow;       /* 1: the rules below are put into the NIC (rte_flow): only what they name arrives */
  uint8_t strict;     /* 1: what was requested must be obtained, or -EOPNOTSUPP */
  uint8_t reserved[2];
  /* The port has the NIC to itself: what no rule names goes to the kernel through this net_tap port. NULL: no. */
  const char *exception;
  const struct hy_steer_rule *rules; /* of the port; highest priority first is not assumed */
  uint32_t nrules;
  uint32_t reserved2;
} hy_dpdk_config;
typedef struct hy_dpdk_obtained {
  char name[HY_DPDK_NAME_BYTES];   /* of the port */
  char driver[HY_DPDK_NAME_BYTES]; /* "net_memif" */
  char version[HY_DPDK_NAME_BYTES];
  uint8_t mac[6];
  uint8_t answers_arp; /* 1: no kernel behind the port: its row of the host table should say so */
  uint8_t running;     /* 1: all queues are attached */
  uint32_t kernel_ifindex; /* of the netdev behind the port, or of the exception path; 0: none */
  uint16_t mtu_bytes;
  uint16_t queues;
  uint16_t rx_desc;
  uint16_t tx_desc;
  uint8_t rx_checksum;
  uint8_t tx_checksum;
  uint8_t tso; /* the port could; whether it is used is the stack's business */
  uint8_t rss;
  uint8_t interrupt;
  uint8_t hugepages; /* of EAL's own memory */
  uint16_t flows;    /* rules in the NIC */
} hy_dpdk_obtained;
HY_API int hy_dpdk_attach(hy_shard *shard, const hy_dpdk_config *config, hy_dpdk_obtained *obtained);
/*
 * Ends a port, from any thread: its shards lose the device with -ENETDOWN at their next look, and once the
 * last of them has let go it can be attached again. -ENOENT: no such port is attached.
 */
HY_API int hy_dpdk_stop(const char *name);

/* ---- devices by hand ---------------------------------------------------- */

/*
 * The frame-level harness: a device whose wire is the caller. Make a shard with
 * the virtual clock, attach, hand it frames and a time, collect frames:
 *
 *     hy_clock_set(shard, t); hy_wire_inject(shard, port, frame, len);
 *     hy_poll(shard);         n = hy_wire_collect(shard, port, frame, sizeof frame);
 *
 * No privilege, no device, no clock: what a fuzzer, a simulator or a test wants.
 */
HY_API int hy_wire_attach(hy_shard *shard, uint32_t ifindex, uint32_t *port);
/* Copies one Ethernet frame in. -ENOBUFS: 1024 wait already. -EMSGSIZE: it does not fit a frame. */
HY_API int hy_wire_inject(hy_shard *shard, uint32_t port, const void *frame, size_t len_bytes);
/* Copies the next frame out; its length, 0 for none, -EMSGSIZE if capacity is too small (frame kept). */
HY_API int hy_wire_collect(hy_shard *shard, uint32_t port, void *frame, size_t capacity_bytes);
/* When the stack next wants to be polled though nothing arrives; UINT64_MAX: never. */
HY_API uint64_t hy_next_deadline(hy_shard *shard);

#ifndef HY_CDEF
#ifdef __cplusplus
}
#endif
#endif
#endif
