/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_af_xdp of DPDK 22.11 deletes its sockets but never its UMEMs when it is closed, and libxdp keeps the
 * first socket's descriptor in the UMEM: the kernel would go on writing into frames that are no longer the
 * port's, and the queue would stay busy. So the plugin stands in front of libxdp's two functions (as of
 * rte_panic: load.c), remembers what was made, and deletes what is left. Ports start and close one at a time,
 * under the ports' lock.
 */
#include "dpdk/port.h"

#include <dlfcn.h>
#include <errno.h>

enum { UMEMS = 256 };

static struct {
  void *umem;
  const struct port *port;
} umems[UMEMS];
static const struct port *starting;

int xsk_umem__create(void **umem, void *area, uint64_t size, void *fill, void *completion,
                     const void *config);
int xsk_umem__delete(void *umem);

static void *in_libxdp(const char *name) {
  void *libxdp = dlopen("libxdp.so.1", RTLD_NOW | RTLD_NOLOAD);
  return libxdp != NULL ? dlsym(libxdp, name) : NULL;
}

__attribute__((visibility("default"))) int
xsk_umem__create(void **umem, void *area, uint64_t size, void *fill, void *completion, const void *config) {
  int (*next)(void **, void *, uint64_t, void *, void *, const void *) = in_libxdp(__func__);
  if (next == NULL)
    return -ENOSYS;
  int rc = next(umem, area, size, fill, completion, config);
  for (unsigned i = 0; rc == 0 && i < UMEMS; i++)
    if (umems[i].umem == NULL) {
      umems[i].umem = *umem;
      umems[i].port = starting;
      break;
    }
  return rc;
}

__attribute__((visibility("default"))) int xsk_umem__delete(void *umem) {
  int (*next)(void *) = in_libxdp(__func__);
  for (unsigned i = 0; i < UMEMS; i++)
    if (umems[i].umem == umem)
      umems[i].umem = NULL;
  return next != NULL ? next(umem) : -ENOSYS;
}

void umems_of(const struct port *port) {
  starting = port;
}

void umems_delete(const struct port *port) {
  for (unsigned i = 0; i < UMEMS; i++)
    if (umems[i].umem != NULL && umems[i].port == port)
      xsk_umem__delete(umems[i].umem);
}
