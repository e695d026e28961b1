"""The table of backends. One more is one more :class:`Row` here (and one line in agent/attach.c).

A row says what wire its backend is attached to and what an agent is started with at one end of it.
The kernel is a row as well: the peer of every backend that can reach it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from hybrid.bpf import Steering
from hybrid.policy.rule import Protocol, Rule, Target
from tests.backends.harness.agent import Spec
from tests.backends.harness.wires import Place, Wire

__all__ = ["GROUPS", "ROOMY", "ROWS", "TIGHT", "Config", "Pair", "Row", "pairs"]

Config = Mapping[str, object]

_AF_XDP = 44
_MBUF = 192  # HY_DPDK_PREFIX
_EPHEMERAL = (40000, 49999)
_SERVED = (7000, 7999)

# Waits go to sleep soon: on two cores the peer has to run as well.
_COMMON: Config = {"ports": f"{_EPHEMERAL[0]}-{_EPHEMERAL[1]}", "spin_ns": 20_000}
ROOMY: Config = {**_COMMON, "frames": 16384, "tokens": 8192, "connections": 4096}
# Everything runs out soon.
TIGHT: Config = {
    **_COMMON,
    "frames": 2048,
    "app_frames_max": 512,
    "tokens": 64,
    "sockets": 64,
    "connections": 32,
    "sndbuf_bytes": 131072,
    "rcvbuf_bytes": 131072,
}


@dataclass(frozen=True)
class Row:
    """A backend as the matrix has it."""

    name: str
    wire: Wire
    stack: bool = True  # the common stack carries it, not the kernel's
    frames_least: int = 0  # in an arena, whatever the configuration says
    one_process: bool = False  # both ends are shards of one agent

    def claim(self, place: Place) -> None:
        """Makes the place what this backend wants it to be, before either end is started."""

    def spec(self, place: Place, tied: ExitStack) -> Spec:
        """What an agent at this place is started with. What goes with it is undone by ``tied``."""
        raise AssertionError(f"{self.name} is no backend of an agent")

    @property
    def kernel(self) -> bool:
        """Whether this is no backend of ours but the kernel."""
        return False


@dataclass(frozen=True)
class Kernel(Row):
    """Plain sockets."""

    @property
    def kernel(self) -> bool:
        return True


@dataclass(frozen=True)
class Memory(Row):
    """A cable between two shards of one process."""

    def spec(self, place: Place, tied: ExitStack) -> Spec:
        arguments = place.host(answers_arp=True)
        if place.first:
            arguments += ["--attach", f"memory,ifindex={place.ifindex}"]
        return Spec(self.name, place.addresses, arguments)


@dataclass(frozen=True)
class AfXdp(Row):
    """Steered by the real program; the kernel stays behind the interface and answers ARP."""

    def spec(self, place: Place, tied: ExitStack) -> Spec:
        steering = place.call(lambda: Steering.attach(place.interface))
        tied.enter_context(steering)
        tied.callback(steering.detach)
        steering.replace_rules(
            [
                Rule(f"{protocol} {ports[0]}", 10, Target.AFXDP, protocol, ports=ports)
                for protocol in Protocol
                for ports in (_SERVED, _EPHEMERAL)
            ]
        )
        xsk = place.call(lambda: socket.socket(_AF_XDP, socket.SOCK_RAW))
        tied.callback(xsk.close)
        attach = f"afxdp,ifindex={place.ifindex},queue=0,xsk_fd={xsk.fileno()},ring_size=512"
        arguments = [*place.host(answers_arp=False), "--attach", attach]
        return Spec(
            self.name,
            place.addresses,
            arguments,
            [xsk.fileno()],
            lambda: steering.enter(0, xsk.fileno()),
        )


@dataclass(frozen=True)
class UringStreams(Row):
    """The kernel's own sockets, behind our queues."""

    def spec(self, place: Place, tied: ExitStack) -> Spec:
        return Spec(self.name, place.addresses, ["--attach", "uring"])


@dataclass(frozen=True)
class UringTap(Row):
    """A TAP made by the agent; the kernel of the same namespace is on its other side."""

    def spec(self, place: Place, tied: ExitStack) -> Spec:
        attach = f"tap,ifindex={place.ifindex},name={place.interface}"
        return Spec(self.name, place.addresses, [*place.host(answers_arp=True), "--attach", attach])


@dataclass(frozen=True)
class UringPacket(Row):
    """A station of its own on the wire, with a MAC address and addresses that the kernel does not have."""

    def claim(self, place: Place) -> None:
        place.without_kernel()
        place.mac = f"02:77:00:00:01:{1 if place.first else 2:02x}"

    def spec(self, place: Place, tied: ExitStack) -> Spec:
        attach = f"packet,ifindex={place.ifindex},mac={place.mac}"
        return Spec(self.name, place.addresses, [*place.host(answers_arp=True), "--attach", attach])


@dataclass(frozen=True)
class Dpdk(Row):
    """A DPDK port, which is named as DPDK names it; what is in braces is of the place."""

    port: str = ""

    def claim(self, place: Place) -> None:
        if place.wire is Wire.VETH:
            place.without_kernel()

    def spec(self, place: Place, tied: ExitStack) -> Spec:
        port = self.port.format(
            interface=place.interface,
            role="server" if place.first else "client",
            socket=place.folder / "memif",
        )
        attach = f"dpdk,ifindex={place.ifindex},port={port}"
        # net_af_packet wants 2016 bytes of room in every mbuf.
        settings = ["--config", f"frame_prefix_bytes={_MBUF}", "--config", "frame_size=4096"]
        arguments = [*settings, *place.host(answers_arp=True), "--attach", attach]
        return Spec(self.name, place.addresses, arguments)


KERNEL = Kernel("kernel", Wire.VETH, stack=False)
ROWS: tuple[Row, ...] = (
    Memory("memory", Wire.CABLE, one_process=True),
    AfXdp("afxdp", Wire.VETH),
    Dpdk("dpdk-af_xdp", Wire.VETH, frames_least=8192, port="net_af_xdp0,iface={interface}"),
    Dpdk("dpdk-memif", Wire.CABLE, port="net_memif0,role={role},id=0,socket={socket}"),
    Dpdk("dpdk-tap", Wire.TAP, port="net_tap0,iface={interface}"),
    Dpdk("dpdk-af_packet", Wire.VETH, port="net_af_packet0,iface={interface}"),
    Dpdk("dpdk-ring", Wire.CABLE, one_process=True, port="ring:between"),
    UringStreams("uring-streams", Wire.VETH, stack=False),
    UringTap("uring-tap", Wire.TAP),
    UringPacket("uring-packet", Wire.VETH),
)

# The columns of the matrix: the test file of each, and what it is called.
GROUPS: Mapping[str, str] = {
    "sizes": "sizes",
    "orders": "open and close orders",
    "halves": "half-close",
    "resets": "reset",
    "many": "many connections",
    "pressure": "back-pressure",
    "running_out": "running out",
    "cancel": "cancel",
    "timeouts": "time-outs",
    "statistics": "statistics",
    "datagrams": "datagrams",
}


@dataclass(frozen=True)
class Pair:
    """Who is tested, and against whom. ``groups``: what of it; None: all."""

    us: Row
    them: Row
    groups: frozenset[str] | None = None

    @property
    def name(self) -> str:
        return f"{self.us.name}-to-{self.them.name}"

    @property
    def wire(self) -> Wire:
        """The kernel and its sockets are also at the other end of a TAP."""
        return Wire.TAP if Wire.TAP in (self.us.wire, self.them.wire) else self.us.wire

    def does(self, group: str) -> bool:
        return self.groups is None or group in self.groups


# What two of our backends are tested in against each other.
_TOGETHER = frozenset({"sizes", "halves", "resets", "many", "pressure", "datagrams"})


def pairs() -> list[Pair]:
    """Each row against the kernel, or, where it cannot reach it, against itself; then rows against each other."""
    by_name = {row.name: row for row in ROWS}
    own = [Pair(row, row if row.wire is Wire.CABLE else KERNEL) for row in ROWS]
    across = [
        ("afxdp", "afxdp"),
        ("dpdk-af_packet", "afxdp"),
        ("dpdk-af_xdp", "afxdp"),
        ("dpdk-af_xdp", "uring-packet"),
        ("uring-streams", "afxdp"),
        ("uring-streams", "dpdk-af_packet"),
        ("uring-streams", "uring-tap"),
        ("uring-streams", "dpdk-tap"),
        ("uring-packet", "afxdp"),
    ]
    return own + [Pair(by_name[us], by_name[them], _TOGETHER) for us, them in across]
