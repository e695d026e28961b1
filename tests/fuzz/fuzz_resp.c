/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes to the key-value server's session. The first two bytes choose how the
 * rest is cut and how often the sink is full; neither may change the replies, and
 * when the connection is gone, nothing of it is left in memory.
 */
#include "plain.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The replies to `data`, malloc'ed; *status how the session ended. */
static uint8_t *replies(const uint8_t *data, size_t size, size_t piece, size_t until_full, size_t *len,
                        enum session_status *status) {
  static struct kv *kv;
  if (kv == NULL)
    kv = plain_kv(4 << 20);
  else
    store_flush(&kv->store);
  kv->next_id = 0;
  kv->accepted = kv->commands = kv->hits = kv->misses = 0;
  struct plain p;
  plain_open(&p, kv);
  p.until_full = p.step = until_full;
  plain_feed(&p, data, size, piece);
  uint8_t *out = p.out;
  *len = p.out_len;
  *status = p.status;
  p.out = NULL;
  plain_close(&p);
  store_flush(&kv->store);
  /* A slab of each class may stay, and nothing else. */
  if (kv->clients != 0 || memory_used_bytes(&kv->memory) > MEMORY_CLASSES * MEMORY_SLAB_PAGES * MEMORY_PAGE)
    abort();
  return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return -1;
  size_t len, cut_len;
  enum session_status status, cut_status;
  uint8_t *whole = replies(data + 2, size - 2, 0, 0, &len, &status);
  uint8_t *cut = replies(data + 2, size - 2, 1 + data[0] % 64, 1u + data[1], &cut_len, &cut_status);
  /* INFO tells of memory in use, which the cut may change: then only the lengths' order is the same. */
  bool told = len > 0 && memmem(whole, len, "used_memory:", 12) != NULL;
  if (status != cut_status || (!told && (len != cut_len || (len > 0 && memcmp(whole, cut, len) != 0))))
    abort();
  free(whole);
  free(cut);
  return 0;
}
