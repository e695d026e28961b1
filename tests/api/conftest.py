"""Two shards of one process joined by the memory device, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

import hybrid

SMALL = hybrid.Config(
    frames=2048,
    sockets=64,
    connections=64,
    tokens=256,
    clock=hybrid.Clock.VIRTUAL,
    hugepages=hybrid.Hugepages.NO,
)
MS = 1_000_000


def host(ifindex: int, last: int) -> hybrid.Host:
    """A table for a shard at 10.0.0.LAST and fd00::LAST that answers ARP and ND itself."""
    made = hybrid.Host()
    made.update(
        links=[hybrid.Link(ifindex, f"02:00:00:00:00:{last:02x}", answers_arp=True)],
        addresses=[
            hybrid.LocalAddress(ip_address(f"10.0.0.{last}"), 24, ifindex),
            hybrid.LocalAddress(ip_address(f"fd00::{last}"), 64, ifindex),
        ],
        routes=[
            hybrid.Route(ip_network("10.0.0.0/24"), ifindex),
            hybrid.Route(ip_network("fd00::/64"), ifindex),
        ],
    )
    return made


@dataclass
class Two:
    """``a`` is 10.0.0.1 and fd00::1, ``b`` is 10.0.0.2 and fd00::2."""

    a: hybrid.Shard
    b: hybrid.Shard
    now_ns: int = 1

    def run(self, ms: int = 5) -> None:
        """Lets both work for so many milliseconds of their clock."""
        for _ in range(ms):
            self.now_ns += MS
            for shard in (self.a, self.b):
                if not shard.closed:
                    shard.set_clock(self.now_ns)
                    shard.poll()

    def wait(self, token: hybrid.Token, ms: int = 200) -> hybrid.Event:
        """The event of a token, while both work."""
        for _ in range(ms):
            self.run(1)
            try:
                return token.wait(0)
            except hybrid.TimedOutError:
                continue
        pytest.fail(f"{token} did not complete in {ms} ms")

    def connected(self, port: int = 80, ip: str = "10.0.0.2") -> tuple[hybrid.Queue, hybrid.Queue]:
        """A connection from ``a`` to ``b``: its two ends."""
        listener = self.b.socket().bind(f":{port}").listen(8)
        accepting = listener.accept()
        near = self.a.socket()
        self.wait(near.connect((ip, port))).check()
        far = self.wait(accepting).check().accepted
        assert far is not None
        listener.close()
        return near, far


@pytest.fixture
def two() -> Iterator[Two]:
    with hybrid.Shard(SMALL) as a, hybrid.Shard(SMALL) as b, host(1, 1) as host_a, host(2, 2) as host_b:
        hybrid.link(a, b, 1, 2)
        a.set_host(host_a)
        b.set_host(host_b)
        yield Two(a, b)


@pytest.fixture
def shard() -> Iterator[hybrid.Shard]:
    with hybrid.Shard(SMALL) as made:
        yield made
