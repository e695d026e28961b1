/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet checksum (RFC 1071), over memory in native order: the sum is
 * independent of byte order and, but for its carries, of the width of the words,
 * so eight bytes are added at a time as they lie and the folded result is stored
 * as it is.
 */
#ifndef HYBRID_TCP_CSUM_H
#define HYBRID_TCP_CSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* One's complement addition of 64 bits: the carry comes back in at the bottom. */
static inline uint64_t csum_carry(uint64_t a, uint64_t b) {
  uint64_t sum = a + b;
  return sum + (sum < b);
}

/* With the carry kept in the flag, which compilers don't do by themselves. */
static inline uint64_t csum_add64(uint64_t sum, const uint8_t *p) {
#if defined(__x86_64__)
  __asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq 16(%1), %0\n\tadcq 24(%1), %0\n\t"
          "adcq 32(%1), %0\n\tadcq 40(%1), %0\n\tadcq 48(%1), %0\n\tadcq 56(%1), %0\n\tadcq $0, %0"
          : "+r"(sum)
          : "r"(p), "m"(*(const uint8_t(*)[64])p)
          : "cc");
  return sum;
#else
  uint64_t w[8];
  memcpy(w, p, 64);
  for (int i = 0; i < 8; i++)
    sum = csum_carry(sum, w[i]);
  return sum;
#endif
}

static inline uint64_t csum_add32(uint64_t sum, const uint8_t *p) {
#if defined(__x86_64__)
  __asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq 16(%1), %0\n\tadcq 24(%1), %0\n\tadcq $0, %0"
          : "+r"(sum)
          : "r"(p), "m"(*(const uint8_t(*)[32])p)
          : "cc");
  return sum;
#else
  uint64_t w[4];
  memcpy(w, p, 32);
  for (int i = 0; i < 4; i++)
    sum = csum_carry(sum, w[i]);
  return sum;
#endif
}

/* Adds len bytes to a sum. */
static inline uint64_t csum_add(uint64_t sum, const uint8_t *p, size_t len) {
  for (const uint8_t *end = p + (len & ~(size_t)63); p != end; p += 64)
    sum = csum_add64(sum, p);
  if (len & 32) {
    sum = csum_add32(sum, p);
    p += 32;
  }
  uint64_t w;
  if (len & 16) {
    uint64_t both[2];
    memcpy(both, p, 16);
    sum = csum_carry(csum_carry(sum, both[0]), both[1]);
    p += 16;
  }
  if (len & 8) {
    memcpy(&w, p, 8);
    sum = csum_carry(sum, w);
    p += 8;
  }
  size_t left = len & 7;
  if (left == 0)
    return sum;
  if (__builtin_expect(len >= 8, 1)) { /* the last eight bytes, less those that have been added */
    memcpy(&w, p + left - 8, 8);
    w >>= 64 - 8 * left;
  } else {
    w = 0;
    memcpy(&w, p, left);
  }
  return csum_carry(sum, w);
}

/* The 20 bytes of an IPv4 header without options. */
static inline uint64_t csum_ip4(const uint8_t *p) {
  uint64_t a, b;
  uint32_t c;
  memcpy(&a, p, 8);
  memcpy(&b, p + 8, 8);
  memcpy(&c, p + 16, 4);
  return csum_carry(csum_carry(a, b), c);
}

/* 32 bits that will be stored in network byte order: billions of them fit into a sum without a carry. */
static inline uint64_t csum_word(uint32_t v) {
  return __builtin_bswap32(v);
}

/* The complement of the folded sum, ready to be stored in native order. */
static inline uint16_t csum_fold(uint64_t sum) {
  /* Both halves added to each other: the upper one then has the carry of the lower. */
  uint32_t half = (uint32_t)((sum + (sum >> 32 | sum << 32)) >> 32);
  return (uint16_t) ~((half + (half >> 16 | half << 16)) >> 16);
}

/* Protocol and length of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1). */
static inline uint64_t csum_protocol(uint8_t proto, uint32_t l4_len) {
  return (uint64_t)__builtin_bswap32(l4_len) + __builtin_bswap32((uint32_t)proto);
}

/* The pseudo-header of two IPv4 addresses as they lie in an IP header, source first. */
static inline uint64_t csum_pseudo4(const uint8_t *addresses, uint8_t proto, uint32_t l4_len) {
  uint64_t both;
  memcpy(&both, addresses, 8);
  return csum_carry(both, csum_protocol(proto, l4_len));
}

/* The same of two IPv6 addresses. */
static inline uint64_t csum_pseudo6(const uint8_t *addresses, uint8_t proto, uint32_t l4_len) {
  return csum_add32(csum_protocol(proto, l4_len), addresses);
}

#endif
