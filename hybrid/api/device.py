"""Devices that a shard opens by itself where XDP cannot be had: TAP devices and packet sockets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from hybrid._native import ffi, lib
from hybrid.api._handle import Handle
from hybrid.api.address import Address
from hybrid.api.errors import AttachError
from hybrid.api.host import IP, mac_bytes

if TYPE_CHECKING:
    from hybrid._native import CData


class Request(IntEnum):
    """How much a feature is wanted. What was had is in what the attach returns."""

    #: where it can be had
    AUTO = 0
    NO = 1
    #: or :class:`AttachError`
    MUST = 2


class PacketMode(IntEnum):
    """How a packet socket and the kernel, which sees the same frames, keep out of each other's way."""

    #: a station of our own: addresses that the kernel does not have
    OWN = 0
    #: flows of the kernel's own addresses, dropped at tc ingress before its stack sees them
    SHARED = 1


@dataclass(frozen=True, slots=True)
class Flow:
    """Destination ports ``first`` to ``last``. ``protocol``: 6 TCP, 17 UDP."""

    protocol: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Tap:
    """What was obtained. ``mac`` and ``ifindex`` are those of the kernel's end of the cable."""

    name: str
    ifindex: int
    mtu_bytes: int
    mac: str
    offload: bool
    registered: bool
    deferred: bool


@dataclass(frozen=True, slots=True)
class Packet:
    """What was obtained. ``mac`` is what our frames are sent from; ``quiet``: "tcx", "clsact" or ""."""

    mtu_bytes: int
    mac: str
    offload: bool
    quiet: str
    deferred: bool


def _mac_text(c: CData) -> str:
    return ":".join(f"{byte:02x}" for byte in c)


def _attach(handle: Handle, action: str, function: object, config: CData, obtained: CData) -> None:
    assert callable(function)
    result = int(handle.call(function, config, obtained))
    if result < 0:
        raise AttachError(action, -result)


def attach_tap(
    handle: Handle, name: str, ifindex: int, queue: int, fd: int, multi_queue: bool, offload: Request
) -> Tap:
    """``hy_tap_attach``."""
    if len(name.encode()) >= lib.HY_IFNAME_BYTES:
        raise ValueError(f"{name!r} is too long for an interface")
    config = ffi.new("hy_tap_config *")
    config.struct_size = ffi.sizeof("hy_tap_config")
    config.name = name.encode()
    config.ifindex, config.queue, config.tap_fd = ifindex, queue, fd
    config.multi_queue, config.offload = multi_queue, offload
    got = ffi.new("hy_tap_obtained *")
    _attach(handle, f"attach the TAP device {name}".rstrip(), lib.hy_tap_attach, config, got)
    return Tap(
        name=ffi.string(got.name).decode(),
        ifindex=got.ifindex,
        mtu_bytes=got.mtu_bytes,
        mac=_mac_text(got.mac),
        offload=bool(got.offload),
        registered=bool(got.registered),
        deferred=bool(got.deferred),
    )


def flows_to_c(flows: Sequence[Flow]) -> CData:
    """A ``hy_packet_flow[]``."""
    out = ffi.new("hy_packet_flow[]", max(1, len(flows)))
    for to, flow in zip(out, flows, strict=False):
        to.protocol, to.port_lo, to.port_hi = flow.protocol, flow.first, flow.last
    return out


def packet_config(
    interface: int,
    ifindex: int,
    fd: int,
    mode: PacketMode,
    mac: str | None,
    addresses: Sequence[IP],
    flows: Sequence[Flow],
) -> CData:
    """A ``hy_packet_config``."""
    if len(addresses) > lib.HY_PACKET_ADDRS or len(flows) > lib.HY_PACKET_FLOWS:
        raise ValueError(
            f"a packet device serves {lib.HY_PACKET_ADDRS} addresses and {lib.HY_PACKET_FLOWS} flows"
        )
    config = ffi.new("hy_packet_config *")
    config.struct_size = ffi.sizeof("hy_packet_config")
    config.interface, config.ifindex, config.packet_fd, config.mode = interface, ifindex, fd, mode
    if mac is not None:
        config.mac = mac_bytes(mac)
    config.naddrs, config.nflows = len(addresses), len(flows)
    for to, ip in zip(config.addrs, addresses, strict=False):
        Address(ip).fill(to)
    for to_flow, flow in zip(config.flows, flows_to_c(flows), strict=False):
        to_flow.protocol, to_flow.port_lo, to_flow.port_hi = flow.protocol, flow.port_lo, flow.port_hi
    return config


def attach_packet(handle: Handle, config: CData) -> Packet:
    """``hy_packet_attach``."""
    got = ffi.new("hy_packet_obtained *")
    action = f"attach a packet socket to interface {config.interface}"
    _attach(handle, action, lib.hy_packet_attach, config, got)
    return Packet(
        mtu_bytes=got.mtu_bytes,
        mac=_mac_text(got.mac),
        offload=bool(got.offload),
        quiet=("", "tcx", "clsact")[got.quiet],
        deferred=bool(got.deferred),
    )


def open_packet(
    interface: int, mac: str | None = None, addresses: Sequence[IP] = (), mode: PacketMode = PacketMode.OWN
) -> int:
    """A packet socket in own-address mode, bound and filtered, for ``attach_packet(fd=...)`` of a process
    without privileges. The descriptor is the caller's."""
    result = int(lib.hy_packet_open(packet_config(interface, 0, -1, mode, mac, addresses, ())))
    if result < 0:
        raise AttachError(f"open a packet socket on interface {interface}", -result)
    return result
