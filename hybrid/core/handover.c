/* SPDX-License-Identifier: Apache-2.0 */
/* The one place in core that knows the backends by name: what a launcher hands over is one of them. */
#include "core/handover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/shard.h"

enum { EAL_ARGS_MAX = 64 };

void handover_note(char *note) {
  const char *detail = hy_error_detail();
  size_t len = strnlen(detail, HY_CONTROL_NOTE_BYTES - 1);
  memcpy(note, detail, len);
  note[len] = '\0';
}

static int afxdp_attach(hy_shard *shard, const hy_handover_device *d, int fd, hy_attached *out) {
  hy_afxdp_config config = {
      .struct_size = sizeof config,
      .ifindex = d->ifindex,
      .queue = d->queue,
      .xsk_fd = fd,
      .map_fd = -1, /* the launcher enters it */
      .ring_size = d->ring_size,
      .copy = d->copy,
      .busy_poll = d->busy_poll,
      .strict = d->strict,
      .tx_checksum = !d->tx_checksum ? HY_REQUEST_AUTO
                     : d->strict     ? HY_REQUEST_MUST
                                     : HY_REQUEST_ASK,
  };
  return hy_afxdp_attach(shard, &config, &out->afxdp);
}

/* Cuts the text at its newlines. -E2BIG: more than anybody passes. */
static int arguments_split(char *text, const char **out, uint32_t *count) {
  char *rest = NULL;
  for (char *one = strtok_r(text, "\n", &rest); one != NULL; one = strtok_r(NULL, "\n", &rest)) {
    if (*count == EAL_ARGS_MAX)
      return -E2BIG;
    out[(*count)++] = one;
  }
  return 0;
}

/* An interface that was made anew has another number. What its port had under the old one lets go of it. */
static void stale_remove(hy_shard *shard, const hy_handover_device *d) {
  for (uint32_t i = 0; i < SHARD_DEVICES; i++) {
    const struct hy_device *dev = shard_device(shard, i);
    if (dev && dev->queue == d->queue && dev->ifindex != d->ifindex &&
        !host_link(&shard->stack.host, dev->ifindex))
      hy_shard_remove_device(shard, dev->ifindex, dev->queue);
  }
}

/* fd is the port's lease: held for as long as the device is there, and by nobody else. */
static int dpdk_attach(hy_shard *shard, const hy_handover_device *d, const char *eal, int fd,
                       hy_attached *out) {
  char text[HY_CONTROL_EAL_BYTES];
  const char *arguments[EAL_ARGS_MAX];
  uint32_t count = 0;
  snprintf(text, sizeof text, "%s", eal);
  int status = d->queue < HY_CONTROL_PORT_QUEUE ? -EPROTO : arguments_split(text, arguments, &count);
  const hy_dpdk_config config = {
      .struct_size = sizeof config,
      .ifindex = d->ifindex,
      .port = d->args,
      .eal = count > 0 ? arguments : NULL,
      .neal = count,
      .queue = (uint16_t)(d->queue - HY_CONTROL_PORT_QUEUE),
      .queues = d->queues,
      .strict = d->strict,
  };
  hy_dpdk_obtained obtained = {0};
  stale_remove(shard, d);
  if (status == 0)
    status = hy_dpdk_attach(shard, &config, &obtained);
  if (status < 0) {
    close(fd);
    return status;
  }
  snprintf(out->note, sizeof out->note, "%.40s (%.40s), checksums %s, %u descriptors", obtained.driver,
           obtained.version, obtained.tx_checksum ? "by the port" : "by us", obtained.rx_desc);
  shard_hold(shard, d->queue, fd);
  return 0;
}

static int tap_attach(hy_shard *shard, const hy_handover_device *d, int fd, hy_attached *out) {
  const hy_tap_config config = {
      .struct_size = sizeof config, .ifindex = d->ifindex, .queue = d->queue, .tap_fd = fd};
  hy_tap_obtained obtained;
  int status = hy_tap_attach(shard, &config, &obtained);
  if (status == 0)
    snprintf(out->note, sizeof out->note, "TAP, MTU %u, checksums and segmentation %s", obtained.mtu_bytes,
             obtained.offload ? "left undone" : "done by the kernel");
  return status;
}

int handover_attach(hy_shard *shard, const hy_handover_device *d, const char *eal, int fd, hy_attached *out) {
  *out = (hy_attached){.magic = HY_CONTROL_MAGIC, .ifindex = d->ifindex, .queue = d->queue};
  switch (d->kind) {
  case HY_CONTROL_AFXDP:
    out->status = afxdp_attach(shard, d, fd, out);
    break;
  case HY_CONTROL_TAP:
    out->status = tap_attach(shard, d, fd, out);
    break;
  case HY_CONTROL_DPDK:
    out->status = dpdk_attach(shard, d, eal, fd, out);
    break;
  default:
    close(fd);
    out->status = -EPROTO;
  }
  if (out->status < 0)
    handover_note(out->note);
  return out->status;
}
