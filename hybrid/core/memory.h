/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory device: a wire between two shards of one process, behind
 * hy_memory_attach() of hybrid.h, and usable with two arenas alone.
 */
#ifndef HYBRID_CORE_MEMORY_H
#define HYBRID_CORE_MEMORY_H

#include "core/device.h"

enum { MEMORY_RING = 1024 }; /* frames under way in each direction; power of two */

/*
 * Makes both ends of a wire, ends[0] on arena a and ends[1] on arena b. Each end
 * may be used, and closed, by a thread of its own; what is sent to a closed end is
 * dropped. -ENOMEM, -EMFILE.
 */
int memory_create(struct arena *a, uint32_t ifindex_a, struct arena *b, uint32_t ifindex_b,
                  struct hy_device *ends[2]);

#endif
