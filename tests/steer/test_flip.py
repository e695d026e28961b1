"""A change of rules: at once, and counters that go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from hybrid.bpf import Count, Steering
from hybrid.policy.rule import Protocol, Rule, Target

from .reference import DROP

FRAME = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(dst="10.0.0.1") / TCP(dport=80))


def rule(name: str, port: int = 80, priority: int = 0, to: Target = Target.DROP) -> Rule:
    return Rule(name, priority, to, Protocol.TCP, ports=(port, port))


def hit(steering: Steering, name: str) -> Count:
    return steering.counters().rule(name).hit


@contextmanager
def running(steering: Steering, batch: int = 2000) -> Iterator[dict[str, int]]:
    """Another thread runs the program over FRAME without a pause; tells how often and to what end."""
    seen = {"runs": 0, "other": 0}
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            action, _ = steering.test_run(FRAME, repeat=batch)
            seen["runs"] += batch
            seen["other"] += action != DROP

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield seen
    finally:
        stop.set()
        worker.join()


def test_counters_go_on_where_name_and_match_stay(steering: Steering) -> None:
    steering.replace_rules([rule("kept"), rule("other", 81)])
    base = hit(steering, "kept")
    steering.test_run(FRAME, repeat=10)
    steering.replace_rules([rule("new", 82, 5), rule("kept", priority=3, to=Target.KERNEL)])
    steering.test_run(FRAME, repeat=5)
    now = hit(steering, "kept")
    assert now.packets - base.packets == 15
    assert now.bytes - base.bytes == 15 * len(FRAME)


def test_counters_start_at_zero_for_a_rule_that_is_new_or_changed_or_back(steering: Steering) -> None:
    steering.replace_rules([rule("a")])
    steering.test_run(FRAME, repeat=10)
    steering.replace_rules([rule("b")])  # another name
    assert hit(steering, "b") == Count(0, 0)
    steering.test_run(FRAME, repeat=3)
    steering.replace_rules([rule("b", 81)])  # another match
    assert hit(steering, "b") == Count(0, 0)
    steering.replace_rules([rule("a")])  # back, after a generation without it
    assert hit(steering, "a") == Count(0, 0)
    steering.test_run(FRAME)
    assert hit(steering, "a") == Count(1, len(FRAME))


def test_256_rules_can_be_exchanged_for_256_others(steering: Steering) -> None:
    for turn in range(5):
        rules = [rule(f"t{turn}r{i}", 100 + i) for i in range(255)] + [rule(f"t{turn}last")]
        steering.replace_rules(rules)
        steering.test_run(FRAME, repeat=turn + 1)
        counters = steering.counters()
        assert counters.rule(f"t{turn}last").hit.packets == turn + 1
        assert sum(c.hit.packets for c in counters.rules) == turn + 1


def test_no_frame_sees_anything_but_the_old_rules_or_the_new(steering: Steering) -> None:
    # Both generations drop the frame, by other rules in other places; between them it would pass.
    even = [rule("even")]
    odd = [rule(f"filler{i}", 100 + i, 9) for i in range(100)] + [rule("odd")]
    steering.replace_rules(even)
    before = steering.counters()
    with running(steering) as seen:
        for turn in range(200):
            steering.replace_rules(odd if turn % 2 == 0 else even)
    after = steering.counters()
    assert seen["other"] == 0
    assert seen["runs"] > 0
    changed = {
        name: after.reasons[name].packets - count.packets
        for name, count in before.reasons.items()
        if after.reasons[name] != count
    }
    assert changed == {"rule-drop": seen["runs"]}
    assert after.generation == before.generation + 200


def test_a_rule_that_stays_loses_no_count_while_others_change(steering: Steering) -> None:
    kept = rule("kept throughout")
    steering.replace_rules([kept])
    before = hit(steering, kept.name).packets
    with running(steering) as seen:
        for turn in range(200):
            others = [rule(f"other{turn}-{i}", 100 + i, 9) for i in range(turn % 7)]
            steering.replace_rules([*others, kept])
    assert hit(steering, kept.name).packets - before == seen["runs"] > 0


def test_once_replaced_the_old_rules_are_seen_no_more(steering: Steering) -> None:
    steering.replace_rules([rule("old")])
    with running(steering):
        for turn in range(50):
            steering.replace_rules([rule("new", 81)])
            before = steering.counters().reason("rule-drop").packets
            assert steering.counters().reason("rule-drop").packets == before
            steering.replace_rules([rule(f"old{turn}")])


def test_readers_are_right_while_rules_change(steering: Steering) -> None:
    steering.replace_rules([rule("x0")])
    stop = threading.Event()
    names: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            counters = steering.counters()
            (only,) = counters.rules
            names.add(only.rule.name)
            assert only.hit.packets == 0

    with steering_reader(read, stop):
        for turn in range(200):
            steering.replace_rules([rule(f"x{turn}")])
    assert len(names) > 1


@contextmanager
def steering_reader(read: object, stop: threading.Event) -> Iterator[None]:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            read()  # type: ignore[operator]
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
    assert failed == []
