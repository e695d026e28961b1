/* SPDX-License-Identifier: Apache-2.0 */
/* What the errors of hybrid.h mean, in the words of whoever called. */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *hy_strerror(int error) {
  switch (error < 0 ? -error : error) {
  case 0:
    return "no error";
  case E2BIG:
    return "more rows than the table holds";
  case EACCES:
  case EPERM:
    return "this needs a privilege that the process does not have";
  case EADDRINUSE:
    return "the address and port are in use already";
  case EADDRNOTAVAIL:
    return "this host has no such address, or no ephemeral port is left";
  case EAGAIN:
    return "the send buffer is full; wait for it to drain";
  case EBADF:
    return "no such queue descriptor";
  case EBUSY:
    return "the queue belongs to another program";
  case ECANCELED:
    return "the operation was cancelled, or its queue was closed";
  case ECONNREFUSED:
    return "the peer refused the connection: nothing listens there";
  case ECONNRESET:
    return "the peer reset the connection";
  case EHOSTUNREACH:
    return "the peer cannot be reached: it does not answer on its link";
  case EINTR:
    return "a signal arrived while waiting";
  case EINVAL:
    return "an argument is out of range, or this queue cannot do that in its state";
  case EISCONN:
    return "the queue is connected, or bound, already";
  case EMSGSIZE:
    return "too long for one message";
  case ENETDOWN:
    return "the device that carried the connection is gone";
  case ENETUNREACH:
    return "no route leads to the peer over a device of this shard";
  case ENOBUFS:
    return "a limit of the configuration is reached: frames, queues or tokens are all in use";
  case ENODEV:
    return "no such device or port";
  case ENOENT:
    return "the token is stale or complete already, or the process was not started by hybrid";
  case ENOLCK:
    return "the packet memory cannot be locked: raise RLIMIT_MEMLOCK, or give the process CAP_IPC_LOCK";
  case ENOMEM:
    return "not enough memory for what the configuration asks for";
  case ENOSPC:
    return "the shard has as many devices as it can have";
  case ENOTCONN:
    return "the queue is not connected";
  case EOPNOTSUPP:
    return "what was required cannot be had on this host";
  case EPIPE:
    return "the connection is shut down for sending";
  case EPROTO:
    return "what the launcher sent is not of this build";
  case ETIMEDOUT:
    return "the peer did not answer in time";
  default: {
    const char *text = strerrordesc_np(error < 0 ? -error : error);
    return text != NULL ? text : "unknown error";
  }
  }
}

static _Thread_local char detail[256];

const char *hy_error_detail(void) {
  return detail;
}

void error_detail_clear(void) {
  detail[0] = '\0';
}

int error_detail_set(int error, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(detail, sizeof detail, format, args);
  va_end(args);
  return error;
}
