"""Ports that a bypassed program listens on, held in the kernel as well.

The kernel does not see what a program binds on its own stack, and would hand the same port to
somebody else. A socket that is bound and never listens keeps it: nobody else can bind
the port, and what reaches the kernel there is refused as it was before.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hybrid.api.address import Address
from hybrid.errors import BusyError, HybridError, from_errno

PORTS_MAX = 256
_NAMES = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}
_TYPES = {socket.IPPROTO_TCP: socket.SOCK_STREAM, socket.IPPROTO_UDP: socket.SOCK_DGRAM}


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A local address and protocol in use by the program."""

    protocol: str
    address: Address

    @classmethod
    def of(cls, protocol: int, address: Address) -> BoundPort | None:
        """As a notice has it; ``None``: that is no port."""
        return cls(_NAMES[protocol], address) if protocol in _NAMES and address.port else None

    def __str__(self) -> str:
        return f"{self.protocol} {self.address}"


class Reservations:
    """The ports held. They are given back by :meth:`close`, or by the end of this process."""

    def __init__(self) -> None:
        self._held: dict[BoundPort, ExitStack] = {}

    @property
    def held(self) -> tuple[BoundPort, ...]:
        """In the order they were bound."""
        return tuple(self._held)

    def add(self, protocol: int, address: Address) -> BoundPort | None:
        """Holds a port. ``BusyError``: some process has it in the kernel; ``None``: nothing to hold."""
        port = BoundPort.of(protocol, address)
        if port is None or port in self._held:
            return port
        if len(self._held) >= PORTS_MAX:
            raise HybridError(
                f"the program binds more than {PORTS_MAX} ports", "bind fewer, or start it twice"
            )
        with ExitStack() as stack:
            for sock in _bound(protocol, address):
                stack.enter_context(sock)
            self._held[port] = stack.pop_all()
        return port

    def remove(self, protocol: int, address: Address) -> None:
        """Gives a port back."""
        held = self._held.pop(BoundPort(_NAMES.get(protocol, "?"), address), None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """Gives all of them back."""
        while self._held:
            self._held.popitem()[1].close()


def _bound(protocol: int, address: Address) -> Iterator[socket.socket]:
    versions = (4, 6) if address.ip is None else (address.ip.version,)
    for version in versions:
        family, anywhere = (socket.AF_INET, "0.0.0.0") if version == 4 else (socket.AF_INET6, "::")
        where = anywhere if address.ip is None or address.ip.is_unspecified else str(address.ip)
        try:
            sock = socket.socket(family, _TYPES[protocol])
        except OSError as error:
            if version == 6 and error.errno == errno.EAFNOSUPPORT:
                continue  # a kernel without IPv6 has nobody who could bind it
            raise from_errno(error.errno or 0, f"reserve {_NAMES[protocol]} {address}") from None
        yield sock  # the caller closes it, also where what follows fails
        try:
            if version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A datagram socket would be sent what falls back to the kernel, and nobody reads it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            _bind(sock, (where, address.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _taken(protocol, address) from None
            if error.errno == errno.EADDRNOTAVAIL:
                continue  # not an address of this host now, so nobody else can bind it either
            raise from_errno(error.errno or 0, f"reserve {_NAMES[protocol]} {address}") from None


def _bind(sock: socket.socket, where: tuple[str, int]) -> None:
    try:
        sock.bind(where)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or sock.type != socket.SOCK_STREAM:
            raise
        # Connections that linger in TIME_WAIT keep a port from being bound, but not with this option. It
        # is taken back at once, or a server with the option could bind the port beside us.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _taken(protocol: int, address: Address) -> BusyError:
    name = _NAMES[protocol]
    who = owner(protocol, address.port)
    by = f" by {who[1]} (pid {who[0]})" if who else ""
    remedy = (
        f"stop {who[1]}, or choose another port" if who else "see who has it: ss -lnp; or choose another port"
    )
    return BusyError(
        f"{name} port {address.port} is in use in the kernel{by}", remedy, errno=errno.EADDRINUSE
    )


def owner(protocol: int, port: int) -> tuple[int, str] | None:
    """Pid and name of a process that has the port in this network namespace, as far as we may see."""
    inodes = set(_inodes(_NAMES[protocol], port))
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for fd in (process / "fd").iterdir():
                if str(fd.readlink()) in inodes:
                    return int(process.name), (process / "comm").read_text().strip()
        except OSError:
            continue  # it has ended meanwhile, or is not ours to look at
    return None


def _inodes(name: str, port: int) -> Iterator[str]:
    listening_or_bound = {"0A", "07"}  # TCP_LISTEN; TCP_CLOSE is what an unconnected UDP socket shows
    for table in (f"/proc/thread-self/net/{name}", f"/proc/thread-self/net/{name}6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if int(words[1].rsplit(":", 1)[1], 16) == port and words[3] in listening_or_bound:
                yield f"socket:[{words[9]}]"
