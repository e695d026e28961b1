/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet checksum (RFC 1071), over memory in native order: the sum is
 * independent of byte order, so words are added as they lie and the folded
 * result is stored as it is.
 */
#ifndef HYBRID_TCP_CSUM_H
#define HYBRID_TCP_CSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Adds len bytes to sum. Sums stay far below 2^64: 64 KiB of 32-bit words add 2^46. */
static inline uint64_t csum_add(uint64_t sum, const uint8_t *p, size_t len) {
  uint64_t a = 0, b = 0;
  while (len >= 16) {
    uint64_t w[2];
    memcpy(w, p, 16);
    a += (w[0] & 0xffffffffu) + (w[0] >> 32);
    b += (w[1] & 0xffffffffu) + (w[1] >> 32);
    p += 16;
    len -= 16;
  }
  sum += a + b;
  while (len >= 4) {
    uint32_t w;
    memcpy(&w, p, 4);
    sum += w;
    p += 4;
    len -= 4;
  }
  if (len >= 2) {
    uint16_t w;
    memcpy(&w, p, 2);
    sum += w;
    p += 2;
    len -= 2;
  }
  if (len) {
    uint16_t w = 0;
    memcpy(&w, p, 1);
    sum += w;
  }
  return sum;
}

/* The complement of the folded sum, ready to be stored in native order. */
static inline uint16_t csum_fold(uint64_t sum) {
  sum = (sum & 0xffffffffu) + (sum >> 32);
  sum = (sum & 0xffffffffu) + (sum >> 32);
  uint32_t s = (uint32_t)sum;
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  return (uint16_t)~s;
}

/* Addresses, protocol and length of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1). */
static inline uint64_t csum_pseudo(const uint8_t *src, const uint8_t *dst, size_t addr_len, uint8_t proto,
                                   uint32_t l4_len) {
  uint64_t sum = csum_add(0, src, addr_len);
  sum = csum_add(sum, dst, addr_len);
  return sum + __builtin_bswap32(l4_len) + __builtin_bswap32((uint32_t)proto);
}

#endif
