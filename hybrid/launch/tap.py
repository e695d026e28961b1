"""Our end of a TAP device in the host table: a host of its own, which the kernel knows nothing of."""

from __future__ import annotations

import zlib
from dataclasses import replace
from ipaddress import ip_address, ip_network

from hybrid.api.host import Link, LocalAddress, Route
from hybrid.devices.ethtool import interface_number
from hybrid.host.table import Rows
from hybrid.policy import Tap

# Rows of our ends have numbers that no interface of the kernel's has.
ROW = 0x40000000
_MTU_BYTES = 1500


def own_end(rows: Rows, name: str, row: int, tap: Tap) -> Rows:
    """What the kernel's end has is the peer's and not ours; ours goes in its place."""
    theirs = interface_number(name)
    addresses = tuple(a for a in rows.addresses if a.ifindex != theirs)
    routes = tuple(r for r in rows.routes if r.ifindex != theirs)
    for own in tap.addresses:
        addresses += (LocalAddress(own.ip, own.network.prefixlen, row),)
        routes += (Route(own.network, row, None, own.ip),)
    if tap.gateway:
        gateway = ip_address(tap.gateway)
        source = next((own.ip for own in tap.addresses if own.version == gateway.version), None)
        everything = ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0")
        routes += (Route(everything, row, gateway, source),)
    return replace(
        rows, links=(*rows.links, Link(row, _mac(name), _MTU_BYTES, True)), addresses=addresses, routes=routes
    )


def _mac(name: str) -> str:
    """Administered locally, and the same each time."""
    tail = zlib.crc32(name.encode()).to_bytes(4, "big")
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x68, *tail))
