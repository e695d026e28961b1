"""The program against the plain-Python reference, over seeded random rules and frames."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from hybrid.bpf import Steering
from hybrid.policy.rule import Protocol, Rule, Target

from .reference import judge

# Few addresses and ports, close together, so that rules and frames meet often.
PORTS = (0, 1, 79, 80, 81, 4790, 4791, 4792, 6379, 65534, 65535)
V4_BASES = (0x0A000000, 0x0A0000FF, 0x0A000100, 0x0AFFFFFF, 0xC0A80001, 0xFFFFFFFF, 0)
V6_BASES = (
    0xFD00 << 112,
    (0xFD00 << 112) + 1,
    (0xFD00 << 112) + (1 << 64),
    (0xFD00 << 112) + (1 << 63),
    0,
    2**128 - 1,
)


def random_rule(rng: random.Random, name: str) -> Rule:
    protocol = rng.choice([None, Protocol.TCP, Protocol.UDP])
    ports = None
    if protocol is not None and rng.random() < 0.7:
        low = rng.choice(PORTS)
        ports = (low, min(65535, low + rng.choice([0, 0, 1, 2, 100, 65535])))
    family = rng.choice([0, 4, 6])
    return Rule(
        name=name,
        priority=rng.randrange(-3, 4),
        to=rng.choice([to for to in Target if to is not Target.BYPASS]),
        protocol=protocol,
        source=random_network(rng, family) if rng.random() < 0.6 else None,
        destination=random_network(rng, family) if rng.random() < 0.6 else None,
        ports=ports,
    )


def random_network(rng: random.Random, family: int) -> IPv4Network | IPv6Network | None:
    if family == 4:
        return IPv4Network((rng.choice(V4_BASES), rng.choice([0, 1, 8, 9, 23, 24, 25, 31, 32])), strict=False)
    if family == 6:
        length = rng.choice([0, 1, 7, 16, 63, 64, 65, 127, 128])
        return IPv6Network((rng.choice(V6_BASES), length), strict=False)
    return None


def random_transport(rng: random.Random, kind: int) -> bytes:
    payload = bytes(rng.randrange(0, 9))
    ports = rng.choice(PORTS).to_bytes(2, "big") + rng.choice(PORTS).to_bytes(2, "big")
    if kind == 6:
        offset = rng.choice([5, 5, 5, 5, 6, 15, 4, 0])
        options = bytes(max(0, offset - 5) * 4 - rng.choice([0, 0, 0, 1]) if offset > 5 else 0)
        return ports + bytes(8) + bytes([offset << 4, 2]) + bytes(6) + options + payload
    if kind == 17:
        length = 8 + len(payload) + rng.choice([0, 0, 0, 0, 1, -1, -8])
        return ports + max(0, length).to_bytes(2, "big") + bytes(2) + payload
    return bytes(rng.randrange(0, 24))


def random_v4(rng: random.Random) -> bytes:
    kind = rng.choice([6, 6, 6, 17, 17, 1, 47, 58])
    words = rng.choice([5, 5, 5, 5, 6, 15, 4, 0])
    body = bytes(max(0, words - 5) * 4) + random_transport(rng, kind)
    total = 20 + len(body) + rng.choice([0, 0, 0, 0, 0, 0, 1, -1, -20])
    fragment = rng.choice([0, 0, 0, 0, 0, 0x4000, 0x8000, 0x2000, 0x0001, 0x3FFF])
    version = rng.choice([4] * 15 + [6])
    addresses = b"".join(IPv4Address(rng.choice(V4_BASES)).packed for _ in range(2))
    head = bytes([version << 4 | words, 0]) + max(0, total).to_bytes(2, "big")
    return head + bytes(2) + fragment.to_bytes(2, "big") + bytes([64, kind]) + bytes(2) + addresses + body


def random_v6(rng: random.Random) -> bytes:
    kind = rng.choice([6, 6, 6, 17, 17, 58, 59, 44])
    body, following = random_transport(rng, kind), kind
    for _ in range(rng.choice([0, 0, 0, 0, 1, 2, 3, 7, 8, 9])):
        header = rng.choice([60, 60, 60, 60, 43, 51, 44 if rng.random() < 0.1 else 60])
        units = rng.randrange(0, 3)
        size = (units + 2) * 4 if header == 51 else (units + 1) * 8
        middle = bytes([rng.choice([0, 2, 4]), 1 if rng.random() < 0.1 else 0])
        body = (bytes([following, units]) + middle).ljust(size, b"\0") + body
        following = header
    if rng.random() < 0.1:
        body, following = bytes([following, 0]) + bytes(6) + body, 0
    length = len(body) + rng.choice([0, 0, 0, 0, 0, 0, 0, 1, -1, -8])
    version = rng.choice([6] * 15 + [4])
    addresses = b"".join(IPv6Address(rng.choice(V6_BASES)).packed for _ in range(2))
    head = bytes([version << 4, 0, 0, 0]) + max(0, length).to_bytes(2, "big")
    return head + bytes([following, 64]) + addresses + body


def random_frame(rng: random.Random) -> bytes:
    kind, packet = rng.choice([(0x0800, random_v4(rng)), (0x86DD, random_v6(rng)), (0x0806, bytes(28))])
    if rng.random() < 0.05:
        kind = rng.choice([0x0800, 0x86DD, 0x8100])
    for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2, 3])):
        packet = rng.randbytes(2) + kind.to_bytes(2, "big") + packet
        kind = rng.choice([0x8100, 0x88A8])
    frame = rng.randbytes(12) + kind.to_bytes(2, "big") + packet
    if rng.random() < 0.1:
        frame = frame[: rng.randrange(14, len(frame) + 1)]
    elif rng.random() < 0.2:
        frame += rng.randbytes(rng.randrange(1, 32))
    if rng.random() < 0.1:
        at = rng.randrange(12, len(frame))
        frame = frame[:at] + rng.randbytes(1) + frame[at + 1 :]
    return frame


@pytest.mark.parametrize("seed", range(24))
def test_program_and_reference_agree(steering: Steering, seed: int) -> None:
    rng = random.Random(seed)
    rules = [random_rule(rng, f"r{i}") for i in range(rng.choice([0, 1, 3, 10, 40]))]
    steering.replace_rules(rules)
    before = steering.counters()
    reasons = {name: [c.packets, c.bytes] for name, c in before.reasons.items()}
    hits = {c.rule.name: [c.hit.packets, c.hit.bytes] for c in before.rules}
    for i in range(500):
        frame = random_frame(rng)
        action, reason, decider = judge(frame, rules)
        assert steering.test_run(frame)[0] == action, f"frame {i}, {reason}, {decider}: {frame.hex()}"
        for tally in [reasons[reason]] + ([hits[decider]] if decider else []):
            tally[0] += 1
            tally[1] += len(frame)
        if i % 50 == 49:  # the action alone does not tell one pass from another
            now = steering.counters()
            assert {n: [c.packets, c.bytes] for n, c in now.reasons.items()} == reasons
            assert {c.rule.name: [c.hit.packets, c.hit.bytes] for c in now.rules} == hits


def test_the_random_frames_reach_every_reason() -> None:
    rng = random.Random(1)
    rules = [random_rule(rng, f"r{i}") for i in range(10)]
    reached = {judge(random_frame(rng), rules)[1] for _ in range(20000)}
    from hybrid.bpf.steering import reason_names

    assert set(reason_names()) - reached == {"redirected", "no-rules", "dpdk", "kernel-flow"}
