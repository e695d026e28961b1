/* SPDX-License-Identifier: Apache-2.0 */
/* Steering rules held against a frame, where no XDP program stands in front of the port. */
#ifndef HYBRID_DPDK_MATCH_H
#define HYBRID_DPDK_MATCH_H

#include "bpf/steer.h"

/* The verdict of the first rule that names this frame; what none names, and what can't be parsed, is the
 * kernel's. */
uint8_t match_frame(const hy_steer_rule *rules, uint32_t count, uint8_t *frame, uint32_t len_bytes);

#endif
