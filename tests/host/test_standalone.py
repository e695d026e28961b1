"""A shard in the process that follows the host: what it misses is resolved while its packet waits."""

from __future__ import annotations

import time

import pytest
from scapy.layers.l2 import Ether

import hybrid
from hybrid.host.thread import HostThread
from hybrid.lab import netns


@pytest.mark.parametrize("peer", ["10.77.0.2", "fd77::2"])
def test_a_packet_waits_until_the_kernel_has_resolved_its_next_hop(pair, peer: str) -> None:
    config = hybrid.Config(frames=512, sockets=8, connections=8, tokens=32)
    with HostThread(["v0"], prepare=lambda: netns.enter(pair.here)) as host, hybrid.Shard(config) as shard:
        ifindex = int(pair.ip(pair.here, "-o link show v0").split(":")[0])
        wire = shard.attach_wire(ifindex)
        host.serve(shard)
        with shard.socket(hybrid.Kind.DGRAM) as sender:
            sender.bind(":5000")
            sender.sendto(b"question", (peer, 53))
            deadline = time.monotonic() + 10
            frame = None
            while frame is None:
                assert time.monotonic() < deadline, "the packet never left"
                shard.wait_any(timeout=0.01)
                frame = wire.collect()
    assert Ether(frame).dst in pair.ip(pair.there, "link show v1")
    assert Ether(frame).src in pair.ip(pair.here, "link show v0")
