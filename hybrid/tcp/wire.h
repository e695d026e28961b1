/* SPDX-License-Identifier: Apache-2.0 */
/* Wire formats: field offsets, loads and stores in network byte order, sequence arithmetic. */
#ifndef HYBRID_TCP_WIRE_H
#define HYBRID_TCP_WIRE_H

#include "core/addr.h"

static inline uint16_t load16(const uint8_t *p) {
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return __builtin_bswap16(v);
}
static inline uint32_t load32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return __builtin_bswap32(v);
}
static inline void store16(uint8_t *p, uint16_t v) {
  v = __builtin_bswap16(v);
  memcpy(p, &v, sizeof v);
}
static inline void store32(uint8_t *p, uint32_t v) {
  v = __builtin_bswap32(v);
  memcpy(p, &v, sizeof v);
}

/* Sequence numbers, modulo 2^32 (RFC 9293 section 3.4). */
static inline bool seq_lt(uint32_t a, uint32_t b) {
  return (int32_t)(a - b) < 0;
}
static inline bool seq_leq(uint32_t a, uint32_t b) {
  return (int32_t)(a - b) <= 0;
}
static inline bool seq_gt(uint32_t a, uint32_t b) {
  return (int32_t)(a - b) > 0;
}
static inline bool seq_geq(uint32_t a, uint32_t b) {
  return (int32_t)(a - b) >= 0;
}

enum {
  ETH_LEN = 14,
  ETH_ARP = 0x0806,
  ETH_IP4 = 0x0800,
  ETH_IP6 = 0x86dd,
  ETH_VLAN = 0x8100,
  ETH_QINQ = 0x88a8,

  IP4_LEN = 20,
  IP6_LEN = 40,
  PROTO_HOPOPTS = 0,
  PROTO_ICMP = 1,
  PROTO_TCP = 6,
  PROTO_UDP = 17,
  PROTO_ROUTING = 43,
  PROTO_FRAGMENT = 44,
  PROTO_ICMP6 = 58,
  PROTO_NONE = 59,
  PROTO_DSTOPTS = 60,

  UDP_LEN = 8,
  TCP_LEN = 20,
  TCP_FIN = 0x01,
  TCP_SYN = 0x02,
  TCP_RST = 0x04,
  TCP_PSH = 0x08,
  TCP_ACK = 0x10,
  TCP_URG = 0x20,

  TCPOPT_END = 0,
  TCPOPT_NOP = 1,
  TCPOPT_MSS = 2,
  TCPOPT_WSCALE = 3,
  TCPOPT_SACK_OK = 4,
  TCPOPT_SACK = 5,
  TCPOPT_TS = 8,
  TCP_TS_LEN = 12, /* nop nop timestamps: the only layout that senders use in practice */
};

/* nop, nop, kind 8, length 10: RFC 7323 appendix A's recommended layout, as one word to compare. */
#define TCP_TS_WORD 0x0101080au

#endif
