/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The steering program for a port of DPDK's own net_af_xdp driver, which loads and attaches it (its argument
 * xdp_prog=): the driver looks for its map by name, and `to: dpdk` means the sockets in there. Its rules are
 * filled in after the load, by whoever adopts it (hy_steer_adopt).
 */
#define STEER_FOR_DPDK
#include "steer.bpf.c"
