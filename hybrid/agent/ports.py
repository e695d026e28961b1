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
from hybrid.ranges import format_ranges, parse_ranges

_SETTING = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


def read() -> frozenset[int]:
    """The ports reserved in the calling thread's network namespace."""
    try:
        return parse_ranges(_SETTING.read_text())
    except OSError as error:
        raise from_errno(error.errno or 0, f"read {_SETTING}") from None


def write(ports: Iterable[int]) -> None:
    """Replaces them."""
    try:
        # An empty write is no write: a lone newline is what empties the setting.
        _SETTING.write_text(format_ranges(ports) + "\n")
    except OSError as error:
        raise from_errno(error.errno or 0, f"write {_SETTING}") from None


def spread(ranges: Iterable[PortRange]) -> frozenset[int]:
    """Every port of some ranges."""
    return frozenset(port for low, high in ranges for port in range(low, high + 1))
