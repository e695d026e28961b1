/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exception path: where the NIC is DPDK's whole, the host would be deaf, so a small forwarder gives it
 * back to the kernel but for what rules name. It runs with every receive burst, on the shard's own thread.
 *
 *     NIC  --rx-->  a rule says `dpdk`  -->  the stack
 *                   `drop`              -->  nowhere
 *                   else                -->  net_tap --> the kernel's interface, with the NIC's own MAC
 *     NIC  <--tx--  everything that the kernel sends there
 *
 * Both ports work on the shard's mempool, so nothing is copied on our side. The kernel has the addresses,
 * answers ARP, and stays the authority as behind any other interface.
 */
#include "dpdk/device.h"
#include "dpdk/match.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- forwarding ------------------------------------------------------------------------------------ */

static void move(struct dpdk *x, uint16_t to, struct rte_mbuf **mbufs, unsigned n) {
  unsigned sent = dpdk_send(to, x->queue, mbufs, n);
  if (sent < n) {
    x->counts.rx_dropped += n - sent;
    dpdk_free(&mbufs[sent], n - sent);
  }
}

unsigned exception_pass(struct dpdk *x, struct rte_mbuf **mbufs, unsigned n) {
  const struct port *port = x->port;
  struct rte_mbuf *away[DEVICE_BURST], *nowhere[DEVICE_BURST];
  unsigned ours = 0, passed = 0, dropped = 0;
  for (unsigned i = 0; i < n; i++) {
    uint8_t verdict = mbufs[i]->nb_segs == 1
                          ? match_frame(port->rules, port->nrules, rte_pktmbuf_mtod(mbufs[i], uint8_t *),
                                        mbufs[i]->data_len)
                          : HY_STEER_KERNEL;
    if (verdict == HY_STEER_DPDK)
      mbufs[ours++] = mbufs[i];
    else if (verdict == HY_STEER_DROP)
      nowhere[dropped++] = mbufs[i];
    else
      away[passed++] = mbufs[i];
  }
  if (dropped > 0)
    dpdk_free(nowhere, dropped);
  if (passed > 0)
    move(x, port->tap, away, passed);
  unsigned back = dpdk_receive(port->tap, x->queue, away, DEVICE_BURST);
  if (back > 0)
    move(x, port->id, away, back);
  x->counts.passed += passed + back;
  return ours;
}

/* ---- the tap ----------------------------------------------------------------------------------------- */

/* The application may have taps of its own, with signals of its own. */
static bool is_net_taps(int signal_number) {
  struct sigaction now;
  Dl_info where;
  return sigaction(signal_number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
         dladdr((void *)(uintptr_t)now.sa_sigaction, &where) != 0 && where.dli_fname != NULL &&
         strstr(where.dli_fname, "librte_net_tap") != NULL;
}

/*
 * net_tap has the kernel send the process a real-time signal for each frame, so that it need not ask an empty
 * tap. The application's threads would get these, and wake with EINTR. Without the signal net_tap asks each
 * time.
 */
void tap_quieten(void) {
  for (int fd = 3; fd < 1024; fd++) {
    char link[64], target[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    int signal_number = strcmp(target, "/dev/net/tun") == 0 ? fcntl(fd, F_GETSIG) : 0;
    if (signal_number < SIGRTMIN || !is_net_taps(signal_number))
      continue;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_ASYNC);
    struct sigaction none = {.sa_handler = SIG_DFL};
    sigaction(signal_number, &none, NULL);
  }
}

static int tap_start(struct port *port, uint16_t tap) {
  struct rte_eth_dev_info info;
  int rc = rte_eth_dev_info_get(tap, &info);
  if (rc < 0)
    return rc;
  struct rte_eth_conf conf = {0};
  rc = rte_eth_dev_configure(tap, port->queues, port->queues, &conf);
  uint16_t rx_desc = port->driver != NULL && port->driver->desc < 16 ? port->driver->desc : 16;
  for (uint16_t q = 0; q < port->queues && rc == 0; q++) {
    rc = rte_eth_rx_queue_setup(tap, q, rx_desc, (unsigned)SOCKET_ID_ANY, NULL,
                                port->devices[q]->pool->mempool);
    if (rc == 0)
      rc = rte_eth_tx_queue_setup(tap, q, rx_desc, (unsigned)SOCKET_ID_ANY, NULL);
  }
  tap_quieten();
  if (rc == 0)
    rc = rte_eth_dev_start(tap);
  if (rc == 0 && port->mtu_bytes != 0)
    rte_eth_dev_set_mtu(tap, port->mtu_bytes);
  port->tap_ifindex = info.if_index;
  return rc;
}

int tap_open(struct port *port, const char *devargs, char *detail) {
  char with_mac[512], mac[RTE_ETHER_ADDR_FMT_SIZE];
  rte_ether_format_addr(mac, sizeof mac, &port->mac);
  snprintf(with_mac, sizeof with_mac, "%s%s%s", devargs,
           strstr(devargs, "mac=") != NULL ? "" : ",mac=", strstr(devargs, "mac=") != NULL ? "" : mac);
  uint16_t tap;
  int rc = probe(with_mac, &tap);
  if (rc == 0)
    rc = tap_start(port, tap);
  if (rc < 0) {
    char said[DPDK_DETAIL_BYTES];
    return dpdk_fail(detail, rc,
                     "the exception path %.80s cannot be had (%s): it wants /dev/net/tun and "
                     "CAP_NET_ADMIN, and a name that is free",
                     devargs, eal_said(said));
  }
  port->tap = tap;
  return 0;
}
