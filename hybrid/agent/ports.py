"""net.ipv4.ip_local_reserved_ports: keeps the kernel from handing out ports whose frames are steered.

The setting belongs to the host, and others may have put ranges in it: what is ours is
remembered, added to what is there, and taken away again without touching the rest. It
covers IPv6 as well (Documentation/networking/ip-sysctl.rst).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hybrid.agent.desired import PortRange
from hybrid.errors import from_errno

_SETTING = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


def read() -> frozenset[int]:
    """The ports reserved in the calling thread's network namespace."""
    try:
        return parse(_SETTING.read_text())
    except OSError as error:
        raise from_errno(error.errno or 0, f"read {_SETTING}") from None


def write(ports: Iterable[int]) -> None:
    """Replaces them."""
    try:
        # An empty write is no write: a lone newline is what empties the setting.
        _SETTING.write_text(format_ports(ports) + "\n")
    except OSError as error:
        raise from_errno(error.errno or 0, f"write {_SETTING}") from None


def parse(text: str) -> frozenset[int]:
    """``8080,40000-40095`` as single ports."""
    ports: set[int] = set()
    for part in text.strip().split(","):
        if part:
            low, _, high = part.partition("-")
            ports.update(range(int(low), int(high or low) + 1))
    return frozenset(ports)


def format_ports(ports: Iterable[int]) -> str:
    """The kernel's own form."""
    runs: list[list[int]] = []
    for port in sorted(set(ports)):
        if runs and runs[-1][1] == port - 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def spread(ranges: Iterable[PortRange]) -> frozenset[int]:
    """Every port of some ranges."""
    return frozenset(port for low, high in ranges for port in range(low, high + 1))
