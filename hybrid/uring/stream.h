/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel sockets as a transport: TCP and UDP of the kernel, driven through one
 * io_uring per shard. The fallback that works anywhere: no device, no privilege.
 *
 *   stream_ops.c     what the application asks for (core/transport.h)
 *   stream_loop.c    one pass: the run list, one system call, completions
 *   stream_recv.c    frames lent to the kernel, receive queues
 *   stream_send.c    pushed pieces, gathered, copied or not
 *   stream_dgram.c   datagrams
 *   stream_listen.c  listeners, also as the fallback of somebody else's
 *   stream_close.c   from hy_close to the last completion
 *   stream_table.c   sockets and their lists
 *   stream_socket.c  addresses, and the calls that only set a socket up
 *   stream_probe.c   what this kernel has;  stream_attach.c  all of it at the start
 *
 * Nothing is submitted where it is asked for. A socket that wants something of the kernel goes into the
 * run list, and the next pass turns what its flags say into submissions, enters the
 * kernel once for all sockets, and takes the completions:
 *
 *    push, pop, close ...       pass: run list -> SQEs -> io_uring_enter -> CQEs
 *          |                            ^                                   |
 *          +------- sock_wants() -------+-----------------------------------+
 *
 * Receiving. `buffers` frames of the arena are lent to the kernel in a buffer ring. A
 * multishot receive per connection takes one whenever data is there; so data is in an
 * arena frame when we hear of it, and is handed to the application in place. A reader
 * that falls behind has its receive cancelled until it has caught up: the rest
 * waits in the kernel and closes the peer's window.
 *
 *    buffer ring slot == buffer id:   | frame | frame | taken | frame |   slot_frame[]
 *
 * Sending. One request per connection at a time (the kernel does not keep several in
 * order), gathering what was pushed meanwhile:
 *
 *      tx_head           tx_next (tx_taken bytes of it)        tx_tail
 *         | acknowledgement  |  in the request, or not given      |
 *         | outstanding      |  to the kernel yet                 |
 *
 * Lifetime. A socket is free when nobody holds a qd of it and `inflight`, the requests whose last
 * completion is still to come, is 0. So no completion ever meets a stranger in its slot.
 */
#ifndef HYBRID_URING_STREAM_H
#define HYBRID_URING_STREAM_H

#include <netinet/in.h>

#include "core/shard.h"
#include "uring/kernel.h"
#include "uring/ring.h"

#define SOCK_NONE UINT32_MAX
#define PIECE_NONE UINT32_MAX

enum {
  STREAM_ALSO_MAX = 256,    /* listeners on behalf of other transports' queues */
  STREAM_DGRAMS_MAX = 1024, /* datagrams on their way to the kernel */
  STREAM_ZEROCOPIES = 1024, /* zero-copy sends whose buffers the kernel still reads */
  STREAM_GATHERS = 128,     /* sends of more than one piece per pass */
  STREAM_GATHER_PIECES = 64,
  STREAM_SQES_EACH = 6,          /* most that one socket submits in a pass */
  STREAM_MERGE_BYTES = 512,      /* smaller arrivals are merged into the frame before */
  STREAM_RCV_INITIAL = 64 << 10, /* bytes of frames that may wait for a reader that has read nothing yet */
  STREAM_RCV_SHARE = 8,          /* one in so many of the frames left */
  STREAM_YIELDS = 8,             /* passes that leave everything to an application with completions to read */
  STREAM_DGRAM_FRAMES = 256,     /* datagrams that wait to be read, per socket */
};

#define STREAM_LINGER_NS (60 * NS_PER_S) /* what is queued at hy_close has so long to leave */
#define STREAM_ACCEPT_PAUSE_NS                                                                               \
  (10 * NS_PER_MS) /* after the process ran out of descriptors, or we of sockets */

enum sock_kind { SOCK_FREE = 0, SOCK_BOUND, SOCK_LISTENER, SOCK_CONN, SOCK_DATAGRAMS };

enum sock_list { LIST_NONE = 0, LIST_UNACCEPTED, LIST_STARVED, LIST_CLOSING, LIST_STALLED };

enum sock_flags {
  SOCK_WANTS = 1 << 0,        /* in the run list */
  SOCK_CONNECT = 1 << 1,      /* a connect is to be submitted */
  SOCK_CONNECTING = 1 << 2,   /* and has not completed */
  SOCK_OPEN = 1 << 3,         /* established: data may move */
  SOCK_REGISTER = 1 << 4,     /* into the file table, to be submitted */
  SOCK_FIXED = 1 << 5,        /* requests name it by its slot there */
  SOCK_FD_CLOSE = 1 << 6,     /* the descriptor has served */
  SOCK_RECV = 1 << 7,         /* a multishot receive (accept, of a listener) is out */
  SOCK_RECV_STOP = 1 << 8,    /* and is being cancelled */
  SOCK_RX_END = 1 << 9,       /* end of stream, or error: nothing more is received */
  SOCK_EOF = 1 << 10,         /* it was the end of the stream */
  SOCK_POP_READY = 1 << 11,   /* a pop has completed and not been handed out */
  SOCK_SENDING = 1 << 12,     /* a send is out */
  SOCK_SHUT = 1 << 13,        /* no more pushes */
  SOCK_SHUT_SENT = 1 << 14,   /* the kernel has been told */
  SOCK_NO_ZEROCOPY = 1 << 15, /* tried, and the kernel had to copy on this path */
  SOCK_CLOSING = 1 << 16,     /* nobody holds a qd */
  SOCK_HARD = 1 << 17,        /* and what is queued is of no interest: reset */
  SOCK_RESET_SENT = 1 << 18,
  SOCK_CLOSE_SENT = 1 << 19,
  SOCK_ASK = 1 << 20,   /* whether the peer has ended or reset is to be found out */
  SOCK_ASKED = 1 << 21, /* and the kernel has been asked */
};

struct sock_ends {
  uint32_t head, tail;
};

struct sock {
  uint32_t queue; /* QUEUE_NONE: nobody's (yet, or any more) */
  uint32_t flags; /* enum sock_flags */
  int32_t fd;     /* -1: registered, and known by its slot alone */
  uint32_t inflight;
  uint8_t kind;   /* enum sock_kind */
  uint8_t list;   /* enum sock_list */
  uint8_t family; /* AF_INET, AF_INET6 */
  uint16_t backlog;
  uint32_t run_next;
  /* receiving: frames through frame.next; of a listener: sockets not accepted yet */
  struct sock_ends rx;
  uint32_t rx_frames; /* or sockets */
  uint32_t rx_limit;  /* frames that may wait for the reader: grows as it reads */
  uint32_t ready;     /* datagrams: pops completed and not handed out */
  /* sending */
  uint32_t tx_head, tx_next, tx_tail;
  uint32_t tx_taken; /* bytes of tx_next that the kernel has */
  uint32_t tx_bytes; /* pushed and not released */
  uint32_t gather;   /* in use by the send that is out (SQPOLL); GATHER_NONE */
  /* cold */
  uint32_t connect_token;
  int32_t error;       /* negative errno that the reader is told after the data */
  uint32_t next, prev; /* in `list`, or the free list */
  uint32_t listener;   /* while unaccepted */
  uint64_t at;         /* closing: when patience ends */
  union {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
  } peer;
};
static_assert(sizeof(struct sock) <= 192, "an idle connection's share of the 1 KiB budget");

/* One piece of pushed data. */
struct piece {
  uint32_t next;
  uint32_t frame; /* one reference */
  uint32_t len;
  uint32_t token;      /* completed when this piece is released; TOKEN_NONE */
  uint16_t off;        /* of the first byte in the frame */
  uint16_t zerocopies; /* sends that read it still */
};

/* A zero-copy send: its first piece and how many, which stay until it is notified. */
struct zerocopy {
  uint32_t sock; /* or the next free one */
  uint32_t first, count;
};

/* What the kernel reads while it takes a send of several pieces over. */
struct gather {
  struct msghdr msg;
  struct iovec iov[STREAM_GATHER_PIECES];
};
#define GATHER_NONE UINT32_MAX

struct dgram {
  struct msghdr msg;
  struct iovec iov[HY_SGA_SEGS];
  union {
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
  } to;
  uint32_t frames[HY_SGA_SEGS];
  uint32_t sock; /* or the next free one */
  uint32_t token;
  uint32_t bytes;
};

/* What this kernel has (stream_probe.c). */
struct stream_features {
  bool zerocopy;        /* SEND_ZC and SENDMSG_ZC */
  bool zerocopy_report; /* which say whether they copied */
  bool zerocopy_fixed;  /* and, of several pieces, from registered memory */
  bool bundles;
  bool files; /* a registered file is closed as soon as its own requests are done */
};

struct uring {
  struct transport transport;
  hy_shard *shard;
  struct io_uring ring;
  uint64_t now;
  uint32_t run_head, run_tail;
  uint32_t zerocopy_bytes; /* sends from this size on; UINT32_MAX: none */
  bool started;            /* the ring belongs to a thread */
  bool sqpoll;             /* a thread of the kernel's takes submissions; else IORING_SETUP_DEFER_TASKRUN */
  bool files;              /* connections are registered */
  bool fixed_buffers;      /* the arena is */
  uint8_t yielded;
  struct stream_features has;
  struct uring_bell bell;
  /* frames lent to the kernel */
  struct io_uring_buf_ring *lent;
  uint32_t *slot_frame; /* FRAME_NONE: the kernel has given it back */
  uint32_t slots;       /* a power of two */
  uint16_t lent_tail;
  uint32_t lent_count;
  uint32_t frame_room; /* bytes of each */
  /* tables */
  struct sock *socks;
  uint32_t nsocks, in_use, sock_free, also_free, nconns;
  struct piece *pieces;
  uint32_t piece_free;
  struct zerocopy *zerocopies;
  uint32_t zerocopy_free;
  struct gather *gathers;
  uint32_t gather_free[STREAM_GATHERS], ngathers;
  struct dgram *dgrams;
  uint32_t dgram_free;
  struct msghdr dgram_header; /* how much of a sender's address a received datagram begins with */
  struct sock_ends starved;   /* receives that ended for want of frames */
  struct sock_ends closing;   /* oldest first */
  struct sock_ends stalled;   /* listeners that could not accept */
  uint64_t stalled_at;        /* when they try again */
};

/* Completions: the operation in the upper half of user_data, a socket or a record in the lower. */
enum stream_op {
  OP_IGNORE = 0,
  OP_ACCEPT,
  OP_RECV,
  OP_RECV_DGRAM,
  OP_SEND,
  OP_SEND_ZEROCOPY,
  OP_SEND_DGRAM,
  OP_CONNECT,
  OP_REGISTER,
  OP_SHUTDOWN,
  OP_RESET,
  OP_CLOSE,
  OP_ASK,
};

static inline uint64_t op_data(enum stream_op op, uint32_t index) {
  return (uint64_t)op << 32 | index;
}
static inline struct sock *sock_at(const struct uring *u, uint32_t index) {
  assert(index < u->nsocks);
  return &u->socks[index];
}
static inline uint32_t sock_index(const struct uring *u, const struct sock *s) {
  return (uint32_t)(s - u->socks);
}
static inline struct stats *stats_of(const struct uring *u) {
  return u->shard->stats;
}
static inline struct queue *queue_of(const struct uring *u, const struct sock *s) {
  return &u->shard->queues.slots[s->queue];
}
static inline void stream_complete(struct uring *u, struct sock *s, uint32_t token, int status) {
  token_complete(&u->shard->tokens, token, status, s->queue == QUEUE_NONE ? NULL : queue_of(u, s)->user);
}

/* The next pass looks at it. */
static inline void sock_wants(struct uring *u, struct sock *s) {
  if (s->flags & SOCK_WANTS)
    return;
  uint32_t index = sock_index(u, s);
  s->flags |= SOCK_WANTS;
  s->run_next = SOCK_NONE;
  if (u->run_head == SOCK_NONE)
    u->run_head = index;
  else
    sock_at(u, u->run_tail)->run_next = index;
  u->run_tail = index;
}

/* At the end of what waits to be read. */
static inline void rx_append(struct uring *u, struct sock *s, uint32_t frame) {
  struct arena *arena = &u->shard->arena;
  frame_meta(arena, frame)->next = FRAME_NONE;
  if (s->rx.head == FRAME_NONE)
    s->rx.head = frame;
  else
    frame_meta(arena, s->rx.tail)->next = frame;
  s->rx.tail = frame;
  s->rx_frames++;
}

/* A submission about a socket; the pass has seen to it that there is room. */
static inline struct io_uring_sqe *sqe_take(struct uring *u) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
  assert(sqe != NULL);
  return sqe;
}
/* Says which file it is about. */
static inline void sqe_file(const struct uring *u, const struct sock *s, struct io_uring_sqe *sqe) {
  if (s->flags & SOCK_FIXED) {
    sqe->fd = (int32_t)sock_index(u, s);
    sqe->flags |= IOSQE_FIXED_FILE;
  } else {
    sqe->fd = s->fd;
  }
}
/* It has a completion to wait for. */
static inline void sqe_counts(struct sock *s, struct io_uring_sqe *sqe, uint64_t data) {
  sqe->user_data = data;
  s->inflight++;
}

/* stream_table.c */
int tables_init(struct uring *u);
void tables_fini(struct uring *u);
/* NULL when all are taken, or for a connection config.connections are open. */
struct sock *sock_take(struct uring *u, enum sock_kind kind, int fd);
struct sock *sock_take_also(struct uring *u, int fd);
/* One that was bound is connected from now on; false: config.connections are open. */
bool sock_becomes_conn(struct uring *u, struct sock *s);
/* Nothing of it is left. */
void sock_release(struct uring *u, struct sock *s);
void sock_recycle(struct uring *u, struct sock *s);
/* The end of a list that a socket is, or is to be, in. */
struct sock_ends *list_of(struct uring *u, const struct sock *s, enum sock_list list);
void list_append(struct uring *u, struct sock *s, enum sock_list list);
void list_remove(struct uring *u, struct sock *s);
uint32_t gather_take(struct uring *u);
void gather_give(struct uring *u, uint32_t gather);

/* stream_socket.c: negative errno */
int socket_open(int type, uint8_t family);
int socket_bind(int fd, const hy_addr *local);
int socket_connect(int fd, const hy_addr *peer);
int socket_local(int fd, hy_addr *out);
int socket_peer(int fd, hy_addr *out);
/* Closes by reset, at once. */
void socket_abort(int fd);
void addr_from_sockaddr(const void *sa, hy_addr *out);
/* As a socket of this family wants it (AF_INET, AF_INET6); the length. */
socklen_t addr_to_sockaddr(const hy_addr *addr, int family, void *sa);
int socket_family(int fd);

/* stream_recv.c */
int lent_init(struct uring *u, uint32_t slots);
void lent_fini(struct uring *u);
/* Lends the kernel what is missing in the buffer ring, and wakes who starved. */
void lent_refill(struct uring *u);
/* The frame that the kernel has given back with this buffer id: the caller's now. */
uint32_t lent_return(struct uring *u, uint32_t slot);
void recv_run(struct uring *u, struct sock *s);
void recv_done(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe);
void recv_asked(struct uring *u, struct sock *s, int result);
void recv_drop(struct uring *u, struct sock *s);
void recv_deliver(struct uring *u, struct sock *s, hy_event *event);
void recv_wake(struct uring *u, struct sock *s);
/* The connection is over: pops are told after the data, pushes now. */
void sock_fail(struct uring *u, struct sock *s, int error);
/* The request that receives is over (no IORING_CQE_F_MORE). */
void recv_ended(struct uring *u, struct sock *s, int result);
void recv_stop(struct uring *u, struct sock *s);

/* stream_send.c */
int send_push(struct uring *u, struct sock *s, const hy_sga *sga, uint32_t token, bool give);
void send_run(struct uring *u, struct sock *s);
void send_done(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe);
void zerocopy_done(struct uring *u, uint32_t record, const struct io_uring_cqe *cqe);
void send_drop(struct uring *u, struct sock *s, int status);
void send_wake_drains(struct uring *u, struct sock *s);
void send_forget_token(struct uring *u, const struct sock *s, uint32_t token);
void send_cancel_tokens(struct uring *u, struct sock *s, int status);

/* stream_dgram.c */
int dgram_push(struct uring *u, struct sock *s, const hy_sga *sga, const hy_addr *peer, uint32_t token,
               bool give);
void dgram_sent(struct uring *u, uint32_t record, int result);
void dgram_received(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe);
void dgram_deliver(struct uring *u, struct sock *s, hy_event *event);
void dgram_wake(struct uring *u, struct sock *s);
void dgram_forget_token(struct uring *u, uint32_t token);
void dgram_cancel_tokens(struct uring *u, struct sock *s);

/* stream_listen.c */
int listen_start(struct uring *u, struct sock *s, int backlog);
void listen_run(struct uring *u, struct sock *s);
void accept_done(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe);
bool accept_deliver(struct uring *u, struct sock *s, hy_event *event);
void listen_close(struct uring *u, struct sock *s);
void listen_retry(struct uring *u);
int stream_listen_also(void *t, struct queue *q, int backlog);
bool stream_also_ready(void *t, const struct queue *q);
bool stream_accept_also(void *t, struct queue *q, hy_event *event);
void stream_close_also(void *t, struct queue *q);

/* stream_close.c */
void close_start(struct uring *u, struct sock *s, bool hard);
/* Not in order any more: what is queued is dropped, the peer sees a reset. */
void close_hard(struct uring *u, struct sock *s);
void close_run(struct uring *u, struct sock *s);
/* After every completion of a socket that is closing. */
void close_look(struct uring *u, struct sock *s);
/* Those whose patience has ended. */
void close_expire(struct uring *u);
/* Goes on until the socket is free, or for a bounded while: what it was bound to is free then. */
void close_settle(struct uring *u, struct sock *s);
void stream_fini(void *t);

/* stream_loop.c */
unsigned stream_progress(void *t, uint64_t now);
/* The same whoever waits: for closing. */
unsigned stream_pass(struct uring *u, uint64_t now);
uint64_t stream_deadline(void *t);
int stream_wait_arm(void *t);
int stream_wait_fd(void *t);
int stream_sleep(void *t, uint64_t ns);
/* Makes room in the submission ring; false: the kernel takes none at the moment. */
bool stream_room(struct uring *u, unsigned sqes);

/* stream_ops.c */
extern const struct transport_ops stream_transport;

/* stream_probe.c: whether this kernel has what is needed, and what of the rest. Sets hy_error_detail(). */
int stream_probe(struct stream_features *out);

/* stream_attach.c: the ring is closed, then all memory given back. */
void stream_free(struct uring *u);

#endif
