/* SPDX-License-Identifier: Apache-2.0 */
/* UDP (RFC 768): datagram sockets, each with a bounded queue of frames. */
#ifndef HYBRID_TCP_UDP_H
#define HYBRID_TCP_UDP_H

#include "tcp/stack.h"

#define UDP_NONE UINT32_MAX
#define UDP_QUEUE_FRAMES 256 /* datagrams that wait to be read, per socket */

struct udp_socket {
  uint32_t queue;               /* QUEUE_NONE: free */
  uint32_t next;                /* same port (index + 1), or free list */
  uint32_t head, tail, waiting; /* received frames */
  uint32_t ready;               /* pops completed and not handed out */
  hy_addr local;
  hy_addr peer; /* hy_connect: the only one heard and the default to send to; family 0: none */
};

bool udp_port_taken(const struct stack *st, const hy_addr *local);
int udp_open(struct stack *st, struct queue *q, const hy_addr *local);
void udp_close(struct stack *st, struct queue *q);
int udp_push(struct stack *st, struct queue *q, const hy_sga *sga, const hy_addr *peer, uint32_t token,
             bool give);
void udp_wake(struct stack *st, struct queue *q);
bool udp_deliver(struct stack *st, struct queue *q, hy_event *event);

#endif
