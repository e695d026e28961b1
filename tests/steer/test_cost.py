"""The budget: 30 ns a frame at 10 rules, above what running any program costs here."""

from __future__ import annotations

from ipaddress import ip_network
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
    by_port = [Rule(f"r{i}", -i, Target.KERNEL, Protocol.TCP, ports=(6379 + i, 6379 + i)) for i in range(10)]
    by_source = [
        Rule(f"s{i}", -i, Target.KERNEL, Protocol.TCP, ip_network(f"10.9.{i}.0/24"), ports=(80, 80))
        for i in range(10)
    ]
    v4, v6 = IP(src="10.9.9.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
    cases = {
        "v4 first": (by_port, frame(6379, v4)),
        "v4 last": (by_port, frame(6388, v4)),
        "v4 none": (by_port, frame(80, v4)),
        "v6 first": (by_port, frame(6379, v6)),
        "v6 last": (by_port, frame(6388, v6)),
        "v6 none": (by_port, frame(80, v6)),
        "last of ten prefixes": (by_source, frame(80, v4)),
    }
    best = dict.fromkeys([*cases, "empty"], 10**9)

    def above() -> dict[str, int]:
        return {case: best[case] - best["empty"] for case in cases}

    # The best of many short runs, taken in turns, so that a noisy neighbour disturbs all alike; a quiet
    # moment is enough, and a program that is too slow never has one.
    with Steering.load(empty_program) as empty:
        for turn in range(150):
            for case, (rules, data) in cases.items():
                if steering.rules() != rules:
                    steering.replace_rules(rules)
                best[case] = min(best[case], steering.test_run(data, repeat=20_000)[1])
                best["empty"] = min(best["empty"], empty.test_run(data, repeat=20_000)[1])
            if turn >= 10 and max(above().values()) <= BUDGET_NS:
                break
    assert max(above().values()) <= BUDGET_NS, f"{above()} above {best['empty']} ns"
