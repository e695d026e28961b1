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
    """Where a matching frame goes."""

    AFXDP = "afxdp"
    KERNEL = "kernel"
    DROP = "drop"


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
