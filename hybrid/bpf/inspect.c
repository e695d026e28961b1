/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What XDP program an interface has, whoever attached it, and the words for it.
 */
#include "bpf/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

int steer_tag(int program_fd, uint8_t tag[HY_STEER_TAG_BYTES], uint32_t *id) {
  struct bpf_prog_info info = {0};
  uint32_t length = sizeof(info);
  int err = bpf_obj_get_info_by_fd(program_fd, &info, &length);
  if (err)
    return err;
  static_assert(sizeof(info.tag) == HY_STEER_TAG_BYTES, "the kernel's tag");
  memcpy(tag, info.tag, sizeof(info.tag));
  *id = info.id;
  return 0;
}

/* The link that holds this program on this interface; 0 if none does. */
static uint32_t link_of(uint32_t ifindex, uint32_t program_id) {
  uint32_t id = 0;
  while (bpf_link_get_next_id(id, &id) == 0) {
    int fd = bpf_link_get_fd_by_id(id);
    if (fd < 0)
      continue; /* gone meanwhile */
    struct bpf_link_info info = {0};
    uint32_t length = sizeof(info);
    int err = bpf_obj_get_info_by_fd(fd, &info, &length);
    close(fd);
    /* An ifindex is a namespace's own, but a program and an ifindex together are enough here. */
    if (!err && info.type == BPF_LINK_TYPE_XDP && info.prog_id == program_id && info.xdp.ifindex == ifindex)
      return id;
  }
  return 0;
}

static uint8_t mode_of(const struct bpf_xdp_query_opts *query) {
  if (query->attach_mode == XDP_ATTACHED_DRV)
    return HY_XDP_NATIVE;
  if (query->attach_mode == XDP_ATTACHED_SKB)
    return HY_XDP_GENERIC;
  return HY_XDP_AUTO;
}

int hy_steer_inspect(uint32_t ifindex, hy_steer_xdp *out, hy_steer_error *error) {
  memset(out, 0, sizeof(*out));
  LIBBPF_OPTS(bpf_xdp_query_opts, query);
  struct steer_capture said;
  steer_capture_begin(&said);
  int err = bpf_xdp_query((int)ifindex, 0, &query);
  steer_capture_end(&said);
  if (err)
    return steer_fail(error, err, "cannot ask for the XDP program of interface %u: %s%s%s", ifindex,
                      strerror(-err), said.text[0] ? ": " : "", said.text);
  /* With several at once prog_id is 0, and any of them will do to name. */
  out->program_id = query.prog_id       ? query.prog_id
                    : query.drv_prog_id ? query.drv_prog_id
                    : query.skb_prog_id ? query.skb_prog_id
                                        : query.hw_prog_id;
  if (!out->program_id)
    return 0;
  out->mode = mode_of(&query);
  out->link_id = link_of(ifindex, out->program_id);
  int fd = bpf_prog_get_fd_by_id(out->program_id);
  if (fd < 0)
    return fd == -ENOENT
               ? 0
               : steer_fail(error, fd, "cannot open BPF program %u: %s", out->program_id, strerror(-fd));
  struct bpf_prog_info info = {0};
  uint32_t length = sizeof(info);
  err = bpf_obj_get_info_by_fd(fd, &info, &length);
  close(fd);
  if (err)
    return steer_fail(error, err, "cannot ask about BPF program %u: %s", out->program_id, strerror(-err));
  static_assert(sizeof(info.name) == sizeof(out->program_name), "the kernel's name");
  memcpy(out->program_name, info.name, sizeof(info.name));
  memcpy(out->tag, info.tag, sizeof(info.tag));
  return 0;
}

void steer_xdp_describe(const hy_steer_xdp *xdp, char *out, size_t capacity) {
  const char *mode = xdp->mode == HY_XDP_NATIVE    ? "in native mode"
                     : xdp->mode == HY_XDP_GENERIC ? "in generic mode"
                                                   : "in hardware or several modes";
  char by[32] = "without a link";
  if (xdp->link_id)
    snprintf(by, sizeof(by), "by bpf_link %u", xdp->link_id);
  snprintf(out, capacity, "'%.16s' (id %u), attached %s %s", xdp->program_name, xdp->program_id, mode, by);
}
