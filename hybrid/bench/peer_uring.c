/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring server, on liburing alone; see peer.h.
 *
 * A reply leaves from the provided buffer that the request came in, which goes
 * back to the kernel when the send has completed. A connection has one send under
 * way; buffers that wait for it are a list through `buffer_next`.
 */
#include "bench/bench.h"
#include "bench/net.h"
#include "bench/peer.h"

#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ENTRIES = 1024, COMPLETIONS = 8192, BUFFERS = 256, BUFFER_BYTES = 64 << 10, GROUP = 1, NONE = -1 };
enum { OP_ACCEPT, OP_RECEIVE, OP_SEND, OP_BITS = 2 };

struct connection {
  int fd;              /* NONE: not in use */
  int first, last;     /* buffers to send; the first is under way */
  uint32_t sent_bytes; /* of the first */
  bool over;           /* the client has sent all it will, or is lost */
  bool starved;        /* wants to receive, and there was no buffer */
};

struct server {
  const struct peer *peer;
  struct io_uring ring;
  struct io_uring_buf_ring *provided;
  unsigned nconnections, nstarved;
  struct connection connections[SERVICE_CONNECTIONS];
  int buffer_next[BUFFERS];
  uint32_t buffer_bytes[BUFFERS]; /* of the reply in it */
  char (*buffers)[BUFFER_BYTES];
};

/* An entry to be prepared, and then marked: preparing writes all of it. */
static struct io_uring_sqe *entry(struct server *s) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
  if (!sqe) {
    io_uring_submit(&s->ring);
    sqe = io_uring_get_sqe(&s->ring);
  }
  if (!sqe)
    bench_fail("the submission queue stays full");
  return sqe;
}

static void mark(struct io_uring_sqe *sqe, unsigned op, unsigned number) {
  io_uring_sqe_set_data64(sqe, (uint64_t)number << OP_BITS | op);
}

static void ask_accept(struct server *s) {
  struct io_uring_sqe *sqe = entry(s);
  io_uring_prep_multishot_accept(sqe, s->peer->listener, NULL, NULL, SOCK_CLOEXEC);
  mark(sqe, OP_ACCEPT, 0);
}

static void ask_receive(struct server *s, unsigned number) {
  struct io_uring_sqe *sqe = entry(s);
  io_uring_prep_recv_multishot(sqe, s->connections[number].fd, NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = GROUP;
  mark(sqe, OP_RECEIVE, number);
}

static void ask_send(struct server *s, unsigned number) {
  struct connection *c = &s->connections[number];
  struct io_uring_sqe *sqe = entry(s);
  io_uring_prep_send(sqe, c->fd, s->buffers[c->first] + c->sent_bytes,
                     s->buffer_bytes[c->first] - c->sent_bytes, MSG_NOSIGNAL | MSG_WAITALL);
  mark(sqe, OP_SEND, number);
}

/* Back to the kernel; whoever had none may receive again. */
static void buffer_give(struct server *s, int buffer) {
  io_uring_buf_ring_add(s->provided, s->buffers[buffer], BUFFER_BYTES, (unsigned short)buffer,
                        io_uring_buf_ring_mask(BUFFERS), 0);
  io_uring_buf_ring_advance(s->provided, 1);
  for (unsigned i = 0; s->nstarved > 0 && i < SERVICE_CONNECTIONS; i++) {
    if (!s->connections[i].starved)
      continue;
    s->connections[i].starved = false;
    s->nstarved--;
    ask_receive(s, i);
  }
}

static void on_accept(struct server *s, const struct io_uring_cqe *cqe) {
  unsigned number = 0;
  if (!(cqe->flags & IORING_CQE_F_MORE))
    ask_accept(s);
  if (cqe->res < 0)
    bench_fail("accept: %s", strerror(-cqe->res));
  while (number < SERVICE_CONNECTIONS && s->connections[number].fd != NONE)
    number++;
  if (number == SERVICE_CONNECTIONS)
    bench_fail("more than %d connections", SERVICE_CONNECTIONS);
  net_nodelay(cqe->res);
  s->connections[number] = (struct connection){.fd = cqe->res, .first = NONE, .last = NONE};
  s->nconnections++;
  s->peer->service->open(number);
  ask_receive(s, number);
}

/* When nothing is under way any more. */
static void connection_end_if_over(struct server *s, unsigned number) {
  struct connection *c = &s->connections[number];
  if (!c->over || c->first != NONE)
    return;
  s->peer->service->close(number);
  close(c->fd);
  c->fd = NONE;
  s->nconnections--;
}

static void reply(struct server *s, unsigned number, int buffer, size_t got) {
  struct connection *c = &s->connections[number];
  size_t bytes;
  const void *said = s->peer->service->run(number, s->buffers[buffer], got, &bytes);
  if (bytes > BUFFER_BYTES)
    bench_fail("a reply of %zu bytes is more than a buffer holds", bytes);
  if (said != s->buffers[buffer])
    memcpy(s->buffers[buffer], said, bytes);
  s->buffer_bytes[buffer] = (uint32_t)bytes;
  s->buffer_next[buffer] = NONE;
  if (c->first != NONE) {
    s->buffer_next[c->last] = buffer;
    c->last = buffer;
    return;
  }
  c->first = c->last = buffer;
  c->sent_bytes = 0;
  ask_send(s, number);
}

static void on_receive(struct server *s, unsigned number, const struct io_uring_cqe *cqe) {
  struct connection *c = &s->connections[number];
  int buffer = cqe->flags & IORING_CQE_F_BUFFER ? (int)(cqe->flags >> IORING_CQE_BUFFER_SHIFT) : NONE;
  if (cqe->res > 0)
    reply(s, number, buffer, (size_t)cqe->res);
  else if (buffer != NONE)
    buffer_give(s, buffer);
  if (cqe->flags & IORING_CQE_F_MORE)
    return;
  if (cqe->res == -ENOBUFS) {
    c->starved = true;
    s->nstarved++;
  } else if (cqe->res > 0) {
    ask_receive(s, number);
  } else {
    c->over = true;
    connection_end_if_over(s, number);
  }
}

static void on_send(struct server *s, unsigned number, const struct io_uring_cqe *cqe) {
  struct connection *c = &s->connections[number];
  c->sent_bytes += cqe->res > 0 ? (uint32_t)cqe->res : 0;
  bool lost = cqe->res < 0;
  if (!lost && c->sent_bytes < s->buffer_bytes[c->first]) {
    ask_send(s, number);
    return;
  }
  if (lost)
    shutdown(c->fd, SHUT_RDWR); /* ends the receive as well */
  do {
    int buffer = c->first;
    c->first = s->buffer_next[buffer];
    buffer_give(s, buffer);
  } while (lost && c->first != NONE);
  c->sent_bytes = 0;
  if (c->first != NONE)
    ask_send(s, number);
  else
    connection_end_if_over(s, number);
}

static void on_completion(struct server *s, const struct io_uring_cqe *cqe) {
  unsigned number = (unsigned)(cqe->user_data >> OP_BITS);
  switch (cqe->user_data & ((1 << OP_BITS) - 1)) {
  case OP_ACCEPT:
    on_accept(s, cqe);
    break;
  case OP_RECEIVE:
    on_receive(s, number, cqe);
    break;
  default:
    on_send(s, number, cqe);
  }
}

static void server_open(struct server *s) {
  struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                            IORING_SETUP_CQSIZE,
                                   .cq_entries = COMPLETIONS};
  int error = io_uring_queue_init_params(ENTRIES, &s->ring, &params);
  if (error < 0)
    bench_fail("io_uring: %s", strerror(-error));
  void *ring = mmap(NULL, BUFFERS * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void *buffers =
      mmap(NULL, (size_t)BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ring == MAP_FAILED || buffers == MAP_FAILED)
    bench_fail("no memory for buffers");
  struct io_uring_buf_reg reg = {
      .ring_addr = (uint64_t)(uintptr_t)ring, .ring_entries = BUFFERS, .bgid = GROUP};
  error = io_uring_register_buf_ring(&s->ring, &reg, 0);
  if (error < 0)
    bench_fail("provided buffers: %s", strerror(-error));
  s->provided = ring;
  s->buffers = buffers;
  io_uring_buf_ring_init(s->provided);
  for (int i = 0; i < BUFFERS; i++)
    buffer_give(s, i);
  for (unsigned i = 0; i < SERVICE_CONNECTIONS; i++)
    s->connections[i].fd = NONE;
}

void peer_io_uring(const struct peer *peer) {
  static struct server s;
  s.peer = peer;
  server_open(&s);
  ask_accept(&s);
  for (;;) {
    int error = peer->sleep || s.nconnections == 0 ? io_uring_submit_and_wait(&s.ring, 1)
                                                   : io_uring_submit_and_get_events(&s.ring);
    if (error < 0 && error != -EINTR)
      bench_fail("io_uring: %s", strerror(-error));
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&s.ring, head, cqe) {
      on_completion(&s, cqe);
      n++;
    }
    io_uring_cq_advance(&s.ring, n);
  }
}
