/* SPDX-License-Identifier: Apache-2.0 */
/* hy_afxdp_attach(): an AF_XDP queue for a shard. */
#include "afxdp/afxdp.h"

int hy_afxdp_attach(hy_shard *shard, const hy_afxdp_config *config, hy_afxdp_obtained *obtained) {
  struct hy_device *dev;
  int status = afxdp_open(shard_arena(shard), config, obtained, &dev);
  if (status < 0)
    return status;
  status = shard_add_device(shard, dev);
  if (status < 0)
    dev->ops->close(dev);
  return status;
}
