/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting a merged packet (TCP segmentation offload, UDP_SEGMENT) into the packets
 * that its sender's network card would have made of it. Sans-I/O: bytes in, bytes out.
 */
#ifndef HYBRID_URING_CUT_H
#define HYBRID_URING_CUT_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>

enum { CUT_HEADERS_MAX = 14 + 60 + 60 };

struct cut {
  const uint8_t *payload; /* what is left of it */
  uint32_t left;
  uint32_t seq; /* TCP: of the next segment */
  uint16_t size;
  uint16_t l4; /* offset of the transport header */
  uint16_t headers_len;
  uint8_t flags; /* TCP: of the whole */
  bool tcp, is4, first;
  uint8_t headers[CUT_HEADERS_MAX];
};

/*
 * `front` holds the headers and perhaps the first bytes of payload, front_len of them; the caller has
 * made the payload contiguous and sets cut->payload and cut->left. Returns the headers' length, or 0:
 * nothing that can be cut.
 */
uint32_t cut_begin(struct cut *cut, const struct virtio_net_hdr *header, const uint8_t *front,
                   uint32_t front_len);
/* Length of the longest segment. */
static inline uint32_t cut_most(const struct cut *cut) {
  return cut->headers_len + (uint32_t)cut->size;
}
/* Writes the next segment, whose transport checksum is left for the reader to trust; its length. */
uint32_t cut_next(struct cut *cut, uint8_t *to);

#endif
