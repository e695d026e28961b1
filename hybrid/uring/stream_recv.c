/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving: frames lent to the kernel in a buffer ring, and what it has put into them.
 *
 * A buffer's id is its slot in the ring, and the kernel takes slots in their order; so a completion that
 * fills several (a bundle) names all of them by naming the first. Completions come
 * in another order now and then: a slot is lent anew only after its own completion.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "uring/stream.h"

enum { LENT_GROUP = 0 };

/* ---- the buffer ring ------------------------------------------------------------ */

int lent_init(struct uring *u, uint32_t slots) {
  size_t bytes = slots * sizeof(struct io_uring_buf);
  u->lent = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095);
  u->slot_frame = calloc(slots, sizeof *u->slot_frame);
  if (!u->lent || !u->slot_frame)
    return -ENOMEM;
  io_uring_buf_ring_init(u->lent);
  for (uint32_t i = 0; i < slots; i++)
    u->slot_frame[i] = FRAME_NONE;
  u->slots = slots;
  struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)u->lent, .ring_entries = slots, .bgid = LENT_GROUP};
  return io_uring_register_buf_ring(&u->ring, &reg, 0);
}

void lent_fini(struct uring *u) {
  for (uint32_t i = 0; u->slot_frame && i < u->slots; i++)
    if (u->slot_frame[i] != FRAME_NONE)
      frame_unref(&u->shard->arena, u->slot_frame[i]);
  free(u->slot_frame);
  free(u->lent);
}

/* Free frames that are not lent. The application's own allocations stop earlier: it can always be answered.
 */
static uint32_t lent_reserve(const struct uring *u) {
  return u->shard->stack.frames_reserve / 2;
}

static uint32_t frames_left(const struct uring *u) {
  uint32_t left = u->shard->arena.free_count, reserve = lent_reserve(u);
  return (left > reserve ? left - reserve : 0) + u->lent_count;
}

void lent_refill(struct uring *u) {
  struct arena *arena = &u->shard->arena;
  /* When they run short fewer are lent: one connection takes all that are, if it has as much to receive. */
  uint32_t mask = u->slots - 1, share = frames_left(u) / STREAM_RCV_SHARE + 1;
  uint32_t most = share < u->slots ? share : u->slots;
  int added = 0;
  while (u->lent_count < most && arena->free_count > lent_reserve(u)) {
    uint32_t slot = (u->lent_tail + (uint32_t)added) & mask;
    if (u->slot_frame[slot] != FRAME_NONE)
      break;
    uint32_t frame = frame_alloc(arena);
    u->slot_frame[slot] = frame;
    io_uring_buf_ring_add(u->lent, frame_data(arena, frame), u->frame_room, (uint16_t)slot, (int)mask, added);
    u->lent_count++;
    added++;
  }
  if (added > 0)
    io_uring_buf_ring_advance(u->lent, added);
  u->lent_tail = (uint16_t)(u->lent_tail + added);
  /* As many as there are frames for; the first in the list has starved longest. */
  for (uint32_t n = u->lent_count; n > 0 && u->starved.head != SOCK_NONE; n--) {
    struct sock *s = sock_at(u, u->starved.head);
    list_remove(u, s);
    sock_wants(u, s);
  }
}

uint32_t lent_return(struct uring *u, uint32_t slot) {
  uint32_t frame = u->slot_frame[slot & (u->slots - 1)];
  assert(frame != FRAME_NONE);
  u->slot_frame[slot & (u->slots - 1)] = FRAME_NONE;
  u->lent_count--;
  return frame;
}

/* ---- the request ------------------------------------------------------------------ */

static void recv_arm(struct uring *u, struct sock *s) {
  struct io_uring_sqe *sqe = sqe_take(u);
  bool stream = s->kind == SOCK_CONN;
  if (stream) {
    io_uring_prep_recv(sqe, -1, NULL, 0, 0);
    if (u->has.bundles)
      sqe->ioprio |= URING_RECVSEND_BUNDLE;
  } else {
    io_uring_prep_recvmsg(sqe, -1, &u->dgram_header, 0);
  }
  sqe_file(u, s, sqe);
  sqe->ioprio |= IORING_RECV_MULTISHOT;
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = LENT_GROUP;
  sqe_counts(s, sqe, op_data(stream ? OP_RECV : OP_RECV_DGRAM, sock_index(u, s)));
  s->flags |= SOCK_RECV;
}

void recv_stop(struct uring *u, struct sock *s) {
  static const enum stream_op ops[] = {
      [SOCK_LISTENER] = OP_ACCEPT, [SOCK_CONN] = OP_RECV, [SOCK_DATAGRAMS] = OP_RECV_DGRAM};
  if ((s->flags & (SOCK_RECV | SOCK_RECV_STOP)) != SOCK_RECV)
    return;
  struct io_uring_sqe *sqe = sqe_take(u);
  io_uring_prep_cancel64(sqe, op_data(ops[s->kind], sock_index(u, s)), 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = op_data(OP_IGNORE, 0);
  s->flags |= SOCK_RECV_STOP;
}

/*
 * Its own limit, and when frames run short a share of those that are left (Choudhury and Hahne's dynamic
 * thresholds): readers that sleep leave some to the others.
 */
static bool behind(const struct uring *u, const struct sock *s) {
  return s->rx_frames >= s->rx_limit || s->rx_frames > frames_left(u) / STREAM_RCV_SHARE;
}

void recv_run(struct uring *u, struct sock *s) {
  if (s->flags & SOCK_RECV) {
    if (behind(u, s) && !(s->flags & SOCK_RECV_STOP)) {
      stats_of(u)->kernel_paused++;
      recv_stop(u, s);
    }
  } else if ((s->flags & (SOCK_ASK | SOCK_ASKED)) == SOCK_ASK) {
    struct io_uring_sqe *sqe = sqe_take(u);
    io_uring_prep_poll_add(sqe, -1, POLLRDHUP);
    sqe_file(u, s, sqe);
    sqe_counts(s, sqe, op_data(OP_ASK, sock_index(u, s)));
    s->flags |= SOCK_ASKED;
  } else if ((s->flags & (SOCK_OPEN | SOCK_RX_END | SOCK_ASK)) == SOCK_OPEN && s->list == LIST_NONE &&
             !behind(u, s)) {
    recv_arm(u, s);
  }
}

void recv_ended(struct uring *u, struct sock *s, int result) {
  s->flags &= ~(uint32_t)(SOCK_RECV | SOCK_RECV_STOP);
  s->inflight--;
  if (s->flags & (SOCK_RX_END | SOCK_CLOSING))
    return;
  if (result == -ENOBUFS) { /* the buffer ring was empty */
    stats_of(u)->kernel_no_buffers++;
    list_append(u, s, LIST_STARVED);
  } else {
    sock_wants(u, s);
  }
}

/* ---- what arrived ------------------------------------------------------------------- */

static void queue_frame(struct uring *u, struct sock *s, uint32_t frame, uint32_t len) {
  struct arena *arena = &u->shard->arena;
  struct frame *f = frame_meta(arena, frame);
  if (s->rx.tail != FRAME_NONE && len <= STREAM_MERGE_BYTES) {
    struct frame *last = frame_meta(arena, s->rx.tail);
    if (last->off + last->len + len <= arena->frame_size) { /* or trickling bytes would tie frames up */
      memcpy(frame_data(arena, s->rx.tail) + last->len, frame_data(arena, frame), len);
      last->len = (uint16_t)(last->len + len);
      stats_of(u)->kernel_in_copied_bytes += len;
      frame_unref(arena, frame);
      return;
    }
  }
  f->len = (uint16_t)len;
  rx_append(u, s, frame);
}

/* Every frame of a completion; none is kept of a socket that nobody will read. */
static void take_frames(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe) {
  uint32_t left = cqe->res > 0 ? (uint32_t)cqe->res : 0, slot = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
  do {
    uint32_t frame = lent_return(u, slot++);
    uint32_t len = left < u->frame_room ? left : u->frame_room;
    left -= len;
    if (len == 0 || (s->flags & SOCK_CLOSING))
      frame_unref(&u->shard->arena, frame);
    else
      queue_frame(u, s, frame, len);
  } while (left > 0);
}

void sock_fail(struct uring *u, struct sock *s, int error) {
  if (s->error != 0)
    return;
  /* The kernel says EPIPE to whoever sends after a reset. */
  s->error = error == -EPIPE ? -ECONNRESET : error;
  s->flags |= SOCK_RX_END;
  if (s->error == -ECONNRESET)
    stats_of(u)->kernel_resets_in++;
  send_drop(u, s, s->error);
  recv_wake(u, s);
}

/* Says something of the request, not of the connection: there will be another. */
static bool passing(int result) {
  return result == -ENOBUFS || result == -ECANCELED || result == -EINTR || result == -EAGAIN ||
         result == -ENOMEM || result == -EBADF /* it could not be registered */;
}

/*
 * The error of a reset is told once. A send that had given some of its bytes to the kernel uses it up and
 * says how many those were, and the receive then ends as if the peer had ended. So while there is something
 * to send the kernel is asked which of the two it was: a connection that was reset hangs up.
 */
static void end_came(struct uring *u, struct sock *s) {
  if (s->error != 0)
    return;
  if (s->tx_next == PIECE_NONE || (s->flags & SOCK_CLOSING)) {
    s->flags |= SOCK_RX_END | SOCK_EOF;
    return;
  }
  s->flags |= SOCK_ASK;
  sock_wants(u, s);
}

void recv_asked(struct uring *u, struct sock *s, int result) {
  s->flags &= ~(uint32_t)(SOCK_ASK | SOCK_ASKED);
  if (s->error != 0 || (s->flags & SOCK_CLOSING))
    return;
  if (result < 0 || (result & (POLLHUP | POLLERR))) {
    sock_fail(u, s, -ECONNRESET);
  } else {
    s->flags |= SOCK_RX_END | SOCK_EOF;
    recv_wake(u, s);
  }
}

void recv_done(struct uring *u, struct sock *s, const struct io_uring_cqe *cqe) {
  int result = cqe->res;
  if (cqe->flags & IORING_CQE_F_BUFFER)
    take_frames(u, s, cqe);
  if (result > 0) {
    stats_of(u)->kernel_in++;
    stats_of(u)->kernel_in_bytes += (uint32_t)result;
    if ((s->flags & (SOCK_CLOSING | SOCK_HARD)) == SOCK_CLOSING)
      close_hard(u, s); /* nobody will read it: the peer shall know (RFC 2525 section 2.17) */
  } else if (result == 0) {
    end_came(u, s);
  } else if (!passing(result) && !(s->flags & SOCK_CLOSING)) {
    sock_fail(u, s, result);
  }
  if (!(cqe->flags & IORING_CQE_F_MORE))
    recv_ended(u, s, result);
  if (s->flags & SOCK_CLOSING)
    return;
  if (behind(u, s))
    sock_wants(u, s);
  recv_wake(u, s);
}

/* ---- the reader ---------------------------------------------------------------------- */

void recv_wake(struct uring *u, struct sock *s) {
  if (s->queue == QUEUE_NONE || (s->flags & SOCK_POP_READY))
    return;
  struct tokens *tokens = &u->shard->tokens;
  struct queue *q = queue_of(u, s);
  if (q->pops.head == TOKEN_NONE)
    return;
  if (s->rx.head != FRAME_NONE) {
    s->flags |= SOCK_POP_READY; /* one at a time: the next may find nothing left */
    token_complete(tokens, token_list_shift(tokens, &q->pops), 0, q->user);
    return;
  }
  if (!(s->flags & SOCK_RX_END))
    return;
  int status = s->flags & SOCK_EOF ? 0 : s->error;
  while (q->pops.head != TOKEN_NONE)
    token_complete(tokens, token_list_shift(tokens, &q->pops), status, q->user);
}

void recv_deliver(struct uring *u, struct sock *s, hy_event *event) {
  if (!(s->flags & SOCK_POP_READY))
    return; /* end of stream */
  s->flags &= ~(uint32_t)SOCK_POP_READY;
  hy_shard *shard = u->shard;
  uint32_t held = shard->app_frames, limit = shard->config.app_frames_max;
  uint32_t room = held < limit ? limit - held : 0, most = room < HY_SGA_SEGS ? room : HY_SGA_SEGS;
  if (most == 0) {
    event->status = -ENOBUFS; /* the data stays for the next pop */
  } else {
    uint32_t frame = s->rx.head, nsegs = 0, bytes = 0;
    for (; frame != FRAME_NONE && nsegs < most; nsegs++) {
      struct frame *f = frame_meta(&shard->arena, frame);
      event->sga.segs[nsegs] =
          (hy_seg){.addr = frame_data(&shard->arena, frame), .len_bytes = f->len, .frame = frame};
      bytes += f->len;
      frame = f->next;
    }
    event->sga.nsegs = nsegs;
    s->rx.head = frame;
    if (frame == FRAME_NONE)
      s->rx.tail = FRAME_NONE;
    s->rx_frames -= nsegs;
    shard->app_frames += nsegs;
    /* Doubles with each limit's worth that is read: a reader that sleeps ties up little. */
    uint32_t grown = s->rx_limit + nsegs, bound = shard->config.rcvbuf_bytes / u->frame_room + 1;
    s->rx_limit = grown < bound ? grown : bound;
    if (!(s->flags & (SOCK_RECV | SOCK_RX_END)) && s->rx_frames <= s->rx_limit / 2)
      sock_wants(u, s);
  }
  recv_wake(u, s);
}

void recv_drop(struct uring *u, struct sock *s) {
  while (s->rx.head != FRAME_NONE) {
    uint32_t frame = s->rx.head;
    s->rx.head = frame_meta(&u->shard->arena, frame)->next;
    frame_unref(&u->shard->arena, frame);
  }
  s->rx.tail = FRAME_NONE;
  s->rx_frames = 0;
}
