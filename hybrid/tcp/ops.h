/* SPDX-License-Identifier: Apache-2.0 */
/* What the application's calls share (ops.c). */
#ifndef HYBRID_TCP_OPS_H
#define HYBRID_TCP_OPS_H

#include "tcp/stack.h"

/* Drops the application's reference on every piece. */
void sga_drop(struct stack *st, const hy_sga *sga);
/* An ephemeral port for this remote end (RFC 6056 section 3.3.3), or 0 when none is free. */
uint16_t port_choose(struct stack *st, bool tcp, const hy_addr *local, const hy_addr *remote);

#endif
