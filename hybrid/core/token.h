/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queue tokens: one per outstanding operation.
 *
 * A token is an index with a generation, so that a stale one is recognised. The
 * slot is chained into the queue that the operation waits on; completing it fills
 * in the result and moves it to the ready list, from whose other end wait takes
 * it: first completed, first handed out. Nothing is allocated, a blocked token
 * costs nothing, and none of this depends on how many there are.
 *
 *     free --token_take--> waiting --token_complete--> ready --token_release--> free
 */
#ifndef HYBRID_CORE_TOKEN_H
#define HYBRID_CORE_TOKEN_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/hybrid.h"

#define TOKEN_NONE 0u /* slot 0 is never handed out */

enum token_state { TOKEN_FREE = 0, TOKEN_WAITING, TOKEN_READY };

struct token {
  void *user; /* of the queue, when the operation completed */
  uint32_t generation;
  uint32_t next;  /* in its queue's list, the ready list or the free list */
  uint32_t prev;  /* in the ready list */
  uint32_t queue; /* index of the queue */
  int32_t status;
  hy_qd qd;
  uint8_t op;    /* enum hy_op */
  uint8_t state; /* enum token_state */
  uint8_t reserved[26];
};
static_assert(sizeof(struct token) == 64, "one cache line per token");

struct tokens {
  struct token *slots;
  uint32_t count;
  uint32_t free_head;
  uint32_t ready_head, ready_tail; /* oldest first */
};

int tokens_init(struct tokens *t, uint32_t count);
void tokens_fini(struct tokens *t);

static inline hy_qt token_name(const struct tokens *t, uint32_t index) {
  return ((hy_qt)t->slots[index].generation << 32) | index;
}

/* The slot a name stands for, or NULL if it is stale. */
static inline struct token *token_find(const struct tokens *t, hy_qt qt) {
  uint32_t index = (uint32_t)qt;
  if (index == TOKEN_NONE || index > t->count)
    return NULL;
  struct token *slot = &t->slots[index];
  return slot->state != TOKEN_FREE && slot->generation == (uint32_t)(qt >> 32) ? slot : NULL;
}

/* TOKEN_NONE when all are taken. */
static inline uint32_t token_take(struct tokens *t, enum hy_op op, uint32_t queue, hy_qd qd) {
  uint32_t index = t->free_head;
  if (index == TOKEN_NONE)
    return TOKEN_NONE;
  struct token *slot = &t->slots[index];
  t->free_head = slot->next;
  slot->op = (uint8_t)op;
  slot->state = TOKEN_WAITING;
  slot->queue = queue;
  slot->qd = qd;
  return index; /* the rest is filled in by who queues it, and by token_complete */
}

static inline void token_complete(struct tokens *t, uint32_t index, int status, void *user) {
  struct token *slot = &t->slots[index];
  assert(slot->state == TOKEN_WAITING);
  slot->state = TOKEN_READY;
  slot->status = status;
  slot->user = user;
  slot->next = TOKEN_NONE;
  slot->prev = t->ready_tail;
  if (t->ready_tail == TOKEN_NONE)
    t->ready_head = index;
  else
    t->slots[t->ready_tail].next = index;
  t->ready_tail = index;
}

/* Takes a token off the ready list; its state is the caller's to set. */
static inline void token_unready(struct tokens *t, struct token *slot) {
  if (slot->prev == TOKEN_NONE)
    t->ready_head = slot->next;
  else
    t->slots[slot->prev].next = slot->next;
  if (slot->next == TOKEN_NONE)
    t->ready_tail = slot->prev;
  else
    t->slots[slot->next].prev = slot->prev;
}

/* The end of the token at the head of the ready list, the one that completed longest ago. */
static inline void token_retire_oldest(struct tokens *t) {
  uint32_t index = t->ready_head;
  struct token *slot = &t->slots[index];
  assert(slot->state == TOKEN_READY && slot->prev == TOKEN_NONE);
  t->ready_head = slot->next;
  if (slot->next == TOKEN_NONE)
    t->ready_tail = TOKEN_NONE;
  else
    t->slots[slot->next].prev = TOKEN_NONE;
  slot->state = TOKEN_FREE;
  slot->generation++;
  slot->next = t->free_head;
  t->free_head = index;
}

static inline void token_release(struct tokens *t, uint32_t index) {
  struct token *slot = &t->slots[index];
  assert(slot->state != TOKEN_FREE);
  if (slot->state == TOKEN_READY)
    token_unready(t, slot);
  slot->state = TOKEN_FREE;
  slot->generation++;
  slot->next = t->free_head;
  t->free_head = index;
}

/* A first-in first-out list of waiting tokens, chained by `next`. */
struct token_list {
  uint32_t head, tail;
};

static inline void token_list_push(struct tokens *t, struct token_list *l, uint32_t index) {
  t->slots[index].next = TOKEN_NONE;
  if (l->head == TOKEN_NONE)
    l->head = index;
  else
    t->slots[l->tail].next = index;
  l->tail = index;
}

static inline uint32_t token_list_shift(struct tokens *t, struct token_list *l) {
  uint32_t index = l->head;
  if (index != TOKEN_NONE)
    l->head = t->slots[index].next;
  return index;
}

/* Takes one out of the middle; false if it isn't there. O(length): for cancelling. */
bool token_list_remove(struct tokens *t, struct token_list *l, uint32_t index);

#endif
