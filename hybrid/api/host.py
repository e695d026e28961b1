"""The table of what a stack must know of its host: links, addresses, routes, neighbours."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hybrid._native import ffi, lib
from hybrid.api.address import Address
from hybrid.api.errors import check
from hybrid.errors import HybridError

if TYPE_CHECKING:
    from hybrid._native import CData

IP = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def mac_bytes(text: str) -> bytes:
    """``02:00:00:00:00:01`` as six bytes."""
    raw = bytes.fromhex(text.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{text!r} is not an Ethernet address")
    return raw


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. ``answers_arp``: no kernel is behind it, so the stack does ARP and ND itself."""

    ifindex: int
    mac: str
    mtu_bytes: int = 1500
    answers_arp: bool = False


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this host, with the prefix length of its network."""

    ip: IP
    prefix_len: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class Route:
    """Where a prefix is reached. No ``gateway``: on link. Of equal prefixes the lower ``metric`` wins."""

    dst: Network
    ifindex: int
    gateway: IP | None = None
    source: IP | None = None
    metric: int = 0
    mtu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The Ethernet address behind an IP address on a link."""

    ip: IP
    mac: str
    ifindex: int


class Host:
    """One writer's table in shared memory. Shards follow it (:meth:`Shard.set_host`), each by a mapping
    of its own, so it may be closed before them: they keep what was last written."""

    def __init__(self) -> None:
        out = ffi.new("hy_host **")
        check("make the host table", lib.hy_host_create(out))
        self._c: CData = out[0]
        self._finalizer = weakref.finalize(self, lib.hy_host_close, out[0])

    def c(self) -> CData:
        """The ``hy_host *``, for the modules of this package."""
        if not self._finalizer.alive:
            raise HybridError("the host table is closed", "make another Host()")
        return self._c

    @property
    def fd(self) -> int:
        """The memory file that a reader maps. It stays this object's."""
        return check("descriptor of the host table", lib.hy_host_fd(self.c()))

    def update(
        self,
        links: Sequence[Link] = (),
        addresses: Sequence[LocalAddress] = (),
        routes: Sequence[Route] = (),
        neighbours: Sequence[Neighbour] = (),
    ) -> None:
        """Replaces the whole table at once. Too many rows raise, and then nothing has changed."""
        c_links = ffi.new("hy_host_link[]", len(links))
        for to, link in zip(c_links, links, strict=True):
            to.ifindex, to.mtu_bytes = link.ifindex, link.mtu_bytes
            to.mac, to.answers_arp = mac_bytes(link.mac), link.answers_arp
        c_addrs = ffi.new("hy_host_addr[]", len(addresses))
        for to, addr in zip(c_addrs, addresses, strict=True):
            Address(addr.ip).fill(to.addr)
            to.ifindex, to.prefix_len = addr.ifindex, addr.prefix_len
        c_routes = ffi.new("hy_host_route[]", len(routes))
        for to, route in zip(c_routes, routes, strict=True):
            Address(route.dst.network_address).fill(to.dst)
            Address(route.gateway).fill(to.gateway)
            Address(route.source).fill(to.source)
            to.prefix_len, to.ifindex = route.dst.prefixlen, route.ifindex
            to.metric, to.mtu_bytes = route.metric, route.mtu_bytes
        c_neighs = ffi.new("hy_host_neigh[]", len(neighbours))
        for to, neigh in zip(c_neighs, neighbours, strict=True):
            Address(neigh.ip).fill(to.addr)
            to.ifindex, to.mac = neigh.ifindex, mac_bytes(neigh.mac)
        check(
            "write the host table",
            lib.hy_host_update(
                self.c(),
                c_links,
                len(links),
                c_addrs,
                len(addresses),
                c_routes,
                len(routes),
                c_neighs,
                len(neighbours),
            ),
        )

    def close(self) -> None:
        """Lets go of it. Twice does no harm."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
