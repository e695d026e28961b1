"""Follows the kernel's tables of this network namespace and keeps a host table up to date.

Two netlink sockets: pyroute2's for questions (dumps, requests to resolve), and one that
the kernel sends changes to. The second is drained to its end before the table is
written, so a burst of changes is one update. Where the kernel had to throw changes
away (ENOBUFS), everything is read anew.

Not a thread: whoever owns the event loop watches :meth:`Follower.fileno`, calls
:meth:`on_readable` when it is readable and :meth:`on_timer` at :attr:`deadline`.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from hybrid.api.host import Host
from hybrid.errors import from_errno
from hybrid.host.kernel import TABLE_LOCAL, TABLE_MAIN, Kernel, Key
from hybrid.host.notice import Notice, NoticeKind
from hybrid.host.resolver import Resolver
from hybrid.host.table import Rows, build

_log = logging.getLogger(__name__)

# include/uapi/linux/rtnetlink.h: RTMGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
_RECV_BYTES = 1 << 18
_RCVBUF_BYTES = 1 << 20
_SO_RCVBUFFORCE = 33
# Routes are read whole when they change; at most this often.
_ROUTES_APART_S = 0.05
# After an overrun that comes right after another one the kernel is given time to calm down.
_RESYNC_APART_S = 0.25
_DRAIN_MAX = 1024
_NTF_USE = 0x01
_NUD_NONE = 0x00


class Follower:
    """Keeps what ``publish`` is given equal to what the kernel knows.

    ``interfaces`` are the names of those that shards have devices on; ``None``: every one
    but the loopback. Must be made, used and closed in the network namespace it follows.
    """

    def __init__(
        self,
        publish: Callable[[Rows], None],
        interfaces: Iterable[str] | None = None,
        *,
        rcvbuf_bytes: int = _RCVBUF_BYTES,
    ) -> None:
        self._publish = publish
        self._interfaces = None if interfaces is None else frozenset(interfaces)
        self._marshal = MarshalRtnl()
        self._kernel = Kernel()
        self._resolver = Resolver()
        self._rows: Rows | None = None
        self._routes_at = self._resync_at = float("-inf")
        self._lost = False
        self.overruns = 0
        self.updates = 0
        try:
            # Changes first, then the dumps: what happens in between is seen twice, never missed.
            self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._events.setblocking(False)
            self._set_rcvbuf(rcvbuf_bytes)
            self._events.bind((0, _GROUPS))
            self._ask = IPRoute()
        except OSError as error:
            raise from_errno(error.errno or 0, "follow the kernel's routes over netlink") from None
        try:
            self._resync()
        except BaseException:
            self.close()
            raise

    def _set_rcvbuf(self, size_bytes: int) -> None:
        try:
            self._events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size_bytes)
        except PermissionError:
            self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)

    # -- for the event loop --------------------------------------------------------

    def fileno(self) -> int:
        """Readable when the kernel has news."""
        return self._events.fileno()

    @property
    def deadline(self) -> float | None:
        """When (time.monotonic) to call :meth:`on_timer`; ``None``: not before something happens."""
        now = time.monotonic()
        times = [self._resolver.next_deadline(now)]
        if self._lost:
            times.append(self._resync_at + _RESYNC_APART_S)
        elif self._kernel.routes_stale:
            times.append(self._routes_at + _ROUTES_APART_S)
        return min((t for t in times if t is not None), default=None)

    def on_readable(self) -> None:
        """Takes in all that the kernel has sent, then writes the table once."""
        changed = False
        for _ in range(_DRAIN_MAX):
            try:
                data = self._events.recv(_RECV_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                self._lost = True
                continue
            if not self._lost:
                for message in self._marshal.parse(data):
                    changed |= self._kernel.apply(message)
        self._settle(changed)

    def on_timer(self) -> None:
        """Does what was put off."""
        self._settle(False)

    def on_notice(self, notice: Notice) -> None:
        """A shard reports a next hop without an entry."""
        ip = notice.address.ip
        if notice.kind is not NoticeKind.NEIGH_MISSING or ip is None:
            return
        if ip.is_multicast or ip.is_loopback or ip.is_unspecified or notice.ifindex not in self.served:
            return
        key = (notice.ifindex, ip)
        known = self._kernel.neighbours.get(key)
        if known is not None and known.usable:
            return  # the table had it before the notice was read
        self._resolver.missing(key, time.monotonic())
        self._request()

    # -- what it knows ---------------------------------------------------------------

    @property
    def kernel(self) -> Kernel:
        """The kernel's rows as of the last message."""
        return self._kernel

    @property
    def rows(self) -> Rows:
        """What was last published."""
        assert self._rows is not None
        return self._rows

    @property
    def served(self) -> Collection[int]:
        """Numbers of the interfaces that shards have devices on."""
        return {
            link.ifindex
            for link in self._kernel.links.values()
            if (not link.loopback if self._interfaces is None else link.name in self._interfaces)
        }

    # -- reading the kernel ------------------------------------------------------------

    def _settle(self, changed: bool) -> None:
        now = time.monotonic()
        if self._lost:
            if now < self._resync_at + _RESYNC_APART_S:
                return
            self._resync()
            return
        if self._kernel.routes_stale and now >= self._routes_at + _ROUTES_APART_S:
            changed |= self._read_routes()
        self._digest_neighbours()
        if changed:
            self._write()
        self._request()

    def _resync(self) -> None:
        """Reads everything anew."""
        self._lost = False
        self._resync_at = time.monotonic()
        self._kernel = Kernel()
        for messages in (self._dump("link"), self._dump("addr"), self._dump("neigh")):
            for message in messages:
                self._kernel.apply(message)
        self._read_routes()
        self._digest_neighbours()
        self._write()
        self._request()

    def _read_routes(self) -> bool:
        self._routes_at = time.monotonic()
        tables = (TABLE_MAIN, TABLE_LOCAL)
        return self._kernel.replace_routes([m for table in tables for m in self._dump("route", table=table)])

    def _dump(self, what: str, **filters: int) -> list[Any]:
        questions = {
            "link": self._ask.get_links,
            "addr": self._ask.get_addr,
            "neigh": self._ask.get_neighbours,
            "route": self._ask.get_routes,
        }
        try:
            return list(questions[what](**filters))
        except NetlinkError as error:
            raise from_errno(error.code, f"read the kernel's {what} table") from None

    def _digest_neighbours(self) -> None:
        news, self._kernel.changed_neighbours = self._kernel.changed_neighbours, []
        if not news:
            return
        now, gateways, served = time.monotonic(), self._gateways(), self.served
        for neighbour in news:
            if neighbour.ifindex in served:
                self._resolver.changed(neighbour, gateways, now)

    def _gateways(self) -> set[Key]:
        return {(route.ifindex, route.gateway) for route in self._kernel.routes if route.gateway is not None}

    def _write(self) -> None:
        rows = build(self._kernel, self.served, self._gateways() | set(self._resolver.in_use))
        if rows == self._rows:
            return
        if rows.left_out and (self._rows is None or not self._rows.left_out):
            _log.warning("the host table has no room for %d addresses, routes, neighbours", rows.left_out)
        self._publish(rows)
        self._rows = rows
        self.updates += 1

    # -- asking the kernel to resolve ----------------------------------------------------

    def _request(self) -> None:
        for ifindex, ip in self._resolver.requests(time.monotonic()):
            try:
                # NTF_USE: as if a packet were waiting for the entry. It is made where missing and
                # probed where missing or stale (net/core/neighbour.c, neigh_add).
                self._ask.neigh("replace", dst=str(ip), ifindex=ifindex, state=_NUD_NONE, flags=_NTF_USE)
            except NetlinkError as error:
                _log.debug("the kernel will not resolve %s on link %d: %s", ip, ifindex, error)

    # -- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Stops following. The table keeps what was last written."""
        self._events.close()
        self._ask.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def publish_to(host: Host) -> Callable[[Rows], None]:
    """Writes rows to a host table."""

    def publish(rows: Rows) -> None:
        host.update(rows.links, rows.addresses, rows.routes, rows.neighbours)

    return publish
