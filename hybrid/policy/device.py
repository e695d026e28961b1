"""What a policy says of frame devices and of the kernel's sockets: the sections `dpdk`, `tap`, `uring`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface

__all__ = ["DpdkPort", "FrameDevice", "Tap", "Uring", "Via"]


class FrameDevice(StrEnum):
    """What moves the frames of an interface between it and a program."""

    AFXDP = "afxdp"
    PACKET = "packet"
    TAP = "tap"
    DPDK = "dpdk"

    @property
    def steered(self) -> bool:
        """Whether our XDP program chooses the frames (a DPDK port that owns its NIC has none: see Via)."""
        return self in (FrameDevice.AFXDP, FrameDevice.DPDK)


class Via(StrEnum):
    """How frames come to a DPDK port."""

    DEVMAP = "devmap"  # our program redirects them into a veth whose far end the port owns
    AFXDP = "af_xdp"  # DPDK's af_xdp port runs our steering object
    WHOLE = "whole"  # the NIC is DPDK's


@dataclass(frozen=True, slots=True)
class DpdkPort:
    """The DPDK port of an interface. ``port`` empty: made from ``via`` and the interface."""

    via: Via = Via.DEVMAP
    port: str = ""
    queues: int = 1
    eal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tap:
    """Our end of a TAP device: a host of its own on that link."""

    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Uring:
    """What is requested of the kernel's sockets by io_uring."""

    sqpoll: bool = False
    busy_poll: bool = False
    zerocopy: bool = True
    strict: bool = False
