/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What EAL loads with `-d` in test_panic.py: it gives up, as DPDK's own code does, where PANIC_AT says:
 *
 *     start   rte_panic while EAL starts              exit    rte_exit there
 *     attach  rte_panic while a port is attached      burst   rte_panic in a receive burst, on the shard's
 * thread thread  rte_panic on EAL's own thread, once a port is up
 */
#include <stdlib.h>
#include <string.h>

#include <rte_alarm.h>
#include <rte_bus_vdev.h>
#include <rte_debug.h>
#include <rte_ethdev.h>

enum { SOON_US = 1000 };

static bool at(const char *where) {
  const char *wanted = getenv("PANIC_AT");
  return wanted != NULL && strcmp(wanted, where) == 0;
}

static uint16_t in_burst(uint16_t port, uint16_t queue, struct rte_mbuf *mbufs[], uint16_t n, uint16_t max,
                         void *arg) {
  if (n > 0)
    rte_panic("provoked in a burst\n");
  return n;
}

/* A callback can be added to a queue that is set up, and nobody tells when that is. */
static void when_up(void *arg) {
  uint16_t port = (uint16_t)(uintptr_t)arg;
  struct rte_eth_link link;
  bool up = rte_eth_link_get_nowait(port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
  if (up && at("thread"))
    rte_panic("provoked on EAL's thread\n");
  if (!up || rte_eth_add_rx_callback(port, 0, in_burst, NULL) == NULL)
    rte_eal_alarm_set(SOON_US, when_up, arg);
}

static int on_new(uint16_t port, enum rte_eth_event_type event, void *arg, void *result) {
  if (at("burst") || at("thread"))
    rte_eal_alarm_set(SOON_US, when_up, (void *)(uintptr_t)port);
  return 0;
}

/* When devices are looked for: in rte_eal_init(), and again when a port is probed. */
static void on_scan(void *arg) {
  static unsigned scans;
  if (scans++ == 0 && at("start"))
    rte_panic("provoked at the start\n");
  if (scans == 1 && at("exit"))
    rte_exit(EXIT_FAILURE, "provoked at the start\n");
  if (scans == 2 && at("attach"))
    rte_panic("provoked in an attach\n");
  if (scans == 2)
    rte_eth_dev_callback_register(RTE_ETH_ALL, RTE_ETH_EVENT_NEW, on_new, NULL);
}

__attribute__((constructor)) static void loaded(void) {
  rte_vdev_add_custom_scan(on_scan, NULL);
}
