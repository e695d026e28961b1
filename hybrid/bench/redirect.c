/* SPDX-License-Identifier: Apache-2.0 */
/* The program and its map; see redirect.h. */
#include "bench/redirect.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <netinet/in.h>
#include <stddef.h>
#include <unistd.h>

/* Where the headers' fields are in a frame without VLAN tag and IP options. */
enum { AT_ETHERTYPE = 12, AT_VERSION_IHL = 14, AT_PROTOCOL = 23, AT_PORT = 36, HEADERS = 42 };

#define INSN(op, dst, src, jump, value)                                                                      \
  (struct bpf_insn) {                                                                                        \
    .code = (op), .dst_reg = (dst), .src_reg = (src), .off = (jump), .imm = (value)                          \
  }
#define LOAD(size, dst, src, at) INSN(BPF_LDX | BPF_MEM | (size), dst, src, (short)(at), 0)
#define SET(dst, value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value)
/* To PASS from the instruction with index `here`. */
#define UNLESS_EQUAL(dst, value, here) INSN(BPF_JMP | BPF_JNE | BPF_K, dst, 0, PASS - (here)-1, value)

enum { PASS = 20 };

static int program_load(int map_fd, uint16_t port) {
  const struct bpf_insn program[] = {
      [0] = INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_1, 0, 0),
      [1] = LOAD(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct xdp_md, data)),
      [2] = LOAD(BPF_W, BPF_REG_3, BPF_REG_6, offsetof(struct xdp_md, data_end)),
      [3] = INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_4, BPF_REG_2, 0, 0),
      [4] = INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_4, 0, 0, HEADERS),
      [5] = INSN(BPF_JMP | BPF_JGT | BPF_X, BPF_REG_4, BPF_REG_3, PASS - 5 - 1, 0),
      [6] = LOAD(BPF_H, BPF_REG_4, BPF_REG_2, AT_ETHERTYPE),
      [7] = UNLESS_EQUAL(BPF_REG_4, htons(ETH_P_IP), 7),
      [8] = LOAD(BPF_B, BPF_REG_4, BPF_REG_2, AT_VERSION_IHL),
      [9] = UNLESS_EQUAL(BPF_REG_4, 0x45, 9),
      [10] = LOAD(BPF_B, BPF_REG_4, BPF_REG_2, AT_PROTOCOL),
      [11] = UNLESS_EQUAL(BPF_REG_4, IPPROTO_UDP, 11),
      [12] = LOAD(BPF_H, BPF_REG_4, BPF_REG_2, AT_PORT),
      [13] = UNLESS_EQUAL(BPF_REG_4, htons(port), 13),
      /* return bpf_redirect_map(map, queue, otherwise XDP_PASS); */
      [14] = INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd),
      [15] = INSN(0, 0, 0, 0, 0), /* the second half of the map's 64 bits */
      [16] = LOAD(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct xdp_md, rx_queue_index)),
      [17] = SET(BPF_REG_3, XDP_PASS),
      [18] = INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map),
      [19] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
      [PASS] = SET(BPF_REG_0, XDP_PASS),
      [PASS + 1] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
  };
  /* Headers are looked at in a frame's first buffer, so it may have several. */
  LIBBPF_OPTS(bpf_prog_load_opts, options, .prog_flags = BPF_F_XDP_HAS_FRAGS);
  int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "hybrid_raw", "Dual BSD/GPL", program,
                         sizeof program / sizeof *program, &options);
  return fd < 0 ? -errno : fd;
}

int redirect_attach(struct redirect *redirect, uint32_t ifindex, bool generic, uint16_t port) {
  *redirect = (struct redirect){.map_fd = -1, .link_fd = -1};
  int map_fd = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "hybrid_raw", sizeof(uint32_t), sizeof(uint32_t),
                              REDIRECT_QUEUES, NULL);
  if (map_fd < 0)
    return -errno;
  int status = program_load(map_fd, port);
  if (status < 0) {
    close(map_fd);
    return status;
  }
  int program_fd = status;
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE);
  int link_fd = bpf_link_create(program_fd, (int)ifindex, BPF_XDP, &options);
  status = link_fd < 0 ? -errno : 0;
  close(program_fd); /* the link keeps it */
  if (status < 0) {
    close(map_fd);
    return status;
  }
  *redirect = (struct redirect){.map_fd = map_fd, .link_fd = link_fd};
  return 0;
}

int redirect_enter(struct redirect *redirect, uint32_t queue, int xsk_fd) {
  return bpf_map_update_elem(redirect->map_fd, &queue, &xsk_fd, BPF_ANY);
}

void redirect_detach(struct redirect *redirect) {
  if (redirect->link_fd >= 0)
    close(redirect->link_fd);
  if (redirect->map_fd >= 0)
    close(redirect->map_fd);
  *redirect = (struct redirect){.map_fd = -1, .link_fd = -1};
}
