/* SPDX-License-Identifier: Apache-2.0 */
/* The token table, and taking a token out of the middle of a list. */
#include "core/token.h"

#include <errno.h>
#include <stdlib.h>

int tokens_init(struct tokens *t, uint32_t count) {
  *t = (struct tokens){.count = count};
  t->slots = aligned_alloc(64, (size_t)(count + 1) * sizeof(struct token));
  if (!t->slots)
    return -ENOMEM;
  for (uint32_t i = 0; i <= count; i++)
    t->slots[i] = (struct token){.generation = 1, .next = i < count ? i + 1 : TOKEN_NONE};
  t->free_head = 1;
  return 0;
}

void tokens_fini(struct tokens *t) {
  free(t->slots);
  *t = (struct tokens){0};
}

bool token_list_remove(struct tokens *t, struct token_list *l, uint32_t index) {
  uint32_t before = TOKEN_NONE;
  for (uint32_t i = l->head; i != TOKEN_NONE; before = i, i = t->slots[i].next) {
    if (i != index)
      continue;
    uint32_t after = t->slots[i].next;
    if (before == TOKEN_NONE)
      l->head = after;
    else
      t->slots[before].next = after;
    if (l->tail == index)
      l->tail = before;
    t->slots[i].next = TOKEN_NONE;
    return true;
  }
  return false;
}
