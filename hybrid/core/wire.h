/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire device: frames go in and come out by hand. Behind hy_wire_attach(),
 * hy_wire_inject() and hy_wire_collect() of hybrid.h, and usable with an arena alone.
 */
#ifndef HYBRID_CORE_WIRE_H
#define HYBRID_CORE_WIRE_H

#include "core/device.h"

enum { WIRE_RING = 1024 }; /* frames that may wait in each direction; power of two */

/* NULL: out of memory. ops->close frees it. */
struct hy_device *wire_create(struct arena *arena, uint32_t ifindex);
/* As hy_wire_inject and hy_wire_collect. */
int wire_inject(struct hy_device *dev, const void *frame, size_t len_bytes);
/* As a device would hand it over that fills at most piece_bytes of each frame. */
int wire_inject_split(struct hy_device *dev, const void *frame, size_t len_bytes, uint32_t piece_bytes);
int wire_collect(struct hy_device *dev, void *frame, size_t capacity_bytes);

#endif
