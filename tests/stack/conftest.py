"""One stack on a wire, its peer made of scapy: frames by hand, time by hand, no privilege."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

import hybrid

MS = 1_000_000
SECOND = 1_000 * MS
OUR_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
OURS = {4: "10.0.0.1", 6: "fd00::1"}
PEERS = {4: "10.0.0.2", 6: "fd00::2"}
#: What a Linux client offers.
LINUX = (("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("NOP", None), ("WScale", 7))
CONFIG = hybrid.Config(
    frames=4096,
    sockets=64,
    connections=64,
    tokens=512,
    clock=hybrid.Clock.VIRTUAL,
    hugepages=hybrid.Hugepages.NO,
    seed=bytes(range(32)),
)


def describe(table: hybrid.Host, *, routes: bool = True) -> None:
    """10.0.0.1/24 and fd00::1/64 on interface 1; both peers are known."""
    on_link = [hybrid.Route(ip_network("10.0.0.0/24"), 1), hybrid.Route(ip_network("fd00::/64"), 1)]
    table.update(
        links=[hybrid.Link(1, OUR_MAC)],
        addresses=[
            hybrid.LocalAddress(ip_address(OURS[4]), 24, 1),
            hybrid.LocalAddress(ip_address(OURS[6]), 64, 1),
        ],
        routes=on_link if routes else [],
        neighbours=[
            hybrid.Neighbour(ip_address(PEERS[4]), PEER_MAC, 1),
            hybrid.Neighbour(ip_address(PEERS[6]), PEER_MAC, 1),
        ],
    )


def host_table() -> hybrid.Host:
    made = hybrid.Host()
    describe(made)
    return made


@dataclass
class Stack:
    """The stack under test, and what its peer does to it."""

    shard: hybrid.Shard
    wire: hybrid.Wire
    now_ns: int = SECOND
    family: int = 4
    kept: list[hybrid.Queue] = field(default_factory=list)
    table: hybrid.Host | None = None

    def ip(self, src: str | None = None) -> Packet:
        """Ethernet and IP from the peer to us."""
        layer = IP if self.family == 4 else IPv6
        return Ether(src=PEER_MAC, dst=OUR_MAC) / layer(src=src or PEERS[self.family], dst=OURS[self.family])

    def run(self) -> list[Packet]:
        """Lets the stack work until it has nothing more to say at this moment."""
        self.shard.set_clock(self.now_ns)
        said: list[Packet] = []
        for _ in range(3):
            self.shard.poll()
            said += (Ether(raw)[TCP] for raw in self.wire.collect_all())
        return said

    def inject(self, *frames: Packet | bytes) -> list[Packet]:
        """What it answers to these frames, at once."""
        for frame in frames:
            self.wire.inject(bytes(frame))
        return self.run()

    def passes(self, ms: float) -> list[tuple[float, Packet]]:
        """Lets time pass, timer by timer; what it says, and after how many milliseconds."""
        began, end = self.now_ns, self.now_ns + int(ms * MS)
        said: list[tuple[float, Packet]] = []
        while self.now_ns < end:
            deadline = self.shard.next_deadline_ns
            if deadline is not None and deadline <= self.now_ns:  # a completion waits to be looked at
                deadline = self.now_ns + 100 * MS
            self.now_ns = end if deadline is None else min(deadline, end)
            said += (((self.now_ns - began) / MS, packet) for packet in self.run())
        return said

    def stat(self, name: str) -> int:
        return self.shard.stats()[name]

    def listen(self, port: int = 80, backlog: int = 8) -> hybrid.Queue:
        """A listener, kept open whether the test keeps it or not."""
        return self.socket().bind(f":{port}").listen(backlog)

    def socket(self) -> hybrid.Queue:
        self.kept.append(self.shard.socket())
        return self.kept[-1]

    def accepted(self, listener: hybrid.Queue) -> hybrid.Queue:
        self.kept.append(listener.accept_wait(0))
        return self.kept[-1]


@dataclass
class Peer:
    """The other end of one connection, which says exactly what a test has it say."""

    stack: Stack
    sport: int = 4321
    dport: int = 80
    seq: int = 1000
    ack: int = 0
    window: int = 65535
    options: tuple[tuple[str, object], ...] = ()
    said: list[Packet] = field(default_factory=list)

    def segment(self, flags: str = "A", data: bytes = b"", **fields: object) -> Packet:
        values: dict[str, object] = {
            "sport": self.sport,
            "dport": self.dport,
            "seq": self.seq,
            "ack": self.ack,
            "window": self.window,
        }
        values.update(fields)
        return self.stack.ip() / TCP(flags=flags, **values) / data

    def send(self, flags: str = "A", data: bytes = b"", **fields: object) -> list[Packet]:
        """What the stack answers. Our sequence number goes on, unless the test has given one."""
        answer = self.stack.inject(self.segment(flags, data, **fields))
        if "seq" not in fields:
            self.seq += len(data) + ("S" in flags) + ("F" in flags)
        return answer

    def take(self, packets: list[Packet]) -> bytes:
        """Acknowledges (in the next segment) what came, and gives its data."""
        data = b""
        for p in packets:
            payload = bytes(p.payload)
            if p.seq == self.ack:
                self.ack += len(payload) + ("F" in p.flags) + ("S" in p.flags)
                data += payload
        return data

    def open(self, **fields: object) -> Packet:
        """The handshake; the SYN-ACK."""
        (synack,) = self.send("S", ack=0, options=list(self.options), **fields)
        assert synack.flags == "SA"
        assert synack.ack == self.seq
        self.ack = synack.seq + 1
        assert self.send("A") == []
        return synack


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with hybrid.Shard(CONFIG) as shard, host_table() as table:
        shard.set_host(table)
        made = Stack(shard, shard.attach_wire(1), family=request.param, table=table)
        yield made
        for queue in made.kept:
            queue.close()


@pytest.fixture
def joined(stack: Stack) -> tuple[Stack, Peer, hybrid.Queue]:
    """An accepted connection without options."""
    listener = stack.listen()
    peer = Peer(stack)
    peer.open()
    return stack, peer, stack.accepted(listener)
