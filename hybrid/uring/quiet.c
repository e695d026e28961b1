/* SPDX-License-Identifier: Apache-2.0 */
/* Loading and attaching quiet.bpf.c; see quiet.h. */
#include "uring/quiet.h"

#include "core/error.h"
#include "uring/quiet_layout.h"

#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "quiet.skel.h"
#pragma GCC diagnostic pop

enum { TCX_INGRESS = 46 /* BPF_TCX_INGRESS, Linux 6.6 */ };
#define PATIENCE_NS 10000000000ull /* a shard that was not polled for so long keeps nobody quiet */

static_assert((int)QUIET_FLOWS == HY_PACKET_FLOWS && (int)QUIET_ADDRS == HY_PACKET_ADDRS,
              "they hold the same");

struct quiet {
  struct quiet_bpf *bpf;
  int link; /* tcx: goes with the process; or -1 */
  struct bpf_tc_hook hook;
  struct bpf_tc_opts filter;
};

static uint64_t monotonic_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void quiet_set_flows(struct quiet *quiet, const hy_packet_flow *flows, unsigned n) {
  struct quiet_set *set = &quiet->bpf->bss->quiet_set;
  /* None while they change: what comes just then is the kernel's, not dropped. */
  __atomic_store_n(&set->nflows, 0, __ATOMIC_RELEASE);
  for (unsigned i = 0; i < n; i++)
    set->flows[i] = (struct quiet_flow){
        .port_lo = flows[i].port_lo, .port_hi = flows[i].port_hi, .protocol = flows[i].protocol};
  __atomic_store_n(&set->nflows, n, __ATOMIC_RELEASE);
}

void quiet_tick(void *quiet) {
  struct quiet *q = quiet;
  if (q->link < 0)
    __atomic_store_n(&q->bpf->bss->quiet_until_ns, monotonic_ns() + PATIENCE_NS, __ATOMIC_RELAXED);
}

/* A link where the kernel has them for tc; else a filter behind those that are there. */
static int attach(struct quiet *q, uint32_t interface) {
  int program = bpf_program__fd(q->bpf->progs.quiet_drop);
  q->link = bpf_link_create(program, (int)interface, (enum bpf_attach_type)TCX_INGRESS, NULL);
  if (q->link >= 0) {
    q->bpf->bss->quiet_until_ns = UINT64_MAX;
    return QUIET_TCX;
  }
  q->hook =
      (struct bpf_tc_hook){.sz = sizeof q->hook, .ifindex = (int)interface, .attach_point = BPF_TC_INGRESS};
  int status = bpf_tc_hook_create(&q->hook); /* the qdisc stays behind, empty: others may come to use it */
  if (status < 0 && status != -EEXIST)
    return status;
  q->filter = (struct bpf_tc_opts){.sz = sizeof q->filter, .prog_fd = program};
  quiet_tick(q);
  status = bpf_tc_attach(&q->hook, &q->filter);
  if (status < 0)
    q->filter.prog_fd = 0;
  return status < 0 ? status : QUIET_CLSACT;
}

int quiet_open(const hy_packet_config *config, int fd, struct quiet **out) {
  struct quiet *q = calloc(1, sizeof *q);
  if (q == NULL)
    return error_detail_set(-ENOMEM, "there is no memory left");
  q->link = -1;
  int status = 0;
  q->bpf = quiet_bpf__open_and_load();
  if (q->bpf == NULL) {
    status = error_detail_set(
        -errno,
        "the program that keeps the kernel quiet cannot be loaded (%s): give the process CAP_BPF "
        "and CAP_NET_ADMIN, or use addresses that the kernel does not have",
        strerror(errno));
    goto fail;
  }
  struct quiet_set *set = &q->bpf->bss->quiet_set;
  set->naddrs = config->naddrs;
  for (unsigned i = 0; i < config->naddrs; i++)
    memcpy(set->addrs[i], config->addrs[i].ip, 16);
  quiet_set_flows(q, config->flows, config->nflows);
  int take = bpf_program__fd(q->bpf->progs.quiet_take);
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &take, sizeof take) < 0) {
    status = error_detail_set(-errno, "the packet socket does not take its filter: %s", strerror(errno));
    goto fail;
  }
  status = attach(q, config->interface);
  if (status < 0) {
    error_detail_set(
        status,
        "the kernel cannot be kept quiet at tc ingress (%s): give the process CAP_NET_ADMIN, or use "
        "addresses that the kernel does not have",
        strerror(-status));
    goto fail;
  }
  *out = q;
  return status;

fail:
  quiet_close(q);
  return status;
}

void quiet_close(void *quiet) {
  struct quiet *q = quiet;
  if (q->link >= 0)
    close(q->link);
  if (q->filter.prog_fd > 0) {
    struct bpf_tc_opts which = {
        .sz = sizeof which, .handle = q->filter.handle, .priority = q->filter.priority};
    bpf_tc_detach(&q->hook, &which);
  }
  quiet_bpf__destroy(q->bpf);
  free(q);
}
