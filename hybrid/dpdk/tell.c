/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Neighbours' answers for all shards of a port. Each shard asks for a neighbour itself, but the answer (ARP,
 * or a neighbour advertisement) arrives at whatever queue the NIC puts it on. So whoever receives one hands a
 * copy to the others: an mbuf of its own pool, which they copy and give back as they do with any that isn't
 * theirs.
 */
#include "dpdk/device.h"

#include <string.h>

enum { ARP_AT = 14, ARP_END = 42, IP6_NEXT = 20, ND_TYPE = 54, NEIGHBOUR_ADVERT = 136, ARP_REPLY = 2 };

static bool answers(const uint8_t *frame, uint32_t len) {
  if (len < ARP_END)
    return false;
  if (frame[12] == 0x08 && frame[13] == 0x06)
    return frame[ARP_AT + 7] == ARP_REPLY;
  return frame[12] == 0x86 && frame[13] == 0xdd && len > ND_TYPE && frame[IP6_NEXT] == 58 &&
         frame[ND_TYPE] == NEIGHBOUR_ADVERT;
}

static void tell(struct dpdk *x, struct dpdk *to, const uint8_t *frame, uint32_t len) {
  uint32_t index = frame_alloc(x->dev.arena);
  if (index == FRAME_NONE)
    return; /* they ask again */
  struct rte_mbuf *m = pool_mbuf(x->pool, index);
  m->data_off = RTE_PKTMBUF_HEADROOM;
  m->data_len = (uint16_t)len;
  m->pkt_len = len;
  m->ol_flags = 0;
  memcpy(rte_pktmbuf_mtod(m, void *), frame, len);
  x->pool->ledger[index] = (uint8_t)(x->port->slot + 1);
  if (rte_ring_enqueue(to->told, m) < 0)
    dpdk_free(&m, 1);
}

void tell_others(struct dpdk *x, const struct rte_mbuf *m) {
  const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
  if (!answers(frame, m->data_len))
    return;
  for (uint16_t q = 0; q < x->port->queues; q++)
    if (q != x->queue)
      tell(x, x->port->devices[q], frame, m->data_len);
}

unsigned told(struct dpdk *x, struct rte_mbuf **mbufs, unsigned max) {
  return rte_ring_dequeue_burst(x->told, (void **)mbufs, max, NULL);
}

void tell_nobody(struct dpdk *x) {
  struct rte_mbuf *m;
  while (x->told != NULL && told(x, &m, 1) == 1)
    dpdk_free(&m, 1);
}
