/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least steering there can be, for what is measured or tested without the
 * policy: an XDP program that sends IPv4 UDP frames to one port into an XSKMAP
 * and passes everything else. Written in instructions, so that it needs neither
 * a compiler nor a file.
 */
#ifndef HYBRID_BENCH_REDIRECT_H
#define HYBRID_BENCH_REDIRECT_H

#include <stdbool.h>
#include <stdint.h>

struct redirect {
  int map_fd;  /* the XSKMAP: queue -> AF_XDP socket */
  int link_fd; /* the program is detached when this, and whoever has a copy of it, is closed */
};

enum { REDIRECT_QUEUES = 64 };

/* -EBUSY: the interface has an XDP program; -EOPNOTSUPP, -EINVAL: not in this mode; -EPERM. */
int redirect_attach(struct redirect *redirect, uint32_t ifindex, bool generic, uint16_t port);
/* Puts a bound AF_XDP socket into service. */
int redirect_enter(struct redirect *redirect, uint32_t queue, int xsk_fd);
void redirect_detach(struct redirect *redirect);

#endif
