/* SPDX-License-Identifier: Apache-2.0 */
/* Frames crafted byte by byte, with nothing borrowed from either stack under test; see stack_peer.h. */
#include "bench/stack_peer.h"

#include <string.h>

const uint8_t peer_mac[6] = {2, 0, 0, 0, 0, 2};
const uint8_t subject_mac[6] = {2, 0, 0, 0, 0, 1};
const uint8_t peer_ip[4] = {10, 0, 0, 2};
const uint8_t subject_ip[4] = {10, 0, 0, 1};

enum { FLAG_SYN = 0x02, FLAG_PSH = 0x08, FLAG_ACK = 0x10 };
enum { ETH = 0, IP = 14, TCP = 34 };

static void put16(uint8_t *at, uint16_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
  put16(at, (uint16_t)(value >> 16));
  put16(at + 2, (uint16_t)value);
}

static uint32_t get16(const uint8_t *at) {
  return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at) {
  return get16(at) << 16 | get16(at + 2);
}

/* RFC 1071, over whole 16-bit words and a last odd byte. */
static uint32_t sum_bytes(uint32_t sum, const uint8_t *at, size_t len) {
  for (; len > 1; at += 2, len -= 2)
    sum += get16(at);
  return len ? sum + ((uint32_t)at[0] << 8) : sum;
}

static uint16_t sum_finish(uint32_t sum) {
  while (sum >> 16)
    sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

void peer_init(struct peer *peer, unsigned nconns) {
  *peer = (struct peer){.nconns = nconns};
  for (unsigned i = 0; i < nconns; i++)
    peer->conns[i].snd_nxt = 0x10000000u + i * 0x01000000u;
}

size_t peer_arp_request(uint8_t frame[static PEER_FRAME_MAX]) {
  static const uint8_t fixed[8] = {0, 1, 8, 0, 6, 4, 0, 1}; /* Ethernet, IPv4, request: RFC 826 */
  memset(frame + ETH, 0xff, 6);
  memcpy(frame + ETH + 6, peer_mac, 6);
  put16(frame + ETH + 12, 0x0806);
  memcpy(frame + 14, fixed, sizeof fixed);
  memcpy(frame + 22, peer_mac, 6);
  memcpy(frame + 28, peer_ip, 4);
  memset(frame + 32, 0, 6);
  memcpy(frame + 38, subject_ip, 4);
  return 42;
}

static size_t craft(struct peer *peer, unsigned conn, uint8_t flags, size_t options, size_t payload,
                    uint8_t *frame) {
  const struct peer_conn *c = &peer->conns[conn];
  size_t tcp_bytes = 20 + options + payload;
  memcpy(frame + ETH, subject_mac, 6);
  memcpy(frame + ETH + 6, peer_mac, 6);
  put16(frame + ETH + 12, 0x0800);

  uint8_t *ip = frame + IP;
  memset(ip, 0, 20);
  ip[0] = 0x45;
  put16(ip + 2, (uint16_t)(20 + tcp_bytes));
  put16(ip + 6, 0x4000); /* don't fragment */
  ip[8] = 64;
  ip[9] = 6;
  memcpy(ip + 12, peer_ip, 4);
  memcpy(ip + 16, subject_ip, 4);
  put16(ip + 10, sum_finish(sum_bytes(0, ip, 20)));

  uint8_t *tcp = frame + TCP;
  put16(tcp, (uint16_t)(PEER_FIRST_PORT + conn));
  put16(tcp + 2, PEER_SERVICE);
  put32(tcp + 4, c->snd_nxt);
  put32(tcp + 8, flags & FLAG_ACK ? c->rcv_nxt : 0);
  tcp[12] = (uint8_t)((20 + options) / 4 << 4);
  tcp[13] = flags;
  put16(tcp + 14, 0xffff);
  put32(tcp + 16, 0); /* checksum, urgent pointer */
  uint32_t pseudo = sum_bytes(sum_bytes(0, peer_ip, 4), subject_ip, 4) + 6 + (uint32_t)tcp_bytes;
  put16(tcp + 16, sum_finish(sum_bytes(pseudo, tcp, tcp_bytes)));
  return IP + 20 + tcp_bytes;
}

size_t peer_syn(struct peer *peer, unsigned conn, uint8_t frame[static PEER_FRAME_MAX]) {
  uint8_t *option = frame + PEER_HEADERS;
  option[0] = 2; /* MSS */
  option[1] = 4;
  put16(option + 2, PEER_MSS);
  option[4] = 1; /* no operation, then window scale */
  option[5] = 3;
  option[6] = 3;
  option[7] = PEER_WINDOW_SHIFT;
  size_t len = craft(peer, conn, FLAG_SYN, 8, 0, frame);
  peer->conns[conn].snd_nxt++;
  return len;
}

size_t peer_ack(struct peer *peer, unsigned conn, uint8_t frame[static PEER_FRAME_MAX]) {
  return craft(peer, conn, FLAG_ACK, 0, 0, frame);
}

size_t peer_data(struct peer *peer, unsigned conn, bool echoed, uint8_t frame[static PEER_FRAME_MAX]) {
  struct peer_conn *c = &peer->conns[conn];
  memset(frame + PEER_HEADERS, (int)('a' + conn % 26), PEER_PAYLOAD);
  size_t len = craft(peer, conn, FLAG_ACK | FLAG_PSH, 0, PEER_PAYLOAD, frame);
  c->snd_nxt += PEER_PAYLOAD;
  if (echoed)
    c->rcv_nxt += PEER_PAYLOAD;
  return len;
}

void peer_learn(struct peer *peer, const uint8_t *frame, size_t len) {
  if (len < PEER_HEADERS || get16(frame + ETH + 12) != 0x0800 || frame[IP] != 0x45 || frame[IP + 9] != 6)
    return;
  const uint8_t *tcp = frame + TCP;
  unsigned conn = get16(tcp + 2) - PEER_FIRST_PORT; /* wraps, and then is too large, for a lower port */
  if (conn >= peer->nconns || (tcp[13] & (FLAG_SYN | FLAG_ACK)) != (FLAG_SYN | FLAG_ACK))
    return;
  struct peer_conn *c = &peer->conns[conn];
  if (get32(tcp + 8) != c->snd_nxt)
    return;
  c->rcv_nxt = get32(tcp + 4) + 1;
  c->established = true;
}
