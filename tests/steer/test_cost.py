"""The budget: 30 ns a frame at 10 rules, above what running any program costs here."""

from __future__ import annotations

from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from hybrid.bpf import Steering
from hybrid.policy.rule import Protocol, Rule, Target

BUDGET_NS = 30
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def frame(port: int, network: IP | IPv6) -> bytes:
    return bytes(ETHER / network / TCP(dport=port) / Raw(b"x" * 64))


def test_ten_rules_are_within_budget(steering: Steering, empty_program: Path) -> None:
    rules = [Rule(f"r{i}", -i, Target.KERNEL, Protocol.TCP, ports=(6379 + i, 6379 + i)) for i in range(10)]
    steering.replace_rules(rules)
    v4, v6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
    frames = {
        f"{family} {case}": frame(port, network)
        for family, network in (("v4", v4), ("v6", v6))
        for case, port in (("first", 6379), ("last", 6388), ("none", 80))
    }
    best = dict.fromkeys([*frames, "empty"], 10**9)
    with Steering.load(empty_program) as empty:
        for _ in range(20):  # in turns, so that a noisy neighbour disturbs all alike
            for case, data in frames.items():
                best[case] = min(best[case], steering.test_run(data, repeat=50_000)[1])
            best["empty"] = min(best["empty"], empty.test_run(frames["v4 first"], repeat=50_000)[1])
    above = {case: best[case] - best["empty"] for case in frames}
    print(best)
    assert max(above.values()) <= BUDGET_NS, f"{above} above {best['empty']} ns"
