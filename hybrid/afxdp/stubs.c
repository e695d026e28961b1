/* Temporary weak definitions: this file goes when core/shard.c lands. */
#include "core/device.h"
#include <errno.h>
#define STUB __attribute__((weak))
STUB struct arena *shard_arena(hy_shard *shard) {
  return NULL;
}
STUB int shard_add_device(hy_shard *shard, struct hy_device *dev) {
  return -ENOSYS;
}
