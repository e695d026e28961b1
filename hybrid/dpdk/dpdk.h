/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam between libhybrid and its DPDK plugin.
 *
 *     libhybrid          hy_dpdk_attach(): load.c   dlopen   libhybrid-dpdk.so, linked against DPDK
 *     (no DPDK)          dpdk_plugin  <------------------    `hybrid_dpdk_plugin`
 *
 * The plugin needs nothing of libhybrid: it is handed an arena and hands back a device, and it says in
 * `detail` what went wrong. So it does not matter in which of several copies libhybrid is linked. What the
 * two share are the layouts of the headers below, and the numbers here say that they are the same.
 */
#ifndef HYBRID_DPDK_DPDK_H
#define HYBRID_DPDK_DPDK_H

#include "core/device.h"

enum {
  DPDK_ABI = 1, /* counts up with every change of what is shared and has the same size */
  DPDK_DETAIL_BYTES = 400,
};

struct dpdk_plugin_abi {
  uint32_t number, arena, frame, device, device_ops, device_stats, config, obtained;
};

/* What this side was compiled with. */
#define DPDK_PLUGIN_ABI                                                                                      \
  {                                                                                                          \
    DPDK_ABI, sizeof(struct arena), sizeof(struct frame), sizeof(struct hy_device),                          \
        sizeof(struct hy_device_ops), sizeof(struct hy_device_stats), sizeof(hy_dpdk_config),                \
        sizeof(hy_dpdk_obtained),                                                                            \
  }

struct dpdk_plugin {
  struct dpdk_plugin_abi abi; /* first, for ever: nothing behind it is looked at before it was compared */
  /* detail: DPDK_DETAIL_BYTES, empty; a sentence where the result is negative. */
  int (*open)(struct arena *arena, const hy_dpdk_config *config, hy_dpdk_obtained *obtained,
              struct hy_device **out, char *detail);
  int (*stop)(const char *name);
};

#define DPDK_PLUGIN_SYMBOL "hybrid_dpdk_plugin"
#define DPDK_PLUGIN_FILE "libhybrid-dpdk.so"

#endif
