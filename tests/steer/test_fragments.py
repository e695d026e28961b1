"""Frames larger than a buffer: headers in its first part, lengths held against all of it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from hybrid.bpf import Steering
from hybrid.policy.rule import Protocol, Rule, Target

from .reference import DROP, PASS

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
LARGE = [4000, 8934, 20000, 60000]
RULES = [
    Rule("tcp", 2, Target.DROP, protocol=Protocol.TCP, ports=(80, 80)),
    Rule("udp", 1, Target.DROP, protocol=Protocol.UDP, ports=(80, 80)),
]


def frame(size: int, version: int = 4, layer: type = TCP, port: int = 80) -> bytes:
    ip = IP(src="10.0.0.1", dst="10.0.0.2") if version == 4 else IPv6(src="fd00::1", dst="fd00::2")
    return bytes(ETHER / ip / layer(dport=port) / (b"x" * size))


@pytest.mark.parametrize("layer", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", LARGE)
def test_a_rule_takes_a_large_frame_and_counts_all_its_bytes(
    steering: Steering, size: int, version: int, layer: type
) -> None:
    steering.replace_rules(RULES)
    name = "tcp" if layer is TCP else "udp"
    whole = frame(size, version, layer)
    before = steering.counters().rule(name).hit
    assert steering.test_run(whole)[0] == DROP
    after = steering.counters().rule(name).hit
    assert (after.packets - before.packets, after.bytes - before.bytes) == (1, len(whole))


@pytest.mark.parametrize("size", LARGE)
def test_a_large_frame_that_no_rule_names_passes(steering: Steering, size: int) -> None:
    steering.replace_rules(RULES)
    assert steering.test_run(frame(size, port=81))[0] == PASS


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("missing", [1, 100, 5000])
def test_a_large_frame_shorter_than_it_says_is_the_kernels(
    steering: Steering, version: int, missing: int
) -> None:
    steering.replace_rules(RULES)
    before = steering.counters().reason("truncated").packets
    assert steering.test_run(frame(9000, version)[:-missing])[0] == PASS
    assert steering.counters().reason("truncated").packets == before + 1
