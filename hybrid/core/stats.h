/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every counter of a shard, declared once: X(name, what it counts). The order is
 * that of the statistics page (control.h); hy_stat_name() and the metrics take
 * names from here. A frame that goes nowhere is always under one `drop_` name.
 */
#ifndef HYBRID_CORE_STATS_H
#define HYBRID_CORE_STATS_H

#include <stdint.h>

/* clang-format off */
#define STATS(X) \
  /* devices; the first twelve are struct hy_device_stats, summed */ \
  X(device_rx_frames, "frames received from devices") \
  X(device_rx_bytes, "bytes of those frames") \
  X(device_tx_frames, "frames given to devices") \
  X(device_tx_bytes, "bytes of those frames") \
  X(device_rx_dropped, "frames dropped before reaching us (kernel or wire)") \
  X(device_rx_no_frames, "frames dropped because the device had no empty frames") \
  X(device_tx_full, "transmit bursts cut short by a full ring") \
  X(device_tx_invalid, "transmit descriptors the kernel refused") \
  X(device_kicks, "system calls made to start a device") \
  X(device_tx_errors, "of these, refused for good: the interface is down or gone") \
  X(device_copied, "frames copied because a device could not take them in place") \
  X(device_passed, "frames moved between the kernel and the wire by an exception path") \
  X(devices_added, "devices that have joined") \
  X(devices_lost, "devices taken out because they failed for good") \
  X(fallback_listens, "listeners that listen on kernel sockets as well") \
  X(fallback_unavailable, "listeners that should have and could not: no kernel transport") \
  X(fallback_accepts, "connections accepted on the fallback's kernel sockets") \
  /* the loop */ \
  X(polls, "passes of the polling loop") \
  X(sleeps, "times the loop slept for want of work") \
  X(events, "completions handed to the application") \
  /* input, and why a frame went nowhere */ \
  X(ip_in, "IP packets received") \
  X(drop_short, "frame shorter than its headers say") \
  X(drop_mac, "frame for another MAC address") \
  X(drop_ethertype, "frame neither IP nor, where we answer it, ARP") \
  X(drop_ip_header, "malformed IP header or header checksum wrong") \
  X(drop_fragment, "IP fragment") \
  X(drop_ip_option, "IPv6 extension header that can't be skipped, or IPv4 source route") \
  X(drop_protocol, "IP protocol other than TCP and UDP") \
  X(drop_not_local, "destination isn't an address of this host") \
  X(drop_bad_source, "source address that nobody can have (multicast, broadcast, our own)") \
  X(drop_checksum, "TCP or UDP checksum wrong") \
  X(drop_tcp_header, "malformed TCP header") \
  X(drop_udp_header, "malformed UDP header") \
  X(drop_no_socket, "no socket on that port") \
  X(drop_icmp, "ICMP message (errors are not acted upon yet)") \
  X(drop_no_memory, "too few free frames to keep the data") \
  X(drop_udp_full, "UDP socket's receive queue full") \
  X(drop_udp_long, "UDP datagram in more frames than an array has pieces") \
  X(drop_neighbour, "packet waited for a neighbour that didn't answer, or too many waited") \
  X(drop_no_route, "packet to send without a route") \
  X(drop_state, "TCP segment unacceptable in the connection's state") \
  X(drop_paws, "TCP segment with an old timestamp (RFC 7323 section 5)") \
  X(drop_window, "TCP segment outside the window") \
  X(drop_duplicate, "TCP segment with data already received") \
  X(drop_ooo_full, "out-of-order data beyond what may be kept") \
  X(drop_backlog, "SYN refused: the listener's backlog is full") \
  X(drop_table_full, "SYN refused: connection table full") \
  /* TCP */ \
  X(tcp_in, "segments received") \
  X(tcp_in_fast, "of those, by header prediction") \
  X(tcp_out, "segments sent") \
  X(tcp_out_in_place, "of those, from the application's frame without a copy") \
  X(tcp_out_copied_bytes, "payload bytes copied to build segments") \
  X(tcp_out_chained, "segments sent in several frames") \
  X(checksums_left, "checksums left to the device") \
  X(tcp_in_copied_bytes, "payload bytes copied to merge small segments") \
  X(tcp_retransmits, "segments sent again") \
  X(tcp_rto, "retransmission time-outs") \
  X(tcp_fast_retransmits, "losses repaired after three duplicate ACKs") \
  X(tcp_probes, "zero-window probes sent") \
  X(tcp_resets_out, "RST sent") \
  X(tcp_resets_in, "RST accepted") \
  X(tcp_challenge_acks, "challenge ACKs sent (RFC 5961)") \
  X(tcp_out_of_order, "segments that arrived ahead of a gap") \
  X(tcp_opened_active, "connections opened by us") \
  X(tcp_opened_passive, "connections opened by a peer") \
  X(tcp_half_open_evicted, "half-open connections dropped to admit a newer SYN") \
  X(tcp_time_wait_recycled, "TIME_WAIT entries given up early for a new connection") \
  X(tcp_timed_out, "connections given up for want of an answer") \
  X(tcp_blocked_no_frames, "times output waited for a free frame") \
  /* kernel sockets, by io_uring */ \
  X(kernel_calls, "system calls made to move data of kernel sockets") \
  X(kernel_opened_active, "their connections opened by us") \
  X(kernel_opened_passive, "their connections opened by a peer") \
  X(kernel_in, "receives completed") \
  X(kernel_in_bytes, "payload bytes of those") \
  X(kernel_in_copied_bytes, "payload bytes copied to merge small ones") \
  X(kernel_out, "sends completed") \
  X(kernel_out_bytes, "payload bytes of those") \
  X(kernel_out_zerocopy, "of those sends, asked for without a copy") \
  X(kernel_out_zerocopy_copied, "of these, copied by the kernel all the same") \
  X(kernel_datagrams_in, "datagrams received") \
  X(kernel_datagrams_out, "datagrams sent") \
  X(kernel_no_buffers, "receives that stopped because no frame was lent to the kernel") \
  X(kernel_paused, "receives stopped because their reader is behind") \
  X(kernel_accept_stalls, "accepts put off for want of descriptors or sockets") \
  X(kernel_drop_table_full, "connections refused: all of them are in use") \
  X(kernel_drop_long, "datagrams dropped because they do not fit a frame") \
  X(kernel_resets_in, "connections that a peer reset") \
  /* UDP, neighbours */ \
  X(udp_in, "datagrams received") \
  X(udp_out, "datagrams sent") \
  X(neighbour_requests, "requests to have a neighbour resolved") \
  X(arp_answered, "ARP and ND requests answered")
/* clang-format on */

struct stats {
#define STATS_FIELD(name, help) uint64_t name;
  STATS(STATS_FIELD)
#undef STATS_FIELD
};

#define STATS_COUNT (sizeof(struct stats) / sizeof(uint64_t))

#endif
