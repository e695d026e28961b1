/* SPDX-License-Identifier: Apache-2.0 */
/* The table of queue descriptors; a closed one's number comes back as late as possible. */
#include "core/queue.h"

#include <errno.h>
#include <stdlib.h>

#define QD_MASK 0x7fffffffu /* a qd isn't negative */

int queues_init(struct queues *q, uint32_t count) {
  assert(count > 0 && count <= QUEUE_MAX);
  *q = (struct queues){.count = count, .slots = calloc(count, sizeof(struct queue))};
  if (!q->slots)
    return -ENOMEM;
  for (uint32_t i = 0; i < count; i++) {
    q->slots[i].qd = ~(hy_qd)i;
    q->slots[i].object = i + 1 < count ? i + 1 : QUEUE_NONE;
  }
  q->free_head = 0;
  q->free_tail = count - 1;
  return 0;
}

void queues_fini(struct queues *q) {
  free(q->slots);
  *q = (struct queues){0};
}

uint32_t queue_take(struct queues *q, enum queue_kind kind, struct transport *transport) {
  uint32_t index = q->free_head;
  if (index == QUEUE_NONE)
    return QUEUE_NONE;
  struct queue *slot = &q->slots[index];
  q->free_head = slot->object;
  *slot =
      (struct queue){.transport = transport, .kind = (uint8_t)kind, .qd = ~slot->qd, .object = QUEUE_NONE};
  return index;
}

void queue_release(struct queues *q, uint32_t index) {
  struct queue *slot = &q->slots[index];
  assert(slot->kind != QUEUE_FREE);
  slot->kind = QUEUE_FREE;
  slot->qd = ~(hy_qd)(((uint32_t)slot->qd + QUEUE_MAX) & QD_MASK); /* the next generation */
  slot->object = QUEUE_NONE;
  if (q->free_head == QUEUE_NONE)
    q->free_head = index;
  else
    q->slots[q->free_tail].object = index;
  q->free_tail = index;
}
