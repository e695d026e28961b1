/* Temporary weak definitions: this file goes when core/arena.c and core/shard.c land. */
#include "core/device.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#define STUB __attribute__((weak))
STUB struct arena *shard_arena(hy_shard *shard) {
  return NULL;
}
STUB int shard_add_device(hy_shard *shard, struct hy_device *dev) {
  return -ENOSYS;
}
STUB int arena_init(struct arena *arena, uint32_t frames, uint32_t frame_size, int hugepages) {
  size_t bytes = (size_t)frames * frame_size;
  void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED)
    return -ENOMEM;
  *arena =
      (struct arena){.base = base, .meta = calloc(frames, sizeof(struct frame)), .frame_size = frame_size};
  arena->frame_shift = (uint32_t)__builtin_ctz(frame_size);
  arena->frames = arena->free_count = frames;
  arena->size_bytes = bytes;
  for (uint32_t i = 0; i < frames; i++)
    arena->meta[i].next = i + 1 < frames ? i + 1 : FRAME_NONE;
  return 0;
}
STUB void arena_fini(struct arena *arena) {
  munmap(arena->base, arena->size_bytes);
  free(arena->meta);
}
