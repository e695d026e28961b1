"""From the kernel's rows to the rows that a shard needs, within the table's bounds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hybrid._native import lib
from hybrid.api.host import Link, LocalAddress, Neighbour, Route
from hybrid.host.kernel import Kernel, Key

LINKS_MAX = lib.HY_HOST_LINKS
ADDRS_MAX = lib.HY_HOST_ADDRS
ROUTES_MAX = lib.HY_HOST_ROUTES
NEIGHS_MAX = lib.HY_HOST_NEIGHS


@dataclass(frozen=True, slots=True)
class Rows:
    """What :meth:`Host.update` takes, and how many rows had no room."""

    links: tuple[Link, ...] = ()
    addresses: tuple[LocalAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    left_out: int = 0


def build(kernel: Kernel, served: Collection[int], wanted: Collection[Key]) -> Rows:
    """Rows for shards whose devices are on the interfaces ``served``.

    Where there is no room for all, addresses and routes of served interfaces go first (a
    route over another one is still worth a row: it says that a packet must not leave here),
    and neighbours that are ``wanted`` before others.
    """
    links = [
        Link(ifindex=link.ifindex, mac=link.mac, mtu_bytes=link.mtu_bytes)
        for link in kernel.links.values()
        if link.up and link.mac and link.ifindex in served and _ethernet(link.mac)
    ]
    up = {link.ifindex for link in links}
    addresses = sorted(
        (LocalAddress(a.ip, a.prefix_len, a.ifindex) for a in kernel.addresses.values()),
        key=lambda a: (a.ifindex not in up, a.ip.is_loopback, a.ip.version, int(a.ip)),
    )
    routes = sorted(
        (Route(r.dst, r.ifindex, r.gateway, r.source, r.metric, r.mtu_bytes) for r in kernel.routes),
        key=lambda r: (
            r.ifindex not in up,
            r.dst.version,
            -r.dst.prefixlen,
            int(r.dst.network_address),
            r.metric,
        ),
    )
    neighbours = sorted(
        (
            Neighbour(n.ip, n.mac, n.ifindex)
            for n in kernel.neighbours.values()
            if n.usable and n.ifindex in up and n.mac is not None and _ethernet(n.mac)
        ),
        key=lambda n: ((n.ifindex, n.ip) not in wanted, n.ip.version, int(n.ip)),
    )
    rows = Rows(
        tuple(links[:LINKS_MAX]),
        tuple(addresses[:ADDRS_MAX]),
        tuple(routes[:ROUTES_MAX]),
        tuple(neighbours[:NEIGHS_MAX]),
    )
    kept = len(rows.links) + len(rows.addresses) + len(rows.routes) + len(rows.neighbours)
    total = len(links) + len(addresses) + len(routes) + len(neighbours)
    return Rows(rows.links, rows.addresses, rows.routes, rows.neighbours, total - kept)


def _ethernet(mac: str) -> bool:
    return len(mac) == 17
