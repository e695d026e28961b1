/* Temporary weak definitions: each goes when the real one lands. */
#include <errno.h>

#include "core/host.h"

#define STUB __attribute__((weak))
STUB int hy_shard_open_served(const hy_config *config, hy_shard **out) { return -ENOSYS; }
STUB int hy_shard_ready(hy_shard *shard) { return -ENOSYS; }
STUB int hy_afxdp_attach(hy_shard *shard, const hy_afxdp_config *config, hy_afxdp_obtained *obtained) { return -ENOSYS; }
