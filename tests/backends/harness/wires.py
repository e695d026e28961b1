"""What lies between two ends: a veth pair, a TAP whose other side is the kernel, or a cable of a backend's own.

A :class:`Place` is one end of it before anybody has taken it: a namespace, an interface, addresses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import TypeVar

from hybrid.lab import Lab, Side, link, netns

__all__ = ["Place", "Wire", "lay"]

T = TypeVar("T")

_V4 = [IPv4Interface(f"10.77.0.{host}/24") for host in (1, 2)]
_V6 = [IPv6Interface(f"fd77::{host}/64") for host in (1, 2)]
_MACS = ("02:77:00:00:00:01", "02:77:00:00:00:02")  # where there is no interface to have one


class Wire(StrEnum):
    """How two ends are joined."""

    VETH = "veth"  # both ends may be anything that takes an interface, or the kernel
    TAP = "tap"  # one end makes the TAP, the other is the kernel of the same namespace
    CABLE = "cable"  # both ends are of the same backend, which brings the cable along


@dataclass
class Place:
    """One end of a wire."""

    wire: Wire
    side: Side
    networks: tuple[IPv4Interface, IPv6Interface]
    ifindex: int
    mac: str
    folder: Path  # for sockets and logs
    first: bool  # of the two
    far: Place = field(init=False, repr=False)

    @property
    def interface(self) -> str:
        return self.side.interface

    @property
    def addresses(self) -> dict[int, str]:
        return {4: str(self.networks[0].ip), 6: str(self.networks[1].ip)}

    def call(self, function: Callable[[], T]) -> T:
        return self.side.call(function)

    def host(self, *, answers_arp: bool) -> list[str]:
        """The host table of an agent here. Where it answers ARP itself it has neither a kernel nor neighbours."""
        arguments = ["--link", f"{self.ifindex},1500,{int(answers_arp)},{self.mac}"]
        for network in self.networks:
            arguments += ["--addr", f"{self.ifindex},{network.network.prefixlen},{network.ip}"]
        if not answers_arp:
            for address in self.far.addresses.values():
                arguments += ["--neigh", f"{self.ifindex},{self.far.mac},{address}"]
        return arguments

    def without_kernel(self) -> None:
        """Takes the kernel's addresses off the interface: it answers nothing that comes here."""
        self.side.run(["ip", "addr", "flush", "dev", self.interface])

    def with_kernel(self) -> None:
        """Brings the interface up with the addresses of this place."""
        for network in self.networks:
            flags = ["nodad"] if network.version == 6 else []
            self.side.run(["ip", "addr", "add", str(network), "dev", self.interface, *flags])
        self.side.run(["ip", "link", "set", self.interface, "up"])


@contextmanager
def lay(wire: Wire, name: str, folder: Path) -> Iterator[tuple[Place, Place]]:
    """Both ends of a new wire."""
    with ExitStack() as stack:
        if wire is Wire.VETH:
            lab = stack.enter_context(Lab(name))
            sides = (lab.server, lab.client)
            places = [
                Place(wire, side, (side.network4, side.network6), side.ifindex, side.mac, folder, i == 0)
                for i, side in enumerate(sides)
            ]
        else:
            # The kernel's end of a TAP is in the namespace of the TAP; a cable needs no interface at all.
            netns.create(f"{name}-tap")
            stack.callback(netns.remove, f"{name}-tap")
            side = Side(f"{name}-tap", "hyt0", _V4[1], _V6[1])
            stack.callback(side.reap)
            side.call(link.prepare_namespace)
            places = [Place(wire, side, (_V4[i], _V6[i]), 7, _MACS[i], folder, i == 0) for i in range(2)]
        for place, far in (places, places[::-1]):
            place.far = far
        yield places[0], places[1]


def name_of_wire(number: int) -> str:
    """Of namespaces: no two runs on a machine have the same."""
    return f"bk{os.getpid()}-{number}"
