/* Temporary weak definitions: each goes when the real one lands. */
#include <errno.h>

#include "core/hybrid.h"

#define STUB __attribute__((weak))
STUB int hy_shard_open_served(const hy_config *config, hy_shard **out) { return -ENOSYS; }
STUB int hy_shard_ready(hy_shard *shard) { return -ENOSYS; }
