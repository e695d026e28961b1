/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as they lie in hy_addr: 16 bytes, IPv4 mapped into IPv6. */
#ifndef HYBRID_CORE_ADDR_H
#define HYBRID_CORE_ADDR_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/hybrid.h"

/* The first 12 bytes of an IPv4-mapped IPv6 address. */
static inline void ip_map4(uint8_t out[16], const uint8_t ip4[4]) {
  uint32_t ip;
  memcpy(&ip, ip4, 4);
  /* In whole words, as they will be read again. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  uint64_t words[2] = {0, (uint64_t)ip << 32 | 0xffff0000u};
#else
  uint64_t words[2] = {0, 0xffffull << 32 | ip};
#endif
  memcpy(out, words, 16);
}
static inline bool ip_is_4(const uint8_t ip[16]) {
  uint64_t hi;
  uint32_t word;
  memcpy(&hi, ip, 8);
  memcpy(&word, ip + 8, 4);
  return hi == 0 && word == htobe32(0xffff);
}
static inline bool ip_is_zero(const uint8_t ip[16]) {
  uint64_t w[2];
  uint32_t word;
  memcpy(w, ip, 16);
  memcpy(&word, ip + 12, 4);
  return w[1] == 0 ? w[0] == 0 : ip_is_4(ip) && word == 0;
}
static inline bool ip_is_multicast(const uint8_t ip[16]) {
  return ip_is_4(ip) ? (ip[12] & 0xf0) == 0xe0 : ip[0] == 0xff;
}
static inline bool ip_equal(const uint8_t a[16], const uint8_t b[16]) {
  uint64_t x[2], y[2];
  memcpy(x, a, 16);
  memcpy(y, b, 16);
  return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}

/* Every address of a family, and an ephemeral port: what a socket is bound to that was not told to be. */
static inline hy_addr addr_any(uint8_t family) {
  hy_addr any = {.family = family};
  if (family == 4)
    ip_map4(any.ip, any.ip);
  return any;
}

#endif
