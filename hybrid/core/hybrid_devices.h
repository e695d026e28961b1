/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hybrid_devices.h - what a shard is given to move its packets with: devices that
 * bring frames to the stack, and the kernel's own sockets. A part of hybrid.h, which
 * includes it.
 *
 * Every attach function reports what it obtained, beside what was requested, and where
 * it fails hy_error_detail() says how to mend it.
 */
#ifndef HYBRID_DEVICES_H
#define HYBRID_DEVICES_H

#ifndef HY_CDEF
#include "hybrid.h"
#endif

/* ---- devices ------------------------------------------------------------ */

/*
 * How much a feature is wanted: taken where it can be had and nothing speaks against it, not asked for, or
 * -EOPNOTSUPP without it. ASK, where it is allowed: taken wherever it can be had.
 */
enum hy_request { HY_REQUEST_AUTO = 0, HY_REQUEST_NO = 1, HY_REQUEST_MUST = 2, HY_REQUEST_ASK = 3 };

/*
 * Devices may come and go while the shard runs. One that fails for good (its interface is deleted) is
 * taken out by the shard itself: connections over it end with -ENETDOWN, listeners stay,
 * HY_NOTICE_DEVICE_LOST is sent and `devices_lost` counts. This takes one out on purpose, with the same end
 * for its connections. -ENODEV: the shard has no such queue.
 */
HY_API int hy_shard_remove_device(hy_shard *shard, uint32_t ifindex, uint32_t queue);

/* The memory device: a wire between two shards of one process (or one shard and itself). */
HY_API int hy_memory_attach(hy_shard *a, uint32_t ifindex_a, hy_shard *b, uint32_t ifindex_b);

/*
 * AF_XDP. Opens queue `queue` of interface `ifindex` for this shard; steering
 * frames to it is the control plane's business (map_fd). The call takes
 * xsk_fd over, also where it fails (a socket can be set up only once).
 * -EPERM: xsk_fd is -1 and CAP_NET_RAW is missing. -ENOLCK: the arena can't be
 * locked in memory: it counts against RLIMIT_MEMLOCK of the user, once for all queues
 * that share a registration (shared_umem), unless the process has CAP_IPC_LOCK. -EBUSY: the queue has an
 * AF_XDP socket, or xsk_fd was set up before. -ENODEV, -EINVAL: no such interface,
 * no such queue. -EOPNOTSUPP: strict, and what was requested can't be had.
 */
enum hy_xdp_mode { HY_XDP_AUTO = 0, HY_XDP_NATIVE = 1, HY_XDP_GENERIC = 2 };
enum hy_xdp_copy { HY_XDP_COPY_AUTO = 0, HY_XDP_ZEROCOPY = 1, HY_XDP_COPY = 2 };
typedef struct hy_afxdp_config {
  uint32_t struct_size;
  uint32_t ifindex;
  uint32_t queue;
  int32_t xsk_fd;       /* an AF_XDP socket opened by somebody with the privilege, or -1 */
  int32_t map_fd;       /* XSKMAP to enter the socket into, or -1: the caller will */
  uint32_t ring_size;   /* descriptors in each of the four rings; power of two; 0: 2048 */
  uint8_t copy;         /* requested: enum hy_xdp_copy */
  uint8_t busy_poll;    /* requested: 1: SO_PREFER_BUSY_POLL */
  uint8_t strict;       /* 1: what was requested must be obtained, or -EOPNOTSUPP */
  uint8_t multi_buffer; /* enum hy_request: packets of several frames, for an MTU beyond one (Linux 6.6) */
  uint8_t shared_umem;  /* enum hy_request: one registration of the arena for all queues of the shard */
  /*
   * enum hy_request: transport checksums are completed on the way out (Linux 6.8). AUTO: where the device
   * does it, in zero-copy mode. MUST, ASK: in copy mode too, where the kernel sees to it as for packets of
   * its own: right for all but a veth peer that reads frames before they are complete (ethtool -K DEV tx
   * off).
   */
  uint8_t tx_checksum;
  uint8_t reserved[2];
} hy_afxdp_config;
typedef struct hy_afxdp_obtained {
  uint8_t zerocopy; /* 1: zero-copy, 0: copy */
  uint8_t busy_poll;
  uint8_t need_wakeup;
  uint8_t hugepages;
  uint32_t ring_size;
  uint8_t multi_buffer;
  uint8_t shared_umem; /* 1: the arena was registered by an earlier queue, and is counted there */
  uint8_t tx_checksum;
  uint8_t reserved;
  uint32_t packet_bytes_max; /* longest packet, from the Ethernet header on */
} hy_afxdp_obtained;
HY_API int hy_afxdp_attach(hy_shard *shard, const hy_afxdp_config *config, hy_afxdp_obtained *obtained);

/*
 * Frames where XDP can't be had, moved by io_uring: a TAP device or a packet
 * socket. Both need Linux 5.19, and 6.1 to be at their best. Every failure has its
 * sentence in hy_error_detail(). The device gets its addresses from the row
 * `ifindex` of the host table, as every device does (hy_host_update).
 */
enum { HY_IFNAME_BYTES = 16, HY_PACKET_ADDRS = 4, HY_PACKET_FLOWS = 16 };

/*
 * TAP: a cable to the host's kernel, whose end is the interface. It wants nothing but /dev/net/tun and
 * CAP_NET_ADMIN, or a queue that somebody else opened (tap_fd). The kernel's end has the kernel's MAC and
 * addresses; ours are the table's, in a row with answers_arp = 1. With multi_queue each call is one more
 * queue of the same name, and the kernel sends a flow to the queue that last sent for it. Bringing the
 * interface up is left to whoever gives it an address. -ENOENT no /dev/net/tun; -EPERM; -EBUSY the name
 * belongs to a TAP in use, or one of another kind; -EINVAL; -ENOLCK registered buffers must be had and can't
 * be locked.
 */
typedef struct hy_tap_config {
  uint32_t struct_size;
  uint32_t ifindex;           /* row of the host table; 0: the interface's own index */
  uint32_t queue;             /* which of several this is: for hy_shard_remove_device() */
  char name[HY_IFNAME_BYTES]; /* "": the kernel chooses */
  int32_t tap_fd;             /* a queue that TUNSETIFF was called for, taken over; or -1 */
  uint8_t multi_queue;        /* 1: the interface may have several */
  uint8_t offload;    /* enum hy_request: checksums and segmentation are left undone on the way to us */
  uint8_t registered; /* enum hy_request: the arena as a registered buffer to send from */
  uint8_t reserved;
} hy_tap_config;
typedef struct hy_tap_obtained {
  char name[HY_IFNAME_BYTES];
  uint32_t ifindex;   /* the interface's own */
  uint32_t mtu_bytes; /* its */
  uint8_t mac[6];     /* the kernel's end: not ours */
  uint8_t offload;
  uint8_t registered;
  uint8_t deferred; /* 1: the kernel works when asked (Linux 6.1) */
  uint8_t reserved[3];
} hy_tap_obtained;
HY_API int hy_tap_attach(hy_shard *shard, const hy_tap_config *config, hy_tap_obtained *obtained);

/*
 * A packet socket sees what the kernel sees, and the kernel answers what it sees. Two ways to keep it quiet:
 *
 * HY_PACKET_OWN: we are another station on the wire, with a MAC address that the kernel doesn't have (the
 * interface turns promiscuous) or, with mac all zeroes, only with IP addresses that it doesn't have. The
 * kernel takes our frames for somebody else's. The row of the table has answers_arp = 1. CAP_NET_RAW is
 * enough: right for containers, on veth and bridges. Where the network lets through one MAC address only
 * (macvlan, most clouds), leave mac at zeroes; the host must not forward then, or it would pass our packets
 * on.
 *
 * HY_PACKET_SHARED: we serve `flows` of the interface's own MAC and addresses. A program at the interface's
 * tc ingress, which comes after packet sockets, drops exactly these flows before the kernel's stack sees
 * them, so that it resets nothing. It goes with the device: at once where the kernel has tcx (Linux 6.6);
 * else it is a clsact filter that lets everything pass when the shard has not been polled for 10 s, so that a
 * process that was killed takes nothing with it. The kernel answers ARP and ND: answers_arp = 0, with the
 * kernel's neighbours in the table. Wants CAP_BPF and CAP_NET_ADMIN besides. Ports of outgoing connections
 * (hy_config.port_lo, port_hi) are flows too, and must be outside the kernel's ip_local_port_range.
 *
 * VLAN-tagged frames and fragments stay the kernel's in both. Packets that the sender's kernel merged or left
 * without a checksum (veth, virtual machines) are cut up and marked as checked.
 * -EPERM; -ENODEV no such interface; -EINVAL; -EOPNOTSUPP.
 */
enum hy_packet_mode { HY_PACKET_OWN = 0, HY_PACKET_SHARED = 1 };
typedef struct hy_packet_flow {
  uint8_t protocol; /* 6 or 17 */
  uint8_t reserved;
  uint16_t port_lo, port_hi; /* destination, inclusive */
} hy_packet_flow;
typedef struct hy_packet_config {
  uint32_t struct_size;
  uint32_t interface; /* index of the interface */
  uint32_t ifindex;   /* row of the host table; 0: the same number */
  int32_t packet_fd;  /* from hy_packet_open() with this configuration, taken over; or -1: opened here */
  uint8_t mode;       /* enum hy_packet_mode */
  uint8_t mac[6];     /* own: ours; all zeroes: the interface's */
  uint8_t naddrs;     /* destinations that are ours; 0: every one (own: with a MAC of our own only) */
  uint8_t nflows;     /* shared: at least one */
  uint8_t reserved[3];
  hy_addr addrs[HY_PACKET_ADDRS];
  hy_packet_flow flows[HY_PACKET_FLOWS];
} hy_packet_config;
typedef struct hy_packet_obtained {
  uint32_t mtu_bytes; /* the interface's */
  uint8_t mac[6];     /* what our frames are to be sent from */
  uint8_t offload;    /* 1: merged packets and partial checksums are understood */
  uint8_t quiet;      /* shared: 1 tcx, 2 clsact */
  uint8_t deferred;   /* 1: the kernel works when asked (Linux 6.1) */
  uint8_t reserved[3];
} hy_packet_obtained;
HY_API int hy_packet_attach(hy_shard *shard, const hy_packet_config *config, hy_packet_obtained *obtained);
/*
 * Shared mode: other flows from now on, as ports are bound and given back. -ENODEV: the shard has no shared
 * packet device with this row.
 */
HY_API int hy_packet_set_flows(hy_shard *shard, uint32_t ifindex, const hy_packet_flow *flows, unsigned n);
/*
 * The privileged half of an attach in own mode, for a process without privileges: a socket, bound and
 * filtered, to be sent to it. Returns the descriptor.
 */
HY_API int hy_packet_open(const hy_packet_config *config);

/*
 * What io_uring offers here, found out by opening rings and closing them again. The caller sets struct_size.
 * -EPERM, -EACCES: io_uring is disabled, by kernel.io_uring_disabled or by a seccomp filter.
 * -ENOSYS: the kernel has no io_uring, or one older than Linux 5.6.
 */
typedef struct hy_uring_features {
  uint32_t struct_size;
  uint32_t opcodes; /* how many operations the kernel knows */
  uint8_t single_issuer;
  uint8_t defer_taskrun;
  uint8_t sqpoll;
  uint8_t multishot;    /* accept and receive */
  uint8_t buffer_rings; /* provided buffers that need no system call */
  uint8_t registered_files;
  uint8_t zerocopy_send;
  uint8_t napi_busy_poll;
} hy_uring_features;
HY_API int hy_uring_probe(hy_uring_features *out);

/* ---- kernel sockets ------------------------------------------------------ */

/*
 * Kernel sockets, driven by io_uring, beside the bypass or without any: HY_BACKEND_KERNEL. The same queues,
 * tokens and buffers; no privilege and no device. Linux 6.1.
 *
 * A push completes when the kernel has taken all of its bytes over, and one that was sent without a copy when
 * the kernel reads them no more: the peer has acknowledged them. sndbuf_bytes bounds what the kernel has not
 * taken or still reads; what it has copied is bounded by its own net.ipv4.tcp_wmem.
 *
 * From the first wait or poll on the shard stays with the thread that made it.
 */
enum hy_uring_zerocopy {
  HY_URING_ZEROCOPY_AUTO = 0, /* long sends, on connections where the kernel does not copy after all */
  HY_URING_ZEROCOPY_NO = 1,
  HY_URING_ZEROCOPY_ALWAYS = 2, /* every send of a connection: to try it */
};
typedef struct hy_uring_config {
  uint32_t struct_size;
  uint32_t entries; /* submissions per call; a power of two; 0: 512 */
  uint32_t buffers; /* frames lent to the kernel to receive into; a power of two; 0: 1024, or what fits */
  uint32_t zerocopy_bytes;       /* AUTO: sends from this size on; 0: 32 KiB */
  uint8_t zerocopy;              /* enum hy_uring_zerocopy */
  uint8_t sqpoll;                /* requested: 1: a thread of the kernel's submits, which wants a core */
  uint8_t napi_busy_poll;        /* requested: 1: waiting polls the network devices (Linux 6.9) */
  uint8_t no_registered_files;   /* 1: connections stay ordinary descriptors */
  uint8_t no_registered_buffers; /* 1: the arena is not registered */
  uint8_t strict; /* 1: what was requested, or not switched off, must be obtained, or -EOPNOTSUPP */
  uint8_t reserved[2];
} hy_uring_config;
typedef struct hy_uring_obtained {
  uint32_t entries;
  uint32_t buffers;
  uint8_t deferred_taskrun; /* SINGLE_ISSUER and DEFER_TASKRUN: the kernel works only inside our calls */
  uint8_t sqpoll;
  uint8_t bundles; /* one receive fills several frames (Linux 6.10) */
  uint8_t zerocopy;
  uint8_t zerocopy_reports;   /* the kernel says whether it copied after all (Linux 6.2) */
  uint8_t registered_files;   /* connections need no descriptor of the process (Linux 6.13) */
  uint8_t registered_buffers; /* zero-copy sends need not pin memory each time */
  uint8_t napi_busy_poll;
} hy_uring_obtained;
/*
 * config and obtained may be NULL. -EPERM, -ENOSYS: io_uring is switched off (sysctl, seccomp); -EOPNOTSUPP:
 * the kernel is too old, or strict and something can't be had; -EBUSY: the shard has kernel sockets already;
 * -EINVAL, -ENOMEM. hy_error_detail() says more.
 */
HY_API int hy_uring_attach(hy_shard *shard, const hy_uring_config *config, hy_uring_obtained *obtained);

/*
 * DPDK, in a shared object of its own (libhybrid-dpdk.so, beside libhybrid) that the first call loads: a
 * host without DPDK runs everything else. Frames and mbufs are one memory: the shard must be opened with
 * frame_prefix_bytes = HY_DPDK_PREFIX, where the driver keeps its descriptor of each frame.
 *
 * A port is shared and a queue is owned: each queue of a port is attached once, by one shard, and shards
 * may be in different threads. The first attach of a port says how many queues it has; frames
 * move from the moment when the last of them is attached. EAL, DPDK's runtime, starts once per process,
 * with the arguments of the first attach.
 *
 * Whatever DPDK does when something goes wrong in it (rte_exit, rte_panic) ends here as an error:
 * afterwards every port of the process is dead and only a new process can use DPDK again.
 *
 * -ENOENT: the plugin or DPDK itself is not installed. -ELIBBAD: it was built for another libhybrid or
 * another DPDK. -EIO: EAL did not start, or has given up. -ENODEV: no such port, or its driver refused.
 * -EBUSY: the queue is attached. -EINVAL: a field is out of range. -ENOMEM: the arena is too small for the
 * port's rings. -EOPNOTSUPP: strict, and what was requested can't be had. hy_error_detail() says more.
 */
enum { HY_DPDK_PREFIX = 192, HY_DPDK_NAME_BYTES = 64 };
struct hy_steer_rule; /* bpf/steer.h: `to dpdk` means: to this port's shards */
typedef struct hy_dpdk_config {
  uint32_t struct_size;
  uint32_t ifindex; /* row of the host table that describes the link */
  /*
   * "net_memif0,role=server,id=0,socket=/run/x", "net_af_xdp0,iface=eth1", "0000:03:00.0", or the name of a
   * port that there is. "ring:NAME" (twice) joins two shards of this process by a pair of rings.
   */
  const char *port;
  const char *const
      *eal; /* arguments of EAL; NULL: no hugepages, no files, and no PCI unless port names one */
  uint32_t neal;
  uint16_t queue;
  uint16_t queues;  /* of the port; 0: 1 */
  uint16_t rx_desc; /* of each queue; 0: 512, or what the driver and the arena allow */
  uint16_t tx_desc;
  uint16_t mtu_bytes; /* 0: as it is */
  uint8_t checksum;   /* requested: enum hy_request, both directions */
  uint8_t interrupt;  /* requested: enum hy_request: sleep on the port's interrupt */
  uint8_t flow;       /* 1: the rules below are put into the NIC (rte_flow): only what they name arrives */
  uint8_t strict;     /* 1: what was requested must be obtained, or -EOPNOTSUPP */
  uint8_t reserved[2];
  /* The port has the NIC to itself: what no rule names goes to the kernel through this net_tap port. NULL:
   * no. */
  const char *exception;
  const struct hy_steer_rule *rules; /* of the port; in any order */
  uint32_t nrules;
  uint32_t reserved2;
} hy_dpdk_config;
typedef struct hy_dpdk_obtained {
  char name[HY_DPDK_NAME_BYTES];   /* of the port */
  char driver[HY_DPDK_NAME_BYTES]; /* "net_memif" */
  char version[HY_DPDK_NAME_BYTES];
  uint8_t mac[6];
  uint8_t answers_arp;     /* 1: no kernel behind the port: its row of the host table should say so */
  uint8_t running;         /* 1: all queues are attached */
  uint32_t kernel_ifindex; /* of the netdev behind the port, or of the exception path; 0: none */
  uint16_t mtu_bytes;
  uint16_t queues;
  uint16_t rx_desc;
  uint16_t tx_desc;
  uint8_t rx_checksum;
  uint8_t tx_checksum;
  uint8_t tso; /* the port could; whether it is used is the stack's business */
  uint8_t rss;
  uint8_t interrupt;
  uint8_t hugepages; /* of EAL's own memory */
  uint16_t flows;    /* rules in the NIC */
} hy_dpdk_obtained;
HY_API int hy_dpdk_attach(hy_shard *shard, const hy_dpdk_config *config, hy_dpdk_obtained *obtained);
/*
 * Ends a port, from any thread: its shards lose the device with -ENETDOWN at their next look, and once the
 * last of them has let go it can be attached again. -ENOENT: no such port is attached.
 */
HY_API int hy_dpdk_stop(const char *name);

/* ---- devices by hand ---------------------------------------------------- */

/*
 * The frame-level harness: a device whose wire is the caller. Make a shard with
 * the virtual clock, attach, hand it frames and a time, collect frames:
 *
 *     hy_clock_set(shard, t); hy_wire_inject(shard, port, frame, len);
 *     hy_poll(shard);         n = hy_wire_collect(shard, port, frame, sizeof frame);
 *
 * No privilege, no device, no clock: what a fuzzer, a simulator or a test wants.
 */
HY_API int hy_wire_attach(hy_shard *shard, uint32_t ifindex, uint32_t *port);
/* Copies one Ethernet frame in. -ENOBUFS: 1024 wait already. -EMSGSIZE: it does not fit a frame. */
HY_API int hy_wire_inject(hy_shard *shard, uint32_t port, const void *frame, size_t len_bytes);
/* Copies the next frame out; its length, 0 for none, -EMSGSIZE if capacity is too small (frame kept). */
HY_API int hy_wire_collect(hy_shard *shard, uint32_t port, void *frame, size_t capacity_bytes);
/* When the stack next wants to be polled though nothing arrives; UINT64_MAX: never. */
HY_API uint64_t hy_next_deadline(hy_shard *shard);

#endif
