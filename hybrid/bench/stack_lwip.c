/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peer of the stack benchmark: Debian's liblwip as it is shipped, at its best.
 *
 * Its raw API (callbacks, no thread hand-over, no sockets), frames given to
 * ethernet_input directly in preallocated PBUF_RAM buffers, its core lock taken
 * once per batch outside the measured time. Its own thread runs its timers
 * between batches. The echo copies into the send queue, as this build must
 * (LWIP_NETIF_TX_SINGLE_PBUF), and leaves sending to tcp_input, which does so
 * after the callback: an explicit tcp_output there would only be an extra call.
 */
#include "bench/bench.h"
#include "bench/stack.h"

#include <lwip/etharp.h>
#include <lwip/netif.h>
#include <lwip/pbuf.h>
#include <lwip/tcp.h>
#include <lwip/tcpip.h>
#include <netif/ethernet.h>
#include <semaphore.h>
#include <string.h>

static struct {
  struct peer *peer;
  bool echo;
  uint64_t app_bytes;
  struct netif netif;
  struct pbuf *slots[STACK_BATCH];
  sem_t started;
} lwip;

static err_t link_output(struct netif *netif, struct pbuf *p) {
  peer_take(lwip.peer, p->payload, p->tot_len);
  return ERR_OK;
}

static err_t link_init(struct netif *netif) {
  netif->name[0] = 'b';
  netif->name[1] = 'n';
  netif->mtu = 1500;
  netif->hwaddr_len = 6;
  memcpy(netif->hwaddr, subject_mac, 6);
  netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
  netif->output = etharp_output;
  netif->linkoutput = link_output;
  return ERR_OK;
}

static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t status) {
  if (!p)
    return ERR_OK;
  lwip.app_bytes += p->tot_len;
  tcp_recved(pcb, p->tot_len);
  err_t error = ERR_OK;
  if (lwip.echo)
    error = tcp_write(pcb, p->payload, p->len, TCP_WRITE_FLAG_COPY);
  pbuf_free(p);
  return error;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t status) {
  tcp_nagle_disable(pcb);
  tcp_recv(pcb, on_receive);
  return ERR_OK;
}

static void on_started(void *arg) {
  sem_post(&lwip.started);
}

static void subject_open(struct peer *peer, bool echo) {
  lwip.peer = peer;
  lwip.echo = echo;
  sem_init(&lwip.started, 0, 0);
  tcpip_init(on_started, NULL);
  sem_wait(&lwip.started);

  LOCK_TCPIP_CORE();
  ip4_addr_t address, mask, gateway;
  IP4_ADDR(&address, subject_ip[0], subject_ip[1], subject_ip[2], subject_ip[3]);
  IP4_ADDR(&mask, 255, 255, 255, 0);
  IP4_ADDR(&gateway, 0, 0, 0, 0);
  if (!netif_add(&lwip.netif, &address, &mask, &gateway, NULL, link_init, ethernet_input))
    bench_fail("lwip refused the interface");
  netif_set_default(&lwip.netif);
  netif_set_up(&lwip.netif);
  struct tcp_pcb *pcb = tcp_new();
  if (!pcb || tcp_bind(pcb, IP_ADDR_ANY, PEER_SERVICE) != ERR_OK || !(pcb = tcp_listen(pcb)))
    bench_fail("lwip cannot listen");
  tcp_accept(pcb, on_accept);
  UNLOCK_TCPIP_CORE();
}

static void subject_lock(void) {
  LOCK_TCPIP_CORE();
}

static void subject_unlock(void) {
  UNLOCK_TCPIP_CORE();
}

static void subject_load(unsigned slot, const uint8_t *frame, size_t len) {
  struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)len, PBUF_RAM);
  if (!p)
    bench_fail("lwip has no buffers left");
  memcpy(p->payload, frame, len);
  lwip.slots[slot] = p;
}

static void subject_run(unsigned n, unsigned burst) {
  for (unsigned i = 0; i < n; i++)
    lwip.netif.input(lwip.slots[i], &lwip.netif);
}

static void subject_settle(unsigned n) {
  subject_run(n, 1);
}

static err_t nobody(struct pbuf *p, struct netif *netif) {
  return ERR_OK;
}

static void subject_empty(unsigned n, unsigned burst) {
  static err_t (*volatile input)(struct pbuf *, struct netif *) = nobody;
  for (unsigned i = 0; i < n; i++)
    input(lwip.slots[i], &lwip.netif);
}

static uint64_t subject_app_bytes(void) {
  return lwip.app_bytes;
}

const struct stack_subject stack_subject = {
    .name = "lwip",
    .open = subject_open,
    .lock = subject_lock,
    .unlock = subject_unlock,
    .load = subject_load,
    .settle = subject_settle,
    .empty = subject_empty,
    .run = subject_run,
    .app_bytes = subject_app_bytes,
};
