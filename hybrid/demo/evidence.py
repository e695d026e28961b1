"""Which way the frames went: what the steering program counted, and what the kernel's TCP and ICMP did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybrid.errors import HybridError

__all__ = ["Counted", "Datapath", "Way", "counted", "datapath", "kernel_counters"]


@dataclass(frozen=True, slots=True)
class Counted:
    """The server's namespace at one moment. All three only grow."""

    to_afxdp: int  # frames that the rule matched and an AF_XDP socket got
    kernel_tcp: int  # segments that the kernel's TCP received
    kernel_pings: int  # echo requests that the kernel answered

    def __sub__(self, before: Counted) -> Counted:
        return Counted(
            self.to_afxdp - before.to_afxdp,
            self.kernel_tcp - before.kernel_tcp,
            self.kernel_pings - before.kernel_pings,
        )

    def __add__(self, other: Counted) -> Counted:
        return Counted(
            self.to_afxdp + other.to_afxdp,
            self.kernel_tcp + other.kernel_tcp,
            self.kernel_pings + other.kernel_pings,
        )


@dataclass(frozen=True, slots=True)
class Way:
    """What one kind of traffic moved."""

    traffic: str
    counted: Counted


@dataclass(frozen=True, slots=True)
class Datapath:
    """What was asked of the interface and what it is, from ``hybrid status``."""

    interface: str
    mode_requested: str
    mode_obtained: str
    copy_requested: str
    copy_obtained: str
    rule: str


def counted(status: Mapping[str, Any], rule: str, snmp: str) -> Counted:
    """From ``hybrid status --output json`` and /proc/net/snmp of the same namespace."""
    row = _rule(status, rule)
    kernel = kernel_counters(snmp)
    return Counted(
        int(row["packets"]) - int(row["no_socket_packets"]),
        kernel["Tcp", "InSegs"],
        kernel["Icmp", "InEchos"],
    )


def datapath(status: Mapping[str, Any], rule: str) -> Datapath:
    """Requested and obtained, while a program is in service."""
    interface = status["interfaces"][0]
    devices = [(r, o) for s in status["shards"] for r, o in zip(s["requested"], s["obtained"], strict=False)]
    if not devices:
        raise HybridError("no program is in service on the steered interface", "see hybrid status")
    asked, got = devices[0]
    return Datapath(
        interface["name"],
        interface["obtained"]["requested"],
        interface["obtained"]["mode"],
        {0: "auto", 1: "zero-copy", 2: "copy"}[int(asked["copy"])],
        "zero-copy" if got["zerocopy"] else "copy",
        _rule(status, rule)["rule"],
    )


def kernel_counters(snmp: str) -> dict[tuple[str, str], int]:
    """/proc/net/snmp: pairs of lines, the names and then the values of one protocol."""
    lines = [line.partition(": ") for line in snmp.splitlines()]
    values: dict[tuple[str, str], int] = {}
    for (protocol, _, names), (_, _, numbers) in zip(lines[::2], lines[1::2], strict=True):
        values |= {(protocol, n): int(v) for n, v in zip(names.split(), numbers.split(), strict=True)}
    return values


def _rule(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for interface in status["interfaces"]:
        for row in interface["rules"]:
            if row["name"] == name:
                found: Mapping[str, Any] = row
                return found
    raise HybridError(
        f"the policy has no rule called {name}", "the demo wants examples/policies/redis.yaml, or one like it"
    )
