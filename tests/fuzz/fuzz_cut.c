/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merged packets as a TAP device or a packet socket hands them up: a virtio_net_hdr and a frame, both of
 * somebody else's making. Whatever they say, each segment fits what was promised and all payload is in them
 * once.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "uring/cut.h"

enum { FRONT_MAX = 1900, FRAME_MAX = 9014 }; /* what lies in the slot's frame; what a device passes on */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct virtio_net_hdr header;
  if (size < sizeof header)
    return 0;
  memcpy(&header, data, sizeof header);
  uint32_t len = (uint32_t)(size - sizeof header), front_len = len < FRONT_MAX ? len : FRONT_MAX;
  /* Of their own lengths, so that a byte read beyond is found. */
  uint8_t *front = malloc(front_len ? front_len : 1), *segment = NULL;
  memcpy(front, data + sizeof header, front_len);
  struct cut cut = {0};
  uint32_t headers = cut_begin(&cut, &header, front, front_len);
  if (headers == 0)
    goto out;
  assert(headers <= front_len && headers <= CUT_HEADERS_MAX);
  uint32_t most = cut_most(&cut), payload = len - headers, seen = 0;
  if (most > FRAME_MAX)
    goto out;
  cut.payload = data + sizeof header + headers;
  cut.left = payload;
  segment = malloc(most);
  while (cut.left > 0) {
    uint32_t got = cut_next(&cut, segment);
    assert(got > headers && got <= most);
    assert(memcmp(segment + headers, data + sizeof header + headers + seen, got - headers) == 0);
    seen += got - headers;
  }
  assert(seen == payload);
out:
  free(segment);
  free(front);
  return 0;
}
