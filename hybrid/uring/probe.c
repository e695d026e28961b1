/* SPDX-License-Identifier: Apache-2.0 */
/* hy_uring_probe(): what io_uring offers here, found out by asking the kernel for it. */
#include "core/hybrid.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PROBE_ENTRIES = 4 };

/* Came with Linux 6.9; liburing 2.3 does not name it yet. */
enum { REGISTER_NAPI = 27, NAPI_ARG_BYTES = 16 };

/* 0: the kernel opens a ring with these flags. */
static int opens_with(unsigned flags) {
  struct io_uring ring;
  int status = io_uring_queue_init(PROBE_ENTRIES, &ring, flags);
  if (status == 0)
    io_uring_queue_exit(&ring);
  return status;
}

static bool has_buffer_rings(struct io_uring *ring) {
  size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return false;
  struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)memory, .ring_entries = PROBE_ENTRIES, .bgid = 0};
  bool has = io_uring_register_buf_ring(ring, &reg, 0) == 0;
  if (has)
    io_uring_unregister_buf_ring(ring, 0);
  munmap(memory, bytes);
  return has;
}

static bool has_napi(const struct io_uring *ring) {
  /* All zero: a time-out of no microseconds, so nothing polls; the ring ends right after. */
  uint64_t arg[NAPI_ARG_BYTES / sizeof(uint64_t)] = {0};
  return io_uring_register((unsigned)ring->ring_fd, REGISTER_NAPI, arg, 1) >= 0;
}

static bool has_registered_files(struct io_uring *ring) {
  bool has = io_uring_register_files_sparse(ring, PROBE_ENTRIES) == 0;
  if (has)
    io_uring_unregister_files(ring);
  return has;
}

int hy_uring_probe(hy_uring_features *out) {
  if (out == NULL || out->struct_size != sizeof *out)
    return -EINVAL;
  *out = (hy_uring_features){.struct_size = sizeof *out};

  struct io_uring ring;
  int status = io_uring_queue_init(PROBE_ENTRIES, &ring, 0);
  if (status < 0)
    return status;
  struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
  if (probe == NULL) {
    status = -ENOSYS; /* Linux 5.5 or older */
    goto exit_ring;
  }
  for (unsigned op = 0; op < probe->ops_len; op++)
    if (probe->ops[op].flags & IO_URING_OP_SUPPORTED)
      out->opcodes++;
  out->zerocopy_send = io_uring_opcode_supported(probe, IORING_OP_SEND_ZC) != 0;
  /* No opcode of their own: multishot accept came with 5.19, multishot receive with 6.0, as did SEND_ZC. */
  out->multishot = out->zerocopy_send;
  io_uring_free_probe(probe);

  out->buffer_rings = has_buffer_rings(&ring);
  out->registered_files = has_registered_files(&ring);
  out->napi_busy_poll = has_napi(&ring);
  out->single_issuer = opens_with(IORING_SETUP_SINGLE_ISSUER) == 0;
  out->defer_taskrun = opens_with(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) == 0;
  out->sqpoll = opens_with(IORING_SETUP_SQPOLL) == 0;

exit_ring:
  io_uring_queue_exit(&ring);
  return status;
}
