"""Which rule decides about a frame."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from hybrid.bpf import Steering
from hybrid.errors import HybridError, UsageError
from hybrid.policy.rule import Protocol, Rule, Target

from .reference import DROP, PASS

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def v4(port: int = 80, source: str = "10.1.2.3", destination: str = "10.4.5.6", layer: type = TCP) -> bytes:
    return bytes(ETHER / IP(src=source, dst=destination) / layer(dport=port))


def v6(port: int = 80, source: str = "fd00::1", destination: str = "fd00::2", layer: type = TCP) -> bytes:
    return bytes(ETHER / IPv6(src=source, dst=destination) / layer(dport=port))


def rule(name: str = "it", priority: int = 0, to: Target = Target.DROP, **match: object) -> Rule:
    for side in ("source", "destination"):
        if side in match:
            match[side] = ip_network(str(match[side]))
    return Rule(name, priority, to, **match)  # type: ignore[arg-type]


def decides(steering: Steering, rules: list[Rule], frame: bytes) -> str | None:
    """The name of the rule whose counter went up."""
    steering.replace_rules(rules)
    before = {c.rule.name: c.hit.packets for c in steering.counters().rules}
    steering.test_run(frame)
    after = {c.rule.name: c.hit.packets for c in steering.counters().rules}
    changed = [name for name in after if after[name] != before[name]]
    assert len(changed) <= 1
    return changed[0] if changed else None


IT, NOTHING = "it", None
MATCHES = [
    ("no field: TCP over IPv4", {}, v4(), IT),
    ("no field: UDP over IPv6", {}, v6(layer=UDP), IT),
    ("protocol tcp, TCP", {"protocol": Protocol.TCP}, v4(), IT),
    ("protocol tcp, TCP over IPv6", {"protocol": Protocol.TCP}, v6(), IT),
    ("protocol tcp, UDP", {"protocol": Protocol.TCP}, v4(layer=UDP), NOTHING),
    ("protocol udp, UDP", {"protocol": Protocol.UDP}, v6(layer=UDP), IT),
    ("protocol udp, TCP", {"protocol": Protocol.UDP}, v6(), NOTHING),
    ("a port, that port", {"protocol": Protocol.TCP, "ports": (80, 80)}, v4(80), IT),
    ("a port, one less", {"protocol": Protocol.TCP, "ports": (80, 80)}, v4(79), NOTHING),
    ("a port, one more", {"protocol": Protocol.TCP, "ports": (80, 80)}, v4(81), NOTHING),
    ("a port with its bytes swapped", {"protocol": Protocol.TCP, "ports": (80, 80)}, v4(80 << 8), NOTHING),
    ("a range, below", {"protocol": Protocol.TCP, "ports": (1000, 2000)}, v4(999), NOTHING),
    ("a range, its first", {"protocol": Protocol.TCP, "ports": (1000, 2000)}, v4(1000), IT),
    ("a range, inside", {"protocol": Protocol.TCP, "ports": (1000, 2000)}, v6(1500), IT),
    ("a range, its last", {"protocol": Protocol.TCP, "ports": (1000, 2000)}, v4(2000), IT),
    ("a range, above", {"protocol": Protocol.TCP, "ports": (1000, 2000)}, v4(2001), NOTHING),
    ("port 0 alone, 0", {"protocol": Protocol.TCP, "ports": (0, 0)}, v4(0), IT),
    ("port 0 alone, 1", {"protocol": Protocol.TCP, "ports": (0, 0)}, v4(1), NOTHING),
    ("port 65535 alone, 65535", {"protocol": Protocol.TCP, "ports": (65535, 65535)}, v4(65535), IT),
    ("port 65535 alone, 0", {"protocol": Protocol.TCP, "ports": (65535, 65535)}, v4(0), NOTHING),
    ("all but port 0, 0", {"protocol": Protocol.TCP, "ports": (1, 65535)}, v4(0), NOTHING),
    ("all but port 65535, 65535", {"protocol": Protocol.TCP, "ports": (0, 65534)}, v4(65535), NOTHING),
    ("the source port is not looked at", {"protocol": Protocol.TCP, "ports": (20, 20)}, v4(80), NOTHING),
    ("a source /24, its first", {"source": "10.1.2.0/24"}, v4(source="10.1.2.0"), IT),
    ("a source /24, its last", {"source": "10.1.2.0/24"}, v4(source="10.1.2.255"), IT),
    ("a source /24, below", {"source": "10.1.2.0/24"}, v4(source="10.1.1.255"), NOTHING),
    ("a source /24, above", {"source": "10.1.2.0/24"}, v4(source="10.1.3.0"), NOTHING),
    ("a source, as destination", {"source": "10.1.2.0/24"}, v4(80, "9.9.9.9", "10.1.2.3"), NOTHING),
    ("a destination /24", {"destination": "10.4.5.0/24"}, v4(), IT),
    ("a destination prefix, as source", {"destination": "10.1.2.0/24"}, v4(), NOTHING),
    ("both prefixes", {"source": "10.1.0.0/16", "destination": "10.4.0.0/16"}, v4(), IT),
    ("both prefixes, only one fits", {"source": "10.1.0.0/16", "destination": "10.5.0.0/16"}, v4(), NOTHING),
    ("a host, itself", {"destination": "10.4.5.6/32"}, v4(), IT),
    ("a host, its neighbour", {"destination": "10.4.5.7/32"}, v4(), NOTHING),
    ("a /31, the second", {"destination": "10.4.5.6/31"}, v4(destination="10.4.5.7"), IT),
    ("a /31, the next", {"destination": "10.4.5.6/31"}, v4(destination="10.4.5.8"), NOTHING),
    ("a /1, the upper half", {"destination": "128.0.0.0/1"}, v4(destination="200.0.0.1"), IT),
    ("a /1, the lower half", {"destination": "128.0.0.0/1"}, v4(destination="127.255.255.255"), NOTHING),
    ("any IPv4, IPv4", {"source": "0.0.0.0/0"}, v4(), IT),
    ("any IPv4, IPv6", {"source": "0.0.0.0/0"}, v6(), NOTHING),
    ("any IPv6, IPv6", {"source": "::/0"}, v6(), IT),
    ("any IPv6, IPv4", {"source": "::/0"}, v4(), NOTHING),
    ("an IPv6 host, itself", {"destination": "fd00::2/128"}, v6(), IT),
    ("an IPv6 host, another in the last bit", {"destination": "fd00::3/128"}, v6(), NOTHING),
    ("a /64, inside", {"source": "fd00::/64"}, v6(source="fd00::ffff:ffff:ffff:ffff"), IT),
    ("a /64, the next", {"source": "fd00::/64"}, v6(source="fd00:0:0:1::"), NOTHING),
    ("a /65, inside", {"source": "fd00::/65"}, v6(source="fd00::7fff:0:0:1"), IT),
    ("a /65, outside", {"source": "fd00::/65"}, v6(source="fd00::8000:0:0:1"), NOTHING),
    ("a /63, the odd one", {"source": "fd00::/63"}, v6(source="fd00:0:0:1::1"), IT),
    ("a /63, the next", {"source": "fd00::/63"}, v6(source="fd00:0:0:2::1"), NOTHING),
    ("a /7", {"source": "fc00::/7"}, v6(), IT),
    ("IPv4-mapped IPv6 is IPv6", {"destination": "10.4.5.6/32"}, v6(destination="::ffff:10.4.5.6"), NOTHING),
    (
        "every field",
        {"protocol": Protocol.UDP, "source": "fd00::/64", "destination": "fd00::2/128", "ports": (53, 53)},
        v6(53, layer=UDP),
        IT,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("match", "frame", "decider"), [case[1:] for case in MATCHES], ids=[c[0] for c in MATCHES]
)
def test_a_rule_matches(
    steering: Steering, match: dict[str, object], frame: bytes, decider: str | None
) -> None:
    assert decides(steering, [rule(**match)], frame) == decider


def test_the_highest_priority_decides_in_whatever_order_rules_come(steering: Steering) -> None:
    low, middle, high = (rule(name, priority) for name, priority in [("l", -5), ("m", 0), ("h", 7)])
    for rules in ([low, middle, high], [high, middle, low], [middle, high, low]):
        assert decides(steering, rules, v4()) == "h"
        assert [r.name for r in steering.rules()] == ["h", "m", "l"]


def test_equal_priorities_are_tried_in_the_order_given(steering: Steering) -> None:
    assert decides(steering, [rule("first"), rule("second")], v4()) == "first"
    assert decides(steering, [rule("second"), rule("first")], v4()) == "second"


def test_a_rule_that_does_not_match_leaves_it_to_the_next(steering: Steering) -> None:
    narrow = rule("narrow", 9, protocol=Protocol.TCP, source="10.9.0.0/16", ports=(80, 80))
    assert decides(steering, [narrow, rule("wide")], v4()) == "wide"


def test_each_verdict_does_what_it_says(steering: Steering) -> None:
    for target, action, reason in [
        (Target.DROP, DROP, "rule-drop"),
        (Target.KERNEL, PASS, "rule-kernel"),
        (Target.AFXDP, PASS, "no-socket"),
    ]:
        steering.replace_rules([rule(to=target)])
        before = steering.counters().reason(reason).packets
        assert steering.test_run(v4())[0] == action
        assert steering.counters().reason(reason).packets == before + 1


@pytest.mark.parametrize("position", [0, 1, 127, 254, 255])
def test_each_of_256_rules_can_decide(steering: Steering, position: int) -> None:
    rules = [rule(f"r{i}", -i, protocol=Protocol.TCP, ports=(1000 + i, 1000 + i)) for i in range(256)]
    assert decides(steering, rules, v4(1000 + position)) == f"r{position}"
    assert decides(steering, rules, v4(999)) is None


def test_rules_read_back_as_they_were_given(steering: Steering) -> None:
    rules = [
        rule("a", 3, Target.AFXDP, protocol=Protocol.TCP, source="10.0.0.0/9", ports=(1, 2)),
        rule("b", 2, Target.KERNEL, protocol=Protocol.UDP, destination="fd00::/127"),
        rule("\N{GREEK SMALL LETTER MU}s", -(2**31), Target.DROP),
    ]
    steering.replace_rules(rules)
    assert steering.rules() == rules


def test_rules_that_make_no_sense_are_refused_and_change_nothing(steering: Steering) -> None:
    kept = [rule("kept")]
    steering.replace_rules(kept)
    generation = steering.counters().generation
    mixed = rule("mixed", source="10.0.0.0/8", destination="fd00::/8")
    for wrong, kind in [
        ([rule("")], UsageError),
        ([rule("x" * 64)], UsageError),
        ([mixed], UsageError),
        ([rule(str(i)) for i in range(257)], UsageError),
        ([rule("twice"), rule("twice", 1)], HybridError),
        ([rule("backwards", protocol=Protocol.TCP, ports=(2, 1))], HybridError),
    ]:
        with pytest.raises(kind) as refused:
            steering.replace_rules(wrong)
        assert refused.value.message
    assert steering.rules() == kept
    assert steering.counters().generation == generation
