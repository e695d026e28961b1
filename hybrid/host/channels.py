"""What an interface is right now: its number, how many receive queues it has (ethtool -l)."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCETHTOOL, _ETHTOOL_GCHANNELS = 0x8946, 0x3C


def interface_number(name: str) -> int:
    """0: there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def receive_queues(name: str) -> int:
    """1 where the driver doesn't say. 0: there is no such interface."""
    if not interface_number(name):
        return 0
    # struct ethtool_channels: cmd, max_{rx,tx,other,combined}, {rx,tx,other,combined}_count
    channels = array.array("I", [_ETHTOOL_GCHANNELS, *([0] * 8)])
    request = struct.pack("16sP", name.encode(), channels.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request.ljust(40, b"\0"))
        except OSError:
            return 1
    return max(1, channels[5] + channels[8])
