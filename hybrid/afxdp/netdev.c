/* SPDX-License-Identifier: Apache-2.0 */
/* A question and its answer over generic netlink. */
#include "afxdp/netdev.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* From <linux/netdev.h>, which older distributions lack. */
enum {
  NETDEV_DEV_GET = 1,
  NETDEV_IFINDEX = 1,
  NETDEV_XDP_FEATURES = 3,
  NETDEV_ZC_MAX_SEGS = 4,
  NETDEV_RX_METADATA = 5,
  NETDEV_XSK_FEATURES = 6,
};

#define ATTR_BYTES sizeof(struct nlattr)

struct question {
  struct nlmsghdr nl;
  struct genlmsghdr genl;
  struct nlattr attr;
  char value[16];
};

struct answer {
  _Alignas(8) char bytes[4096];
  size_t len;
};

static int ask(int fd, uint16_t type, uint8_t command, uint16_t attr, const void *value, uint16_t len,
               struct answer *answer) {
  struct question q = {
      .nl = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST},
      .genl = {.cmd = command, .version = 1},
      .attr = {.nla_type = attr, .nla_len = (uint16_t)(ATTR_BYTES + len)},
  };
  memcpy(q.value, value, len);
  q.nl.nlmsg_len = (uint32_t)(offsetof(struct question, value)) + ((len + 3u) & ~3u);
  if (send(fd, &q, q.nl.nlmsg_len, 0) < 0)
    return -errno;
  ssize_t n = recv(fd, answer->bytes, sizeof answer->bytes, 0);
  if (n < 0)
    return -errno;
  struct nlmsghdr *nl = (struct nlmsghdr *)answer->bytes;
  if ((size_t)n < sizeof *nl || nl->nlmsg_len > (size_t)n)
    return -EPROTO;
  if (nl->nlmsg_type == NLMSG_ERROR) {
    struct nlmsgerr *error = NLMSG_DATA(nl);
    return nl->nlmsg_len >= sizeof *nl + sizeof *error && error->error < 0 ? error->error : -EPROTO;
  }
  answer->len = nl->nlmsg_len;
  return 0;
}

/* Copies an attribute's first len bytes; false: the answer has none so long. */
static bool attribute(const struct answer *answer, uint16_t type, void *out, size_t len) {
  size_t at = offsetof(struct question, attr);
  struct nlattr attr;
  for (; at + sizeof attr <= answer->len; at += (attr.nla_len + 3u) & ~3u) {
    memcpy(&attr, answer->bytes + at, sizeof attr);
    if (attr.nla_len < ATTR_BYTES || at + attr.nla_len > answer->len)
      return false;
    if ((attr.nla_type & NLA_TYPE_MASK) != type)
      continue;
    if (attr.nla_len < ATTR_BYTES + len)
      return false;
    memcpy(out, answer->bytes + at + ATTR_BYTES, len);
    return true;
  }
  return false;
}

int netdev_ask(uint32_t ifindex, struct netdev_features *out) {
  static const char name[] = "netdev";
  *out = (struct netdev_features){0};
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0)
    return -errno;
  struct answer answer = {0};
  uint16_t family;
  int status = ask(fd, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, name, sizeof name, &answer);
  if (status == 0 && !attribute(&answer, CTRL_ATTR_FAMILY_ID, &family, sizeof family))
    status = -EPROTO;
  if (status == -ENOENT)
    status = -EOPNOTSUPP;
  if (status == 0)
    status = ask(fd, family, NETDEV_DEV_GET, NETDEV_IFINDEX, &ifindex, sizeof ifindex, &answer);
  close(fd);
  if (status < 0)
    return status;
  attribute(&answer, NETDEV_XDP_FEATURES, &out->xdp, sizeof out->xdp);
  attribute(&answer, NETDEV_RX_METADATA, &out->rx_metadata, sizeof out->rx_metadata);
  attribute(&answer, NETDEV_XSK_FEATURES, &out->xsk, sizeof out->xsk);
  attribute(&answer, NETDEV_ZC_MAX_SEGS, &out->zerocopy_frames_max, sizeof out->zerocopy_frames_max);
  return 0;
}
