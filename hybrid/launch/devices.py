"""What is opened with privileges for a device and then handed over: one descriptor each."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress
from typing import Protocol

from hybrid.errors import UnsupportedError, from_errno
from hybrid.launch.control import Device, Kind

_AF_XDP = 44
_TUN, _TUNSETIFF = "/dev/net/tun", 0x400454CA
_TAP_FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
# What a socket is given before it is handed over, because it wants CAP_NET_ADMIN: see hybrid/afxdp/xsk.c.
_SO_SNDBUFFORCE, _SO_BUSY_POLL, _SO_PREFER_BUSY_POLL, _SO_BUSY_POLL_BUDGET = 32, 46, 69, 70
_BUSY_POLL_US, _BUSY_POLL_FRAMES, _SKB_BYTES, _RING_SIZE = 20, 64, 2304, 2048


class Descriptor(Protocol):
    """A socket or a file."""

    def fileno(self) -> int:
        """Its number."""

    def close(self) -> None:
        """Lets go of it."""


def open_device(device: Device) -> Descriptor:
    """For AF_XDP ``socket()`` only: the program registers its memory and binds. For DPDK the port's lease."""
    if device.kind in (Kind.AFXDP, Kind.DPDK):
        return _xdp_socket(device)
    if device.kind is Kind.TAP:
        return _tap(device.interface)
    raise UnsupportedError(
        f"{device.interface}: a {device.kind.name.lower()} device cannot be handed to a program yet",
        "open it in the program itself",
    )


def _tap(name: str) -> Descriptor:
    """A TAP device of that name, which is there for as long as somebody holds it."""
    try:
        made = os.fdopen(os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), "r+b", buffering=0)
    except OSError as error:
        raise from_errno(
            error.errno or 0, f"open {_TUN}", "run it as root, where there is /dev/net/tun"
        ) from None
    try:
        fcntl.ioctl(made, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_FLAGS))
    except OSError as error:
        made.close()
        raise from_errno(error.errno or 0, f"make the TAP device {name}") from None
    return made


def _xdp_socket(device: Device) -> socket.socket:
    try:
        made = socket.socket(_AF_XDP, socket.SOCK_RAW)
    except OSError as error:
        raise from_errno(error.errno or 0, "open an AF_XDP socket", _socket_remedy(error.errno)) from None
    if device.kind is Kind.DPDK:
        return made
    options = [(_SO_SNDBUFFORCE, (device.ring_size or _RING_SIZE) * _SKB_BYTES)]
    if device.busy_poll:
        options += [
            (_SO_PREFER_BUSY_POLL, 1),
            (_SO_BUSY_POLL, _BUSY_POLL_US),
            (_SO_BUSY_POLL_BUDGET, _BUSY_POLL_FRAMES),
        ]
    for option, value in options:
        with suppress(OSError):  # what is not obtained shows in what the program reports
            made.setsockopt(socket.SOL_SOCKET, option, value)
    return made


def _socket_remedy(number: int | None) -> str | None:
    if number == errno.EAFNOSUPPORT:
        return "use a kernel with CONFIG_XDP_SOCKETS=y: hybrid doctor"
    return None
