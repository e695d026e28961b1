/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the kernel-socket transport, all allocated when it is attached, and the lists through them.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "uring/stream.h"

static void free_list(struct sock *socks, uint32_t first, uint32_t end) {
  for (uint32_t i = first; i < end; i++)
    socks[i] = (struct sock){.fd = -1, .queue = QUEUE_NONE, .next = i + 1 < end ? i + 1 : SOCK_NONE};
}

int tables_init(struct uring *u) {
  uint32_t pieces = u->shard->config.frames;
  u->socks = aligned_alloc(64, (u->nsocks * sizeof *u->socks + 63) & ~(size_t)63);
  u->pieces = calloc(pieces, sizeof *u->pieces);
  u->zerocopies = calloc(STREAM_ZEROCOPIES, sizeof *u->zerocopies);
  u->gathers = calloc(STREAM_GATHERS, sizeof *u->gathers);
  u->dgrams = calloc(STREAM_DGRAMS_MAX, sizeof *u->dgrams);
  if (!u->socks || !u->pieces || !u->zerocopies || !u->gathers || !u->dgrams)
    return -ENOMEM;
  free_list(u->socks, 0, STREAM_ALSO_MAX);
  free_list(u->socks, STREAM_ALSO_MAX, u->nsocks);
  u->also_free = 0;
  u->sock_free = STREAM_ALSO_MAX;
  for (uint32_t i = 0; i < pieces; i++)
    u->pieces[i].next = i + 1 < pieces ? i + 1 : PIECE_NONE;
  for (uint32_t i = 0; i < STREAM_ZEROCOPIES; i++)
    u->zerocopies[i].sock = i + 1 < STREAM_ZEROCOPIES ? i + 1 : SOCK_NONE;
  for (uint32_t i = 0; i < STREAM_DGRAMS_MAX; i++)
    u->dgrams[i].sock = i + 1 < STREAM_DGRAMS_MAX ? i + 1 : SOCK_NONE;
  for (uint32_t i = 0; i < STREAM_GATHERS; i++)
    u->gather_free[i] = i;
  u->ngathers = STREAM_GATHERS;
  u->run_head = u->run_tail = SOCK_NONE;
  u->starved = u->closing = u->stalled = (struct sock_ends){SOCK_NONE, SOCK_NONE};
  return 0;
}

/* What the kernel did not give back in time is forgotten here: the ring is closed by now. */
void tables_fini(struct uring *u) {
  for (uint32_t i = 0; u->socks && i < u->nsocks; i++)
    if (u->socks[i].kind != SOCK_FREE && u->socks[i].fd >= 0)
      close(u->socks[i].fd);
  free(u->socks);
  free(u->pieces);
  free(u->zerocopies);
  free(u->gathers);
  free(u->dgrams);
}

static struct sock *take(struct uring *u, uint32_t *head, enum sock_kind kind, int fd) {
  if (*head == SOCK_NONE)
    return NULL;
  struct sock *s = sock_at(u, *head);
  *head = s->next;
  uint32_t room = u->frame_room, most = u->shard->config.rcvbuf_bytes;
  *s = (struct sock){
      .queue = QUEUE_NONE,
      .fd = fd,
      .kind = (uint8_t)kind,
      .rx = {FRAME_NONE, FRAME_NONE},
      .rx_limit = (most < STREAM_RCV_INITIAL ? most : STREAM_RCV_INITIAL) / room + 1,
      .tx_head = PIECE_NONE,
      .tx_next = PIECE_NONE,
      .tx_tail = PIECE_NONE,
      .gather = GATHER_NONE,
      .next = SOCK_NONE,
      .prev = SOCK_NONE,
      .listener = SOCK_NONE,
  };
  static_assert(FRAME_NONE == SOCK_NONE, "a listener's rx is a list of sockets");
  u->in_use++;
  return s;
}

struct sock *sock_take(struct uring *u, enum sock_kind kind, int fd) {
  if (kind == SOCK_CONN && u->nconns >= u->shard->config.connections)
    return NULL;
  struct sock *s = take(u, &u->sock_free, kind, fd);
  if (s && kind == SOCK_CONN)
    u->nconns++;
  return s;
}

bool sock_becomes_conn(struct uring *u, struct sock *s) {
  if (u->nconns >= u->shard->config.connections)
    return false;
  s->kind = SOCK_CONN;
  u->nconns++;
  return true;
}

struct sock *sock_take_also(struct uring *u, int fd) {
  return take(u, &u->also_free, SOCK_BOUND, fd);
}

void sock_release(struct uring *u, struct sock *s) {
  assert(s->inflight == 0 && s->tx_head == PIECE_NONE && s->list == LIST_NONE && s->kind != SOCK_FREE);
  if (s->kind == SOCK_CONN)
    u->nconns--;
  s->kind = SOCK_FREE;
  u->in_use--;
  if (!(s->flags & SOCK_WANTS)) /* else when its turn in the run list comes */
    sock_recycle(u, s);
}

void sock_recycle(struct uring *u, struct sock *s) {
  uint32_t index = sock_index(u, s);
  uint32_t *head = index < STREAM_ALSO_MAX ? &u->also_free : &u->sock_free;
  s->flags = 0;
  s->next = *head;
  *head = index;
}

struct sock_ends *list_of(struct uring *u, const struct sock *s, enum sock_list list) {
  switch (list) {
  case LIST_UNACCEPTED:
    return &sock_at(u, s->listener)->rx;
  case LIST_STARVED:
    return &u->starved;
  case LIST_STALLED:
    return &u->stalled;
  default:
    assert(list == LIST_CLOSING);
    return &u->closing;
  }
}

void list_append(struct uring *u, struct sock *s, enum sock_list list) {
  assert(s->list == LIST_NONE);
  struct sock_ends *ends = list_of(u, s, list);
  uint32_t index = sock_index(u, s);
  s->list = (uint8_t)list;
  s->next = SOCK_NONE;
  s->prev = ends->tail;
  if (ends->tail == SOCK_NONE)
    ends->head = index;
  else
    sock_at(u, ends->tail)->next = index;
  ends->tail = index;
}

void list_remove(struct uring *u, struct sock *s) {
  if (s->list == LIST_NONE)
    return;
  struct sock_ends *ends = list_of(u, s, s->list);
  if (s->prev == SOCK_NONE)
    ends->head = s->next;
  else
    sock_at(u, s->prev)->next = s->next;
  if (s->next == SOCK_NONE)
    ends->tail = s->prev;
  else
    sock_at(u, s->next)->prev = s->prev;
  s->list = LIST_NONE;
}

uint32_t gather_take(struct uring *u) {
  return u->ngathers > 0 ? u->gather_free[--u->ngathers] : GATHER_NONE;
}

void gather_give(struct uring *u, uint32_t gather) {
  assert(u->ngathers < STREAM_GATHERS);
  u->gather_free[u->ngathers++] = gather;
}
