/* SPDX-License-Identifier: Apache-2.0 */
/* The segments of a merged packet; see cut.h. */
#include "uring/cut.h"

#include "tcp/csum.h"
#include "tcp/wire.h"

#include <string.h>

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5 /* Linux 6.2 */
#endif

enum { FIN_PSH = TCP_FIN | TCP_PSH, CWR = 0x80 };

uint32_t cut_begin(struct cut *cut, const struct virtio_net_hdr *header, const uint8_t *front,
                   uint32_t front_len) {
  *cut = (struct cut){.size = header->gso_size, .first = true};
  unsigned type = header->gso_type & (unsigned)~VIRTIO_NET_HDR_GSO_ECN;
  if (header->gso_size == 0 || front_len < ETH_LEN + IP4_LEN)
    return 0;
  uint16_t ethertype = load16(front + 12);
  cut->is4 = ethertype == ETH_IP4;
  uint32_t ip_len = cut->is4 ? (front[ETH_LEN] & 15u) * 4 : IP6_LEN;
  if ((!cut->is4 && ethertype != ETH_IP6) || ip_len < IP4_LEN)
    return 0;
  cut->l4 = (uint16_t)(ETH_LEN + ip_len);
  cut->tcp = type == VIRTIO_NET_HDR_GSO_TCPV4 || type == VIRTIO_NET_HDR_GSO_TCPV6;
  if ((!cut->tcp && type != VIRTIO_NET_HDR_GSO_UDP_L4) ||
      front_len < cut->l4 + (cut->tcp ? (uint32_t)TCP_LEN : (uint32_t)UDP_LEN))
    return 0;
  const uint8_t *l4 = front + cut->l4;
  uint8_t proto = cut->is4 ? front[ETH_LEN + 9] : front[ETH_LEN + 6];
  if (proto != (cut->tcp ? PROTO_TCP : PROTO_UDP))
    return 0;
  uint32_t l4_len = cut->tcp ? (l4[12] >> 4) * 4u : (uint32_t)UDP_LEN;
  if ((cut->tcp && l4_len < TCP_LEN) || front_len < cut->l4 + l4_len)
    return 0;
  cut->headers_len = (uint16_t)(cut->l4 + l4_len);
  memcpy(cut->headers, front, cut->headers_len);
  if (cut->tcp) {
    cut->seq = load32(l4 + 4);
    cut->flags = l4[13];
  }
  return cut->headers_len;
}

uint32_t cut_next(struct cut *cut, uint8_t *to) {
  uint32_t payload = cut->left < cut->size ? cut->left : cut->size;
  uint32_t l4_len = cut->headers_len - cut->l4 + payload;
  uint8_t *ip = to + ETH_LEN, *l4 = to + cut->l4;
  memcpy(to, cut->headers, cut->headers_len);
  memcpy(to + cut->headers_len, cut->payload, payload);
  cut->payload += payload;
  cut->left -= payload;
  if (cut->is4) {
    uint32_t ip_len = cut->l4 - (uint32_t)ETH_LEN;
    store16(ip + 2, (uint16_t)(ip_len + l4_len));
    store16(ip + 10, 0);
    uint16_t sum = csum_fold(csum_add(0, ip, ip_len));
    memcpy(ip + 10, &sum, 2);
  } else {
    store16(ip + 4, (uint16_t)l4_len);
  }
  if (cut->tcp) {
    store32(l4 + 4, cut->seq);
    cut->seq += payload;
    l4[13] = cut->flags;
    if (cut->left > 0) /* these speak of the last byte */
      l4[13] &= (uint8_t)~FIN_PSH;
    if (!cut->first) /* RFC 3168 section 6.1.2: said once */
      l4[13] &= (uint8_t)~CWR;
  } else {
    store16(l4 + 4, (uint16_t)l4_len);
  }
  cut->first = false;
  return cut->headers_len + payload;
}
