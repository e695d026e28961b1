/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key-value server without a network: standard input is what one client
 * sends, standard output what it is replied.
 *
 *     kv-engine [BYTES PER PIECE [ROOM IN THE SINK]] < requests > replies
 */
#include "plain.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
  size_t piece = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
  size_t until_full = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
  size_t len = 0, room = 1 << 16;
  char *input = malloc(room);
  for (size_t n; input != NULL && (n = fread(input + len, 1, room - len, stdin)) > 0;) {
    len += n;
    if (len == room)
      input = realloc(input, room *= 2);
  }
  if (input == NULL)
    return 1;
  struct kv *kv = plain_kv(64 << 20);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  kv->now_ms = (int64_t)now.tv_sec * 1000;
  struct plain plain;
  plain_open(&plain, kv);
  plain.until_full = until_full;
  plain.step = until_full;
  plain_feed(&plain, input, len, piece);
  fwrite(plain.out, 1, plain.out_len, stdout);
  plain_close(&plain);
  plain_kv_free(kv);
  free(input);
  return fflush(stdout) == 0 ? 0 : 1;
}
