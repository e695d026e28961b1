"""The messages of hybrid/core/control.h, from the launcher's side.

One SOCK_SEQPACKET socket pair; a message is one datagram. What arrives comes from a program
without privileges, so it is parsed as such: by size and magic, with bounds on every count.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from hybrid._native import ffi, lib
from hybrid.errors import HybridError
from hybrid.host.notice import NOTICE_BYTES, Notice
from hybrid.policy import Placement, Protocol

if TYPE_CHECKING:
    from hybrid._native import CData

MAGIC: int = lib.HY_CONTROL_MAGIC
PORT_QUEUE: int = lib.HY_CONTROL_PORT_QUEUE
DEVICES_MAX: int = lib.HY_CONTROL_DEVICES
PLACEMENTS_MAX: int = lib.HY_PLACEMENTS
READY_BYTES = ffi.sizeof("hy_ready")
ATTACHED_BYTES = ffi.sizeof("hy_attached")
MESSAGE_MAX = max(READY_BYTES, ATTACHED_BYTES, NOTICE_BYTES) + 1
ENVIRONMENT = "HYBRID_CONTROL"
_ERRNO_MAX = 4095  # as the kernel bounds them

_PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}


class Copy(IntEnum):
    """How frames cross between the driver and the program (enum hy_xdp_copy)."""

    AUTO = 0
    ZEROCOPY = 1
    COPY = 2


class Kind(IntEnum):
    """Frame devices (enum hy_control_kind)."""

    AFXDP = 1
    PACKET = 2
    TAP = 3
    DPDK = 4


class Wanted(IntEnum):
    """Kernel sockets: whether a program has them."""

    NO = 0
    FALLBACK = 1  # not having them is no failure
    NEEDED = 2


@dataclass(frozen=True, slots=True)
class Device:
    """One queue of an interface, with what is requested of it."""

    ifindex: int
    queue: int
    ring_size: int = 0
    copy: Copy = Copy.AUTO
    busy_poll: bool = False
    strict: bool = False
    tx_checksum: bool = False
    kind: Kind = Kind.AFXDP
    queues: int = 1
    args: str = ""
    interface: str = ""  # its name, for people

    @property
    def what(self) -> str:
        """For people."""
        queue = "the DPDK port" if self.kind is Kind.DPDK else f"queue {self.queue}"
        return f"{self.interface}: {queue}"

    @property
    def key(self) -> tuple[int, int]:
        """What names it in messages."""
        return self.ifindex, self.queue


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is requested of the kernel's sockets."""

    wanted: Wanted = Wanted.NO
    sqpoll: bool = False
    busy_poll: bool = False
    zerocopy: bool = True
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Handover:
    """All that a program is given, but for the descriptors."""

    devices: Sequence[Device]
    ports: tuple[int, int] | None = None
    placements: Sequence[Placement] = ()
    kernel: Kernel = field(default_factory=Kernel)
    eal: Sequence[str] = ()
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class DeviceObtained:
    """What one of them came to. ``status``: 0, or why it is not there, a negative errno."""

    zerocopy: bool
    busy_poll: bool
    need_wakeup: bool
    hugepages: bool
    ring_size: int
    status: int = 0
    note: str = ""
    multi_buffer: bool = False  # packets of several frames, for an MTU that no frame holds
    shared_umem: bool = False  # the arena was registered by an earlier queue, and is counted there
    tx_checksum: bool = False
    packet_bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class Attached:
    """A device that was given later, and what it came to."""

    key: tuple[int, int]
    obtained: DeviceObtained


@dataclass(frozen=True, slots=True)
class Ready:
    """The program listens; its devices are attached. ``kernel``: 1 not asked for, 0 there, else why not."""

    obtained: tuple[DeviceObtained, ...]
    kernel: int = 1
    kernel_note: str = ""


def send_handover(sock: socket.socket, what: Handover, fds: Sequence[int]) -> None:
    """Gives the program its datapath. ``fds``: host table, statistics page, one for each device."""
    if len(what.devices) > DEVICES_MAX:
        raise HybridError(
            f"{len(what.devices)} queues are more than the {DEVICES_MAX} that one program takes",
            "name fewer interfaces, or give them fewer queues (ethtool -L)",
        )
    if len(what.placements) > PLACEMENTS_MAX:
        raise HybridError(
            f"the policy makes {len(what.placements)} ranges of ports, and a program takes {PLACEMENTS_MAX}",
            "join rules of adjacent ports",
        )
    assert len(fds) == 2 + len(what.devices), "host table, statistics page, and one for each device"
    c = ffi.new("hy_handover *")
    c.magic, c.ndevices, c.lenient = MAGIC, len(what.devices), what.lenient
    c.port_lo, c.port_hi = what.ports or (0, 0)
    c.eal = _lines(what.eal)
    asked = what.kernel
    c.kernel.wanted, c.kernel.sqpoll, c.kernel.busy_poll = asked.wanted, asked.sqpoll, asked.busy_poll
    c.kernel.zerocopy, c.kernel.strict = asked.zerocopy, asked.strict
    c.nplacements = len(what.placements)
    for row, placement in zip(c.placements, what.placements, strict=False):
        row.protocol, row.to, row.fallback = (
            _PROTOCOLS[placement.protocol],
            placement.to,
            placement.fallback,
        )
        row.port_lo, row.port_hi = placement.ports
    for to, device in zip(c.devices, what.devices, strict=False):
        _fill(to, device)
    socket.send_fds(sock, [bytes(ffi.buffer(c))], list(fds))


def send_device(sock: socket.socket, device: Device, fd: int, eal: Sequence[str] = ()) -> None:
    """Gives a running program one more device. It answers with :class:`Attached`."""
    c = ffi.new("hy_handover_more *")
    c.magic = MAGIC
    c.eal = _lines(eal)
    _fill(c.device, device)
    socket.send_fds(sock, [bytes(ffi.buffer(c))], [fd])


def _lines(arguments: Sequence[str]) -> bytes:
    text = "".join(f"{argument}\n" for argument in arguments).encode()
    if len(text) >= lib.HY_CONTROL_EAL_BYTES:
        raise HybridError("the arguments of DPDK's EAL are too long", "name fewer in `dpdk: {eal: ...}`")
    return text


def _fill(to: CData, device: Device) -> None:
    to.ifindex, to.queue, to.ring_size = device.ifindex, device.queue, device.ring_size
    to.copy, to.busy_poll, to.strict = device.copy, device.busy_poll, device.strict
    to.kind, to.queues, to.tx_checksum = device.kind, device.queues, device.tx_checksum
    args = device.args.encode()
    if len(args) >= lib.HY_CONTROL_ARGS_BYTES:
        raise HybridError(f"the port of {device.interface} takes too many words", "name it by fewer devargs")
    to.args = args


def parse(datagram: bytes) -> Ready | Attached | Notice | None:
    """What the program says; ``None`` where it makes no sense."""
    if len(datagram) == ATTACHED_BYTES:
        one = ffi.new("hy_attached *")
        ffi.memmove(one, datagram, ATTACHED_BYTES)
        return Attached((one.ifindex, one.queue), _obtained(one)) if one.magic == MAGIC else None
    if len(datagram) != READY_BYTES:
        return Notice.parse(datagram)
    c = ffi.new("hy_ready *")
    ffi.memmove(c, datagram, READY_BYTES)
    if c.magic != MAGIC or c.ndevices > DEVICES_MAX:
        return None
    obtained = tuple(_obtained(c.devices[i]) for i in range(c.ndevices))
    return Ready(obtained, _status(c.kernel), _text(c.kernel_note))


def _obtained(c: CData) -> DeviceObtained:
    o = c.afxdp
    return DeviceObtained(
        zerocopy=bool(o.zerocopy),
        busy_poll=bool(o.busy_poll),
        need_wakeup=bool(o.need_wakeup),
        hugepages=bool(o.hugepages),
        ring_size=o.ring_size,
        multi_buffer=bool(o.multi_buffer),
        shared_umem=bool(o.shared_umem),
        tx_checksum=bool(o.tx_checksum),
        packet_bytes_max=o.packet_bytes_max,
        status=_status(c.status),
        note=_text(c.note),
    )


def _status(said: int) -> int:
    """A negative errno, 0 or 1; whatever else a program says was never the kernel's."""
    return said if -_ERRNO_MAX <= said <= 1 else -errno.EPROTO


def _text(array: CData) -> str:
    """Bounded by the array, whatever is in it, and nothing that a terminal would obey."""
    text = bytes(ffi.buffer(array)).split(b"\0", 1)[0].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in text)


def send_go(sock: socket.socket, status: int) -> None:
    """Answers :class:`Ready`: 0, or a negative errno for why the queues could not go into service."""
    c = ffi.new("hy_go *")
    c.magic, c.status = MAGIC, status
    sock.send(bytes(ffi.buffer(c)))
