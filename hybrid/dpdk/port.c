/* SPDX-License-Identifier: Apache-2.0 */
/* Ports: found or probed, started when their queues are complete, closed as a whole. port.h has the states.
 */
#include "dpdk/device.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_version.h>

enum { PORT_DESC = 512, AGAIN_MAX = 40, AGAIN_NS = 10000000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct port ports[PORTS_MAX];

static const struct driver drivers[] = {
    /* 22.11: fills its ring whatever is asked for; the kernel leaves XDP_PACKET_HEADROOM as well. */
    {.name = "net_af_xdp", .desc = 2048, .keeps = 2048, .headroom = 256, .forgets = true},
    /* Its descriptors are the pieces that one packet may be read into. */
    {.name = "net_tap", .desc = 16},
    {.name = "net_memif", .desc = PORT_DESC, .gated = true},
};

void ports_lock(void) {
  pthread_mutex_lock(&lock);
}

void ports_unlock(void) {
  pthread_mutex_unlock(&lock);
}

/* ---- finding ------------------------------------------------------------------------------------ */

/* "net_memif0,role=server" -> "net_memif0" */
static int name_of(const char *devargs, char name[HY_DPDK_NAME_BYTES]) {
  size_t n = strcspn(devargs, ",");
  if (n == 0 || n >= HY_DPDK_NAME_BYTES)
    return -EINVAL;
  memcpy(name, devargs, n);
  name[n] = '\0';
  return 0;
}

/* What is probed already is found by its name; everything else is what rte_dev_probe makes of it. */
int probe(const char *devargs, uint16_t *id) {
  char name[HY_DPDK_NAME_BYTES];
  if (name_of(devargs, name) < 0)
    return -EINVAL;
  if (rte_eth_dev_get_port_by_name(name, id) == 0)
    return 0;
  int rc = rte_dev_probe(devargs);
  if (rc < 0)
    return rc;
  struct rte_dev_iterator iterator;
  uint16_t found = PORT_NONE, each;
  if (rte_eth_dev_get_port_by_name(name, id) == 0)
    return 0;
  RTE_ETH_FOREACH_MATCHING_DEV(each, devargs, &iterator) {
    if (found == PORT_NONE)
      found = each;
  }
  *id = found;
  return found == PORT_NONE ? -ENODEV : 0;
}

void unprobe(uint16_t id) {
  struct rte_eth_dev_info info;
  struct rte_device *device = rte_eth_dev_info_get(id, &info) == 0 ? info.device : NULL;
  rte_eth_dev_stop(id);
  rte_eth_dev_close(id);
  if (device != NULL)
    rte_dev_remove(device);
}

static int on_removal(uint16_t id, enum rte_eth_event_type event, void *arg, void *result) {
  struct port *port = arg;
  atomic_store(&port->gone, true);
  return 0;
}

struct find {
  struct port *port;
  const char *devargs;
  char *detail;
};

static int find_job(void *arg) {
  const struct find *find = arg;
  struct port *port = find->port;
  int rc = strncmp(find->devargs, "ring:", 5) == 0 ? wires_open(find->devargs + 5, port, find->detail)
                                                   : probe(find->devargs, &port->id);
  if (rc < 0)
    return rc;
  rc = rte_eth_dev_info_get(port->id, &port->info);
  if (rc == 0)
    rc = rte_eth_macaddr_get(port->id, &port->mac);
  if (rc < 0)
    return rc;
  if (port->wires != NULL) /* net_ring has none */
    port->mac = (struct rte_ether_addr){{0x02, 'h', 'y', 'r', port->slot, (uint8_t)port->end}};
  rte_eth_dev_callback_register(port->id, RTE_ETH_EVENT_INTR_RMV, on_removal, port);
  for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++)
    if (strcmp(port->info.driver_name, drivers[i].name) == 0)
      port->driver = &drivers[i];
  return 0;
}

/* Highest priority first; equal ones stay in the order given. */
static int rules_copy(struct port *port, const hy_dpdk_config *config) {
  if (config->nrules == 0)
    return 0;
  port->rules = calloc(config->nrules, sizeof *port->rules);
  if (port->rules == NULL)
    return -ENOMEM;
  for (uint32_t i = 0; i < config->nrules; i++) {
    uint32_t at = i;
    while (at > 0 && port->rules[at - 1].priority < config->rules[i].priority) {
      port->rules[at] = port->rules[at - 1];
      at--;
    }
    port->rules[at] = config->rules[i];
  }
  port->nrules = config->nrules;
  return 0;
}

static uint16_t least(uint16_t a, uint16_t b) {
  return a < b ? a : b;
}

static void choose_descriptors(struct port *port, const hy_dpdk_config *config) {
  uint16_t usual = port->driver != NULL && port->driver->desc != 0 ? port->driver->desc : PORT_DESC;
  port->rx_desc = config->rx_desc ? config->rx_desc : usual;
  port->tx_desc = config->tx_desc ? config->tx_desc : usual;
  rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &port->rx_desc, &port->tx_desc);
}

static int explain_port(char *detail, const char *devargs, int rc) {
  if (eal_broken())
    return eal_explain_broken(detail);
  if (detail[0] != '\0')
    return rc;
  char said[DPDK_DETAIL_BYTES];
  eal_said(said);
  return dpdk_fail(detail, rc == -ENOMEM || rc == -EBUSY ? rc : -ENODEV,
                   "DPDK has no port %.80s (%s): check the name, its arguments, and that the package of its "
                   "driver is installed (librte-net-...)",
                   devargs, said);
}

static struct port *port_named(const char *name) {
  for (unsigned i = 0; i < PORTS_MAX; i++)
    if (atomic_load(&ports[i].state) != PORT_FREE && strcmp(ports[i].name, name) == 0)
      return &ports[i];
  return NULL;
}

static struct port *port_unused(void) {
  for (unsigned i = 0; i < PORTS_MAX; i++)
    if (atomic_load(&ports[i].state) == PORT_FREE)
      return &ports[i];
  return NULL;
}

static int port_reset(struct port *port, const char *name, uint16_t queues) {
  memset(port, 0, sizeof *port);
  snprintf(port->name, sizeof port->name, "%s", name);
  port->slot = (uint8_t)(port - ports);
  port->queues = queues;
  port->id = port->tap = PORT_NONE;
  port->netns_socket = -1;
  return 0;
}

static int port_take(const hy_dpdk_config *config, const char *name, uint16_t queues, struct port **out,
                     char *detail) {
  struct port *port = port_unused();
  if (port == NULL)
    return dpdk_fail(detail, -ENOSPC, "the process has %d DPDK ports already: close one", PORTS_MAX);
  port_reset(port, name, queues);
  eal_hush();
  port->steered =
      strstr(config->port, "xdp_prog=") != NULL || strstr(config->port, "use_pinned_map=1") != NULL;
  struct find find = {.port = port, .devargs = config->port, .detail = detail};
  int rc = eal_run(find_job, &find);
  if (rc < 0)
    return explain_port(detail, config->port, rc);
  atomic_store(&port->state, PORT_GATHERING);
  *out = port;
  if (queues > port->info.max_rx_queues || queues > port->info.max_tx_queues)
    rc = dpdk_fail(detail, -EINVAL,
                   "%s has at most %u queues: ask for no more, or give it more in its arguments", name,
                   least(port->info.max_rx_queues, port->info.max_tx_queues));
  else if (rules_copy(port, config) < 0)
    rc = dpdk_fail(detail, -ENOMEM, "out of memory");
  if (rc < 0) {
    port_drop_unused(port);
    return rc;
  }
  choose_descriptors(port, config);
  if (port->info.if_index != 0)
    port->netns_socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  return 0;
}

int port_get(const hy_dpdk_config *config, struct port **out, char *detail) {
  uint16_t queues = config->queues ? config->queues : 1;
  char name[HY_DPDK_NAME_BYTES];
  if (queues > PORT_QUEUES_MAX || config->queue >= queues)
    return dpdk_fail(detail, -EINVAL, "queue %u of %u: a port has 1 to %d queues, counted from 0",
                     config->queue, queues, PORT_QUEUES_MAX);
  if (name_of(config->port, name) < 0)
    return dpdk_fail(detail, -EINVAL,
                     "a DPDK port's name has 1 to %d characters, then its arguments after a comma",
                     HY_DPDK_NAME_BYTES - 1);
  if (strncmp(name, "ring:", 5) == 0) { /* each attach of it is another port: NAME/0 and NAME/1 */
    size_t n = strlen(name);
    if (n + 2 >= sizeof name || queues > 1)
      return dpdk_fail(detail, -EINVAL, "a ring has one queue and a name of at most %d characters",
                       HY_DPDK_NAME_BYTES - 8);
    memcpy(name + n, "/0", 3);
    if (port_named(name) != NULL)
      name[n + 1] = '1';
  }
  struct port *port = port_named(name);
  if (port == NULL)
    return port_take(config, name, queues, out, detail);
  int state = atomic_load(&port->state);
  if (state == PORT_STOPPING || state == PORT_CLOSED)
    return dpdk_fail(detail, -EBUSY,
                     "%s is being closed, and a shard still has a queue of it: try again when it has "
                     "noticed",
                     name);
  if (state == PORT_RUNNING || port->devices[config->queue] != NULL)
    return dpdk_fail(detail, -EBUSY, "queue %u of %s belongs to a shard already: take another, or close that",
                     config->queue, name);
  if (port->queues != queues)
    return dpdk_fail(detail, -EINVAL, "%s was first attached with %u queues: say the same each time", name,
                     port->queues);
  *out = port;
  return 0;
}

/* ---- starting ------------------------------------------------------------------------------------ */

struct start {
  struct port *port;
  const hy_dpdk_config *config;
  char *detail;
};

static struct pool *pool_of(const struct port *port, uint16_t queue) {
  return port->devices[queue]->pool;
}

enum { TX_CHECKSUMS = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM };

bool port_sends_checksums(const struct port *port) {
  return (port->info.tx_offload_capa & TX_CHECKSUMS) == TX_CHECKSUMS;
}

static int configure(struct port *port, const hy_dpdk_config *config, bool interrupt) {
  struct rte_eth_conf conf = {0};
  bool checksum = config->checksum != HY_REQUEST_NO;
  const uint64_t rx =
      RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
  port->rx_offloads = checksum ? port->info.rx_offload_capa & rx : 0;
  port->tx_offloads = checksum && port_sends_checksums(port) ? TX_CHECKSUMS : 0;
  port->rss = port->queues > 1
                  ? port->info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP)
                  : 0;
  conf.rxmode.offloads = port->rx_offloads;
  conf.txmode.offloads = port->tx_offloads;
  if (port->rss != 0) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf = port->rss;
  }
  conf.intr_conf.rxq = interrupt;
  port->interrupt = interrupt;
  return rte_eth_dev_configure(port->id, port->queues, port->queues, &conf);
}

static int set_up_queues(struct port *port) {
  int rc = 0;
  for (uint16_t q = 0; q < port->queues && rc == 0; q++) {
    struct rte_eth_rxconf rx = port->info.default_rxconf;
    rx.offloads = port->rx_offloads;
    rc = rte_eth_rx_queue_setup(port->id, q, port->rx_desc, (unsigned)SOCKET_ID_ANY, &rx,
                                pool_of(port, q)->mempool);
    struct rte_eth_txconf tx = port->info.default_txconf;
    tx.offloads = port->tx_offloads;
    if (rc == 0)
      rc = rte_eth_tx_queue_setup(port->id, q, port->tx_desc, (unsigned)SOCKET_ID_ANY, &tx);
  }
  return rc;
}

static int start_once(const struct start *start, bool interrupt) {
  struct port *port = start->port;
  int rc = configure(port, start->config, interrupt);
  if (rc == 0 && start->config->mtu_bytes != 0)
    rc = rte_eth_dev_set_mtu(port->id, start->config->mtu_bytes);
  if (rc == 0)
    rc = set_up_queues(port);
  if (strcmp(port->info.driver_name, "net_tap") == 0)
    tap_quieten();
  return rc == 0 ? rte_eth_dev_start(port->id) : rc;
}

/*
 * After an AF_XDP socket was closed its queue is busy until a kernel worker has run, and a net_af_xdp port
 * that failed to start is good for nothing more: it is probed again, for as long as that may take.
 */
static int start_patiently(const struct start *start, bool *interrupt) {
  struct port *port = start->port;
  if (port->driver == NULL || !port->driver->forgets)
    return start_once(start, *interrupt);
  *interrupt = false;
  umems_of(port);
  int rc = start_once(start, false);
  for (unsigned i = 0; rc < 0 && i < AGAIN_MAX; i++) {
    unprobe(port->id);
    umems_delete(port);
    nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS}, NULL);
    eal_hush();
    rc = probe(start->config->port, &port->id);
    if (rc < 0)
      return rc;
    rc = start_once(start, false);
  }
  return rc;
}

static int start_job(void *arg) {
  const struct start *start = arg;
  struct port *port = start->port;
  bool want = start->config->interrupt != HY_REQUEST_NO;
  int rc = 0;
  if (start->config->flow && start->config->exception == NULL)
    rc = flows_isolate(port, start->detail);
  if (rc < 0)
    return rc;
  rc = start_patiently(start, &want);
  if (rc < 0 && want && rc != -ENOMEM) { /* some drivers refuse what they can't do instead of ignoring it */
    rte_eth_dev_stop(port->id);
    rc = start_once(start, false);
  }
  if (rc < 0)
    return rc;
  rte_eth_promiscuous_disable(port->id); /* a driver without the notion has no such mode to leave */
  rte_eth_dev_get_mtu(port->id, &port->mtu_bytes);
  if (start->config->flow)
    rc = flows_install(port, start->detail);
  if (rc == 0 && start->config->exception != NULL)
    rc = tap_open(port, start->config->exception, start->detail);
  return rc;
}

static int close_job(void *arg) {
  struct port *port = arg;
  if (port->tap != PORT_NONE)
    unprobe(port->tap);
  rte_eth_dev_callback_unregister(port->id, RTE_ETH_EVENT_INTR_RMV, on_removal, port);
  if (port->wires != NULL)
    wires_close(port);
  else
    unprobe(port->id);
  umems_delete(port);
  return 0;
}

/* Nobody is in a burst any more when this returns, and nobody enters one. */
static void port_stop(struct port *port) {
  atomic_store(&port->state, PORT_STOPPING);
  for (uint16_t q = 0; q < port->queues; q++) {
    struct dpdk *x = port->devices[q];
    while (x != NULL && x->gate != NULL && atomic_load(&x->gate->busy) && !eal_broken())
      sched_yield();
  }
}

static void port_close(struct port *port) {
  if (atomic_load(&port->state) == PORT_CLOSED)
    return;
  port_stop(port);
  for (uint16_t q = 0; q < port->queues; q++)
    if (port->devices[q] != NULL)
      tell_nobody(port->devices[q]);
  eal_run(close_job, port); /* where DPDK has given up it is left alone */
  if (port->netns_socket >= 0)
    close(port->netns_socket);
  port->netns_socket = -1;
  free(port->rules);
  port->rules = NULL;
  atomic_store(&port->state, PORT_CLOSED);
}

int port_join(struct port *port, const hy_dpdk_config *config, uint16_t queue, struct dpdk *dev,
              char *detail) {
  port->devices[queue] = dev;
  port->attached++;
  if (port->attached < port->queues)
    return 0;
  eal_hush();
  struct start start = {.port = port, .config = config, .detail = detail};
  int rc = eal_run(start_job, &start);
  if (rc == 0) {
    atomic_store(&port->state, PORT_RUNNING);
    return 0;
  }
  rc = explain_port(detail, config->port, rc);
  port_leave(port, queue);
  return rc;
}

void port_leave(struct port *port, uint16_t queue) {
  port_close(port);
  port->devices[queue] = NULL;
  if (--port->attached == 0)
    atomic_store(&port->state, PORT_FREE);
}

void port_drop_unused(struct port *port) {
  int state = atomic_load(&port->state);
  if (state == PORT_FREE || port->attached > 0)
    return;
  port_close(port);
  atomic_store(&port->state, PORT_FREE);
}

/* ---- asking ----------------------------------------------------------------------------------------- */

int port_health(const struct port *port) {
  int state = atomic_load(&port->state);
  if (state == PORT_STOPPING || state == PORT_CLOSED)
    return -ENETDOWN;
  if (atomic_load(&port->gone))
    return -ENODEV;
  if (port->netns_socket < 0)
    return 0;
  struct ifreq request = {.ifr_ifindex = (int)port->info.if_index};
  return ioctl(port->netns_socket, SIOCGIFNAME, &request) < 0 && errno == ENODEV ? -ENODEV : 0;
}

void port_obtained(const struct port *port, hy_dpdk_obtained *out) {
  *out = (hy_dpdk_obtained){
      .running = atomic_load(&port->state) == PORT_RUNNING,
      .kernel_ifindex = port->tap != PORT_NONE ? port->tap_ifindex : port->info.if_index,
      .mtu_bytes = port->mtu_bytes,
      .queues = port->queues,
      .rx_desc = port->rx_desc,
      .tx_desc = port->tx_desc,
      .rx_checksum = port->rx_offloads != 0,
      .tx_checksum = port->tx_offloads != 0,
      .tso = (port->info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0,
      .rss = port->rss != 0,
      .hugepages = rte_eal_has_hugepages() != 0,
      .flows = port->flows,
  };
  out->answers_arp = port->tap == PORT_NONE && !port->steered;
  memcpy(out->mac, port->mac.addr_bytes, sizeof out->mac);
  if (strcmp(port->info.driver_name, "net_tap") == 0) {
    out->mac[0] |= 2; /* it has the netdev's address, and two ends of a cable must differ */
    out->mac[5] ^= 1;
  }
  snprintf(out->name, sizeof out->name, "%s", port->name);
  snprintf(out->driver, sizeof out->driver, "%s", port->info.driver_name);
  snprintf(out->version, sizeof out->version, "%s", rte_version());
}

/* ---- the plugin ---------------------------------------------------------------------------------------- */

static int plugin_stop(const char *name) {
  ports_lock();
  struct port *port = port_named(name);
  if (port != NULL && atomic_load(&port->state) < PORT_STOPPING)
    atomic_store(&port->state,
                 PORT_STOPPING); /* the shards see it and let go, and the first of them closes it */
  ports_unlock();
  return port == NULL ? -ENOENT : 0;
}

__attribute__((visibility("default"))) const struct dpdk_plugin hybrid_dpdk_plugin = {
    .abi = DPDK_PLUGIN_ABI,
    .open = dpdk_open,
    .stop = plugin_stop,
};
