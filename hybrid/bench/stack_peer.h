/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generator of the stack benchmark: the far end of every connection, made of
 * nothing but arithmetic. It crafts the frames that the stack under test is given
 * and takes those that the stack sends.
 *
 *     10.0.0.2, port 20000 + i  (this file)  ---->  10.0.0.1:7  (the subject)
 *
 * Crafting happens outside the measured time. What a subject sends inside it is
 * only counted; whether the counts are the right ones is checked after the clock
 * has stopped.
 */
#ifndef HYBRID_BENCH_STACK_PEER_H
#define HYBRID_BENCH_STACK_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  PEER_CONNS_MAX = 64,
  PEER_PAYLOAD = 64,
  PEER_HEADERS = 14 + 20 + 20, /* no TCP timestamps: Debian's lwIP is built without them */
  PEER_FRAME_MAX = PEER_HEADERS + PEER_PAYLOAD,
  PEER_SERVICE = 7,
  PEER_FIRST_PORT = 20000,
  PEER_MSS = 1460,
  PEER_WINDOW_SHIFT = 7,
};

extern const uint8_t peer_mac[6];
extern const uint8_t subject_mac[6];
extern const uint8_t peer_ip[4];
extern const uint8_t subject_ip[4];

struct peer_conn {
  uint32_t snd_nxt;
  uint32_t rcv_nxt; /* what the next frame acknowledges */
  bool established; /* the subject's SYN-ACK has been seen */
};

struct peer {
  struct peer_conn conns[PEER_CONNS_MAX];
  unsigned nconns;
  bool timed; /* count frames only */
  uint64_t out_frames;
  uint64_t out_bytes;
};

void peer_init(struct peer *peer, unsigned nconns);

/* Each writes one frame and returns its length. */
size_t peer_arp_request(uint8_t frame[static PEER_FRAME_MAX]);
size_t peer_syn(struct peer *peer, unsigned conn, uint8_t frame[static PEER_FRAME_MAX]);
size_t peer_ack(struct peer *peer, unsigned conn, uint8_t frame[static PEER_FRAME_MAX]);
/*
 * The next 64 bytes of the connection's stream. With echoed, the segment after
 * it will acknowledge the reply to it: the generator needs no look at the reply
 * to know its length.
 */
size_t peer_data(struct peer *peer, unsigned conn, bool echoed, uint8_t frame[static PEER_FRAME_MAX]);

/* Outside the measured time: learns the subject's sequence numbers from its SYN-ACK. */
void peer_learn(struct peer *peer, const uint8_t *frame, size_t len_bytes);

/* A frame that the subject sends. */
static inline void peer_take(struct peer *peer, const uint8_t *frame, size_t len_bytes) {
  peer->out_frames++;
  peer->out_bytes += len_bytes;
  if (!peer->timed)
    peer_learn(peer, frame, len_bytes);
}

#endif
