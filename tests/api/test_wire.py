"""The frame-level harness: frames made by hand go in, what the stack answers comes out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether

import hybrid
from tests.api.conftest import SMALL, host

PEER_MAC = "02:00:00:00:00:99"


@pytest.fixture
def wired() -> Iterator[tuple[hybrid.Shard, hybrid.Wire]]:
    with hybrid.Shard(SMALL) as shard, host(1, 1) as table:
        shard.set_host(table)
        yield shard, shard.attach_wire(1)


def exchange(wired: tuple[hybrid.Shard, hybrid.Wire], at_ns: int, *frames: Ether) -> list[Ether]:
    shard, wire = wired
    for frame in frames:
        wire.inject(bytes(frame))
    shard.set_clock(at_ns)
    for _ in range(3):
        shard.poll()
    return [Ether(raw) for raw in wire.collect_all()]


def test_who_has_our_address_is_answered(wired) -> None:
    question = Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=PEER_MAC, psrc="10.0.0.9", pdst="10.0.0.1"
    )
    (answer,) = exchange(wired, 1, question)
    assert (answer[ARP].op, answer[ARP].hwsrc, answer[ARP].psrc) == (2, "02:00:00:00:00:01", "10.0.0.1")


def test_a_connection_is_answered_and_the_stack_says_when_it_wants_to_run_next(wired) -> None:
    shard, _wire = wired
    syn = Ether(src=PEER_MAC, dst="02:00:00:00:00:01") / IP(src="10.0.0.9", dst="10.0.0.1")
    with shard.socket() as listener:
        listener.bind(":80").listen()
        assert shard.next_deadline_ns is None
        question = Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
            op=1, hwsrc=PEER_MAC, psrc="10.0.0.9", pdst="10.0.0.1"
        )
        exchange(wired, 1, question)
        (answer,) = exchange(wired, 2, syn / TCP(sport=1234, dport=80, flags="S", seq=7))
        assert answer[TCP].flags == "SA"
        assert answer[TCP].ack == 8
        again: list[Ether] = []
        while not again:
            deadline = shard.next_deadline_ns
            assert deadline is not None
            assert deadline < 4_000_000_000
            again = exchange(wired, deadline)
        assert again[0][TCP].flags == "SA"


def test_a_frame_that_does_not_fit_is_refused(wired) -> None:
    _shard, wire = wired
    with pytest.raises(hybrid.QueueError):
        wire.inject(b"\0" * 70_000)
    assert wire.collect() is None


def test_frames_that_wait_are_bounded(wired) -> None:
    _shard, wire = wired
    with pytest.raises(hybrid.LimitError):
        for _ in range(2000):
            wire.inject(b"\0" * 60)
