"""The messages of hybrid/core/control.h, from the launcher's side.

One SOCK_SEQPACKET socket pair; a message is one datagram. What arrives comes from a program
without privileges, so it is parsed as such: by size and magic, with bounds on every count.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from hybrid._native import ffi, lib
from hybrid.errors import HybridError
from hybrid.host.notice import NOTICE_BYTES, Notice

MAGIC: int = lib.HY_CONTROL_MAGIC
DEVICES_MAX: int = lib.HY_CONTROL_DEVICES
READY_BYTES = ffi.sizeof("hy_ready")
MESSAGE_MAX = max(READY_BYTES, NOTICE_BYTES) + 1
ENVIRONMENT = "HYBRID_CONTROL"


class Copy(IntEnum):
    """How frames cross between the driver and the program (enum hy_xdp_copy)."""

    AUTO = 0
    ZEROCOPY = 1
    COPY = 2


@dataclass(frozen=True, slots=True)
class Device:
    """One queue of an interface, with what is requested of it."""

    ifindex: int
    queue: int
    ring_size: int = 0
    copy: Copy = Copy.AUTO
    busy_poll: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class DeviceObtained:
    """What one of them came to."""

    zerocopy: bool
    busy_poll: bool
    need_wakeup: bool
    hugepages: bool
    ring_size: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The program listens; its sockets are bound."""

    obtained: tuple[DeviceObtained, ...]


def send_handover(
    sock: socket.socket,
    devices: Sequence[Device],
    ports: tuple[int, int] | None,
    fds: Sequence[int],
) -> None:
    """Gives the program its datapath. ``fds``: host table, statistics page, one AF_XDP socket per device."""
    if len(devices) > DEVICES_MAX:
        raise HybridError(
            f"{len(devices)} queues are more than the {DEVICES_MAX} that one program takes",
            "name fewer interfaces, or give them fewer queues (ethtool -L)",
        )
    assert len(fds) == 2 + len(devices), "host table, statistics page, and a socket for each device"
    c = ffi.new("hy_handover *")
    c.magic, c.ndevices = MAGIC, len(devices)
    c.port_lo, c.port_hi = ports or (0, 0)
    for to, device in zip(c.devices, devices, strict=False):
        to.ifindex, to.queue, to.ring_size = device.ifindex, device.queue, device.ring_size
        to.copy, to.busy_poll, to.strict = device.copy, device.busy_poll, device.strict
    socket.send_fds(sock, [bytes(ffi.buffer(c))], list(fds))


def parse(datagram: bytes) -> Ready | Notice | None:
    """What the program says; ``None`` where it makes no sense."""
    if len(datagram) != READY_BYTES:
        return Notice.parse(datagram)
    c = ffi.new("hy_ready *")
    ffi.memmove(c, datagram, READY_BYTES)
    if c.magic != MAGIC or c.ndevices > DEVICES_MAX:
        return None
    return Ready(
        tuple(
            DeviceObtained(
                bool(o.zerocopy), bool(o.busy_poll), bool(o.need_wakeup), bool(o.hugepages), o.ring_size
            )
            for o in (c.obtained[i] for i in range(c.ndevices))
        )
    )


def send_go(sock: socket.socket, status: int) -> None:
    """Answers :class:`Ready`: 0, or a negative errno for why the queues could not go into service."""
    c = ffi.new("hy_go *")
    c.magic, c.status = MAGIC, status
    sock.send(bytes(ffi.buffer(c)))
