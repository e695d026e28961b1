/* SPDX-License-Identifier: Apache-2.0 */
/* Linear probing with deletion that shifts back. */
#include "tcp/flow.h"

#include <errno.h>
#include <stdlib.h>

int flow_table_init(struct flow_table *t, uint32_t flows, const uint64_t secret[6]) {
  uint32_t size = 64;
  while (size < flows * 2)
    size *= 2;
  *t = (struct flow_table){.mask = size - 1, .limit = size / 2};
  memcpy(t->secret, secret, sizeof t->secret);
  t->entries = aligned_alloc(64, (size_t)size * sizeof(struct flow_entry));
  if (!t->entries)
    return -ENOMEM;
  memset(t->entries, 0xff, (size_t)size * sizeof(struct flow_entry));
  return 0;
}

void flow_table_fini(struct flow_table *t) {
  free(t->entries);
  *t = (struct flow_table){0};
}

bool flow_insert(struct flow_table *t, uint32_t hash, uint32_t conn) {
  if (t->count >= t->limit)
    return false;
  uint32_t i = hash & t->mask;
  while (t->entries[i].conn != FLOW_NONE)
    i = (i + 1) & t->mask;
  t->entries[i] = (struct flow_entry){.hash = hash, .conn = conn};
  t->count++;
  return true;
}

void flow_remove(struct flow_table *t, uint32_t hash, uint32_t conn) {
  uint32_t hole = hash & t->mask;
  while (t->entries[hole].conn != conn) {
    assert(t->entries[hole].conn != FLOW_NONE);
    hole = (hole + 1) & t->mask;
  }
  /* Move back whatever would no longer be found past the hole. */
  for (uint32_t i = (hole + 1) & t->mask; t->entries[i].conn != FLOW_NONE; i = (i + 1) & t->mask) {
    uint32_t home = t->entries[i].hash & t->mask;
    if (((i - home) & t->mask) >= ((i - hole) & t->mask)) {
      t->entries[hole] = t->entries[i];
      hole = i;
    }
  }
  t->entries[hole].conn = FLOW_NONE;
  t->count--;
}
