/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loader of the steering program: control plane, called from Python.
 *
 * A *steering* (hy_steer) is one interface's XDP program with its maps. It lives
 * in the kernel, pinned in one directory of a bpffs, and outlives the process
 * that attached it:
 *
 *     /sys/fs/bpf/hybrid/<directory>/   link  program  queues
 *                                       meta  generations  counters  xsks
 *
 * The caller names the directory; its parent must exist and is the lock: calls
 * that change what is pinned below it hold flock(2) on it meanwhile. A directory
 * appears there complete or not at all. One under construction is named
 * "new-..." beside it, so what a killed attach left is recognised by its name
 * whenever nobody holds the lock.
 *
 * Functions return 0 or a negative errno. Where they take an hy_steer_error,
 * they also leave one sentence in it, libbpf's own words included; nothing is
 * printed. Threads may share a handle, but not while one of them upgrades or
 * closes it.
 */
#ifndef HYBRID_BPF_STEER_H
#define HYBRID_BPF_STEER_H

#include "core/hybrid.h"

enum {
  HY_STEER_RULES = 256,
  HY_STEER_QUEUES = 64,
  HY_STEER_NAME_BYTES = 64,
  HY_STEER_REASONS_MAX = 32,
  HY_STEER_ERROR_BYTES = 512,
  HY_STEER_NOTE_BYTES = 124,
  HY_STEER_TAG_BYTES = 8,
};

typedef struct hy_steer hy_steer;

typedef struct hy_steer_error {
  char text[HY_STEER_ERROR_BYTES];
} hy_steer_error;

enum hy_steer_verdict {
  HY_STEER_AFXDP = 1,
  HY_STEER_KERNEL = 2,
  HY_STEER_DROP = 3,
  HY_STEER_DPDK = 4,
  HY_STEER_URING = 5, /* the kernel's, for a program that uses its sockets */
};

/*
 * One rule. Frames are TCP or UDP over IPv4 or IPv6; all else is the kernel's
 * whatever the rules say. Prefixes are in network byte order, an IPv4 address in
 * the first four bytes; bits beyond the length are ignored.
 */
typedef struct hy_steer_rule {
  char name[HY_STEER_NAME_BYTES]; /* unique, not empty, ends with a zero */
  int32_t priority;               /* higher is tried first; equal ones in the order given */
  uint8_t verdict;                /* enum hy_steer_verdict */
  uint8_t protocol;               /* 6 TCP, 17 UDP, 0 both */
  uint8_t family;                 /* 4 or 6; 0: both, and both lengths are 0 */
  uint8_t source_len;             /* bits; 0: any */
  uint8_t destination_len;
  uint8_t fallback; /* enum hy_backend: what a listener has besides; 0: nothing */
  uint8_t reserved[2];
  uint16_t port_lo; /* destination ports, inclusive, host byte order; 0..65535: any */
  uint16_t port_hi;
  uint8_t source[16];
  uint8_t destination[16];
} hy_steer_rule;

typedef struct hy_steer_count {
  uint64_t packets;
  uint64_t bytes; /* Ethernet header on, without the frame check sequence */
} hy_steer_count;

/* Rules are in the order tried. A rule's count goes on while its name and match stay the same. */
typedef struct hy_steer_counters {
  uint64_t generation; /* how many rule sets there have been; 1: the empty one of the attach */
  uint32_t rule_count;
  uint32_t reserved;
  hy_steer_count reasons[HY_STEER_REASONS_MAX];
  hy_steer_rule rules[HY_STEER_RULES];
  hy_steer_count hit[HY_STEER_RULES];       /* frames that the rule decided */
  hy_steer_count no_socket[HY_STEER_RULES]; /* of these, left to the kernel for want of a socket */
} hy_steer_counters;

typedef struct hy_steer_info {
  uint64_t netns;   /* inode number of the network namespace it was attached in */
  uint32_t ifindex; /* 0: the link is dead, because the interface is gone or it was detached */
  uint32_t program_id;
  uint32_t link_id;  /* 0: loaded only, attached to nothing */
  uint8_t requested; /* enum hy_xdp_mode */
  uint8_t obtained;
  uint16_t queues; /* receive queues when attached */
  uint16_t major;  /* of the map layout */
  uint16_t minor;
  uint8_t tag[HY_STEER_TAG_BYTES];
  char ifname[16];
  char note[HY_STEER_NOTE_BYTES]; /* why obtained is not what was preferred; empty if it is */
  uint8_t fragments; /* 1: attached as a program that takes frames larger than a buffer (xdp.frags) */
  uint8_t reserved[3];
} hy_steer_info;

/* The XDP program that an interface has. */
typedef struct hy_steer_xdp {
  uint32_t program_id; /* 0: none */
  uint32_t link_id;    /* 0: attached without a link (netlink, `ip link`) */
  uint8_t mode;        /* enum hy_xdp_mode; 0: offloaded to hardware, or several at once */
  uint8_t reserved[3];
  char program_name[16];
  uint8_t tag[HY_STEER_TAG_BYTES];
} hy_steer_xdp;

/*
 * Loads the program and attaches it to nothing: for hy_steer_test_run(). object is
 * the path of steer.bpf.o. -EPERM: wants CAP_BPF and CAP_NET_ADMIN.
 */
HY_API int hy_steer_load(const char *object, hy_steer **out, hy_steer_error *error);

/*
 * Loads, attaches to ifindex (of the calling thread's network namespace) with no
 * rules, and pins as directory. mode: enum hy_xdp_mode; AUTO takes native where
 * the driver can, else generic, and notes why. Leftovers of killed attaches, and
 * a directory whose link is dead, are removed on the way.
 * -EBUSY: the interface has an XDP program; the error names it, and it is left alone.
 * -EEXIST: directory is pinned and alive: hy_steer_open() it. -ENODEV: no such
 * interface. -EOPNOTSUPP: it can't have the mode.
 */
HY_API int hy_steer_attach(uint32_t ifindex, const char *object, int mode, const char *directory,
                           hy_steer **out, hy_steer_error *error);

/* What is pinned. -ENOENT; -EPROTO: its maps are of another major layout. */
HY_API int hy_steer_open(const char *directory, hy_steer **out, hy_steer_error *error);

/*
 * Makes the attached program the one of object, if its tag isn't that already,
 * by an atomic exchange under the link: rules, counters and sockets stay and no
 * frame goes unsteered. Returns 1 if it was exchanged, 0 if it was current.
 */
HY_API int hy_steer_upgrade(hy_steer *steer, const char *object, hy_steer_error *error);

/* Frees the handle; what is pinned stays. NULL is allowed. */
HY_API void hy_steer_close(hy_steer *steer);

/* Detaches and unpins, where another handle has not done so already. The handle is still to be closed. */
HY_API int hy_steer_detach(hy_steer *steer, hy_steer_error *error);

/*
 * Detaches and unpins a directory of any layout, also a "new-" one or one that is
 * incomplete, and touches only names that this loader makes. -ENOENT; -ENOTEMPTY:
 * somebody else's files are in it.
 */
HY_API int hy_steer_remove(const char *directory, hy_steer_error *error);

HY_API int hy_steer_info_get(const hy_steer *steer, hy_steer_info *out);

/*
 * Replaces all rules at once. On return no frame is under the old ones any more.
 * -EINVAL: a rule makes no sense (the error names it); nothing has changed.
 * -E2BIG: more than HY_STEER_RULES.
 */
HY_API int hy_steer_replace(hy_steer *steer, const hy_steer_rule *rules, uint32_t count,
                            hy_steer_error *error);
HY_API int hy_steer_counters_get(const hy_steer *steer, hy_steer_counters *out, hy_steer_error *error);

/*
 * Puts an AF_XDP socket into service for the queue it is bound to. -ENOTCONN: it
 * isn't bound yet (frames would be lost); -ENOTSOCK or -EOPNOTSUPP: not an AF_XDP
 * socket; -EINVAL: it is bound to another queue; -ERANGE: queue.
 */
HY_API int hy_steer_enter(hy_steer *steer, uint32_t queue, int xsk_fd, hy_steer_error *error);
/* Takes it out. Removing from an empty queue is no error. */
HY_API int hy_steer_leave(hy_steer *steer, uint32_t queue, hy_steer_error *error);
/* Bit q of *queues is set where queue q has a socket. */
HY_API int hy_steer_sockets(const hy_steer *steer, uint64_t *queues, hy_steer_error *error);

/*
 * The DPDK port of the interface: a veth whose near end is ifindex, of the same network namespace. What
 * rules send there is redirected into it, and what comes back leaves by the interface. Undone by
 * _detach, and by the kernel when the veth is deleted. -EOPNOTSUPP: an older build's program is attached.
 */
HY_API int hy_steer_port_set(hy_steer *steer, uint32_t ifindex, hy_steer_error *error);
/* ifindex of the near end; 0: there is none. */
HY_API int hy_steer_port_get(const hy_steer *steer, uint32_t *ifindex, hy_steer_error *error);
/*
 * Puts the port into service for as long as somebody holds xsk_fd, an AF_XDP socket that is not bound to
 * anything. Until then, and afterwards, its frames are the kernel's.
 */
HY_API int hy_steer_lease(hy_steer *steer, int xsk_fd, hy_steer_error *error);
/* Whether somebody has the port in service: 1, 0. */
HY_API int hy_steer_leased(const hy_steer *steer, hy_steer_error *error);
/* Whether rules with a fallback leave connections to the kernel that the kernel has. */
HY_API int hy_steer_kernel_flows(hy_steer *steer, bool look, hy_steer_error *error);

/* How many reasons there are, and their words; NULL beyond. */
HY_API unsigned hy_steer_reason_count(void);
HY_API const char *hy_steer_reason_name(unsigned index);
HY_API const char *hy_steer_reason_help(unsigned index);

/*
 * The steering program that DPDK's net_af_xdp driver attached (its argument xdp_prog=, with the path of
 * steer-dpdk.bpf.o), with no rules at first: until then every frame passes. Nothing is pinned; the handle is
 * for rules and counters. -ENOENT: the interface has no program. -ENOEXEC: it has another.
 */
HY_API int hy_steer_adopt(uint32_t ifindex, hy_steer **out, hy_steer_error *error);

/* ifindex of the calling thread's network namespace. */
HY_API int hy_steer_inspect(uint32_t ifindex, hy_steer_xdp *out, hy_steer_error *error);

/*
 * Runs the loaded program over one frame (14 bytes at least) `repeat` times, as if
 * it had come in by `queue` of `ifindex` (0: unspecified, queue 0). *action is the
 * XDP action of the last run, *duration_ns the mean time of one.
 */
HY_API int hy_steer_test_run(const hy_steer *steer, const void *frame, uint32_t len_bytes, uint32_t ifindex,
                             uint32_t queue, uint32_t repeat, uint32_t *action, uint32_t *duration_ns,
                             hy_steer_error *error);

/*
 * Mounts a bpffs at path (/sys/fs/bpf) unless there is one. Returns 1 if it was
 * mounted now. -EXDEV: there is none, and the calling process is in a mount
 * namespace other than the host's (as under `ip netns exec`), where pins would
 * vanish with it.
 */
HY_API int hy_steer_bpffs(const char *path, hy_steer_error *error);

#endif
