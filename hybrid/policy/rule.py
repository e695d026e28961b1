"""The steering rule: what a compiled policy is made of, and what the kernel side is given."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network


class Protocol(StrEnum):
    """Transport protocols a rule can name."""

    TCP = "tcp"
    UDP = "udp"


class Target(StrEnum):
    """Where a matching frame goes.

    ``BYPASS`` is the interface's own frame device, whichever that is; compiling a policy leaves it only where
    no steering program can take part (``packet``, ``tap``). ``URING`` is steered as ``KERNEL`` is.
    """

    AFXDP = "afxdp"
    DPDK = "dpdk"
    BYPASS = "bypass"
    URING = "uring"
    KERNEL = "kernel"
    DROP = "drop"

    @property
    def bypasses(self) -> bool:
        """Whether the frames go to a program by a frame device."""
        return self in (Target.AFXDP, Target.DPDK, Target.BYPASS)

    @property
    def passes(self) -> bool:
        """Whether the kernel has the frames; a program gets them by kernel sockets."""
        return self in (Target.URING, Target.KERNEL)


class Fallback(StrEnum):
    """What a listener has where its bypass cannot be had, or is lost."""

    NONE = "none"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the steering table. Rows are tried in order of ``priority``, highest first.

    ``source`` and ``destination`` are prefixes of the same family, or ``None`` for any address of
    either family. ``ports`` is an inclusive range of *destination* ports, ``None`` for any;
    it needs a protocol.
    """

    name: str
    priority: int
    to: Target
    protocol: Protocol | None = None
    source: IPv4Network | IPv6Network | None = None
    destination: IPv4Network | IPv6Network | None = None
    ports: tuple[int, int] | None = None
    fallback: Fallback = Fallback.NONE
