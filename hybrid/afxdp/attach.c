/* SPDX-License-Identifier: Apache-2.0 */
/* hy_afxdp_attach(): an AF_XDP queue for a shard. */
#include "afxdp/afxdp.h"
#include "core/shard.h"

/* Some queue of the shard that has registered the arena and works. */
static const struct hy_device *registered(const hy_shard *shard) {
  for (uint32_t i = 0; i < shard->ndevices; i++) {
    struct hy_device *dev = shard->devices[i];
    if (dev != NULL && afxdp_is(dev) && dev->ops->health(dev) == 0)
      return dev;
  }
  return NULL;
}

int hy_afxdp_attach(hy_shard *shard, const hy_afxdp_config *config, hy_afxdp_obtained *obtained) {
  struct hy_device *dev;
  int status = afxdp_open(shard_arena(shard), config, registered(shard), obtained, &dev);
  if (status < 0)
    return status;
  status = shard_add_device(shard, dev);
  if (status < 0)
    dev->ops->close(dev);
  return status;
}
