/* SPDX-License-Identifier: Apache-2.0 */
/* From a row of a handover (control.h) to a device of the shard, whatever its kind. */
#ifndef HYBRID_CORE_HANDOVER_H
#define HYBRID_CORE_HANDOVER_H

#include "core/control.h"

/*
 * Attaches what the row names, and says in out what came of it, the status that it returns included. fd
 * is taken over. eal: arguments of DPDK's, each with a newline behind it.
 */
int handover_attach(hy_shard *shard, const hy_handover_device *d, const char *eal, int fd, hy_attached *out);
/* The sentence of the last failure of this thread, into HY_CONTROL_NOTE_BYTES. */
void handover_note(char *note);

#endif
