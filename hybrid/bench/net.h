/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's sockets, as the benchmarks' peers and clients want them. A failure ends the program. */
#ifndef HYBRID_BENCH_NET_H
#define HYBRID_BENCH_NET_H

struct addrinfo;

/* Numbers only; freed by freeaddrinfo. */
struct addrinfo *net_resolve(const char *address, const char *port);
int net_listen(const char *address, const char *port, int backlog);
/* Nagle off: every call moves a whole request. */
void net_nodelay(int fd);

#endif
