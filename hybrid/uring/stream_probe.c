/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this kernel's io_uring has. Operations can be asked about; flags cannot, so each is
 * tried on a descriptor that does not exist: a kernel that knows the flag says EBADF, one that does not
 * EINVAL. All on a small ring of its own, as the shard's starts only in the thread that will use it.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "uring/ring.h"
#include "uring/stream.h"

enum { PROBE_ENTRIES = 8, PROBE_WAIT_MS = 1000 };

static int too_old(void) {
  return error_detail_set(-EOPNOTSUPP,
                          "this kernel's io_uring is too old for kernel sockets: Linux 6.1 is needed");
}

/* Submits one request and returns its result; a notification behind it is taken too. */
static int answer(struct io_uring *ring) {
  struct __kernel_timespec ts = {.tv_sec = PROBE_WAIT_MS / 1000};
  struct io_uring_cqe *cqe;
  int result = -ETIME;
  for (bool more = true; more;) {
    int rc = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &ts, NULL);
    if (rc < 0)
      return rc;
    if (!(cqe->flags & IORING_CQE_F_NOTIF))
      result = cqe->res;
    more = cqe->flags & IORING_CQE_F_MORE;
    io_uring_cqe_seen(ring, cqe);
  }
  return result;
}

static bool receive_knows(struct io_uring *ring, uint16_t flags) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
  io_uring_prep_recv(sqe, -1, NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->ioprio = (uint16_t)(IORING_RECV_MULTISHOT | flags);
  return answer(ring) == -EBADF;
}

static bool send_knows(struct io_uring *ring, uint16_t flags) {
  static struct msghdr empty;
  struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
  io_uring_prep_sendmsg(sqe, -1, &empty, 0);
  sqe->opcode = IORING_OP_SENDMSG_ZC;
  sqe->ioprio = flags;
  return answer(ring) == -EBADF;
}

static bool operations(struct io_uring *ring, bool *zerocopy) {
  static const uint8_t needed[] = {IORING_OP_ACCEPT,      IORING_OP_CONNECT,      IORING_OP_SEND,
                                   IORING_OP_SENDMSG,     IORING_OP_RECV,         IORING_OP_RECVMSG,
                                   IORING_OP_CLOSE,       IORING_OP_ASYNC_CANCEL, IORING_OP_SHUTDOWN,
                                   IORING_OP_FILES_UPDATE};
  struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
  if (!probe)
    return false;
  bool all = true;
  for (unsigned i = 0; i < sizeof needed; i++)
    all = all && io_uring_opcode_supported(probe, needed[i]);
  *zerocopy = io_uring_opcode_supported(probe, IORING_OP_SEND_ZC) &&
              io_uring_opcode_supported(probe, IORING_OP_SENDMSG_ZC);
  io_uring_free_probe(probe);
  return all;
}

/*
 * Until Linux 6.13 a registered file that was taken out was closed only when every request on any
 * registered file that had started earlier was over: with a receive standing on each connection, never. Seen
 * from the far end of a closed one.
 */
static bool files_close(struct io_uring *ring) {
  int pairs[4] = {-1, -1, -1, -1};
  bool closes = false;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs) < 0 ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs + 2) < 0)
    goto out;
  int table[2] = {pairs[0], pairs[2]};
  if (io_uring_register_files(ring, table, 2) < 0)
    goto out;
  close(pairs[2]);
  pairs[2] = -1;
  char byte;
  struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
  io_uring_prep_recv(sqe, 0, &byte, 1, 0); /* stands until the ring is closed */
  sqe->flags |= IOSQE_FIXED_FILE;
  sqe = io_uring_get_sqe(ring);
  io_uring_prep_close_direct(sqe, 1);
  closes = answer(ring) == 0 && recv(pairs[3], &byte, 1, MSG_DONTWAIT) == 0;
out:
  for (int i = 0; i < 4; i++)
    if (pairs[i] >= 0)
      close(pairs[i]);
  return closes;
}

int stream_probe(struct stream_features *out) {
  struct io_uring ring;
  *out = (struct stream_features){0};
  struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
  int rc = io_uring_queue_init_params(PROBE_ENTRIES, &ring, &params);
  if (rc < 0)
    return rc == -EINVAL ? too_old() : uring_explain(rc);
  if (!operations(&ring, &out->zerocopy) || !receive_knows(&ring, 0)) {
    rc = too_old();
    goto out;
  }
  out->bundles = receive_knows(&ring, URING_RECVSEND_BUNDLE);
  out->zerocopy_report = out->zerocopy && send_knows(&ring, URING_SEND_ZC_REPORT_USAGE);
  out->zerocopy_fixed = out->zerocopy && send_knows(&ring, IORING_RECVSEND_FIXED_BUF);
  out->files = files_close(&ring);
out:
  io_uring_queue_exit(&ring);
  return rc;
}
