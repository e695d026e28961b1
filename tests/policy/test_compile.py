"""A checked policy becomes steering rules, and two of them can be compared."""

from __future__ import annotations

import random
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.errors import PolicyError
from hybrid.policy import (
    CompiledPolicy,
    CopyMode,
    Mode,
    PolicyModel,
    Protocol,
    Rule,
    Target,
    compile_policy,
    describe,
    diff,
    loads,
)
from hybrid.policy.model import MatchModel
from hybrid.policy.region import Region

REDIS = "{name: redis, match: {protocol: tcp, destination_port: 6379}, to: afxdp%s}"
DROP = "{name: telnet, match: {protocol: tcp, destination_port: 23}, to: drop%s}"


def compiled(*rules: str, settings: str = "mode: auto", name: str = "hys0") -> CompiledPolicy:
    text = f"version: 1\ninterfaces:\n  - name: {name}\n    {settings}\n    rules: [{', '.join(rules)}]\n"
    return compile_policy(loads(text.encode()))


def test_every_key_reaches_the_steering_rule() -> None:
    match = "{protocol: udp, source: 10.0.0.0/8, destination: 10.1.2.3, destination_port: 5-9}"
    rule = f"{{name: r, match: {match}, to: drop}}"
    assert compiled(rule).interfaces[0].rules == (
        Rule(
            "r", 1000, Target.DROP, Protocol.UDP, ip_network("10.0.0.0/8"), ip_network("10.1.2.3/32"), (5, 9)
        ),
    )


def test_rules_come_in_the_order_they_are_tried() -> None:
    (interface,) = compiled(REDIS % "", DROP % ", priority: 5000").interfaces
    assert [(rule.name, rule.priority) for rule in interface.rules] == [("telnet", 5000), ("redis", 1000)]


def test_without_priorities_the_order_of_the_file_counts() -> None:
    (interface,) = compiled(REDIS % "", DROP % "").interfaces
    assert [(rule.name, rule.priority) for rule in interface.rules] == [("redis", 1000), ("telnet", 999)]


def test_what_is_requested_of_the_interface_is_kept() -> None:
    (interface,) = compiled(settings="queues: [3, 1]").interfaces
    assert (interface.queues, interface.mode, interface.copy) == ((1, 3), Mode.AUTO, CopyMode.AUTO)
    assert compiled(settings="copy: zero-copy").interfaces[0].copy is CopyMode.ZEROCOPY


def test_a_policy_made_by_a_program_is_checked_too() -> None:
    rule = {"name": "all", "match": {"protocol": "tcp"}, "to": "afxdp"}
    model = PolicyModel.model_validate({"version": 1, "interfaces": [{"name": "hys0", "rules": [rule]}]})
    with pytest.raises(PolicyError, match="takes SSH"):
        compile_policy(model)


def test_a_rule_reads_as_a_line() -> None:
    (rule,) = compiled(REDIS % "").interfaces[0].rules
    assert describe(rule) == "tcp port 6379 -> afxdp (priority 1000)"


def test_equal_policies_do_not_differ() -> None:
    assert not diff(compiled(REDIS % ""), compiled(REDIS % ""))


def test_a_change_of_rules_is_told_from_a_change_of_settings() -> None:
    changed = diff(compiled(REDIS % ""), compiled(REDIS % ", priority: 7", DROP % ""))
    (interface,) = changed.interfaces
    assert interface.rules_only
    assert list(changed.lines()) == [
        "~ hys0 rule redis: tcp port 6379 -> afxdp (priority 1000)  =>  tcp port 6379 -> afxdp (priority 7)",
        "+ hys0 rule telnet: tcp port 23 -> drop (priority 999)",
    ]
    changed = diff(compiled(REDIS % ""), compiled(settings="mode: generic"))
    assert not changed.interfaces[0].rules_only
    assert list(changed.lines()) == [
        "~ hys0 mode: auto -> generic",
        "- hys0 rule redis: tcp port 6379 -> afxdp (priority 1000)",
    ]


def test_interfaces_that_come_and_go_are_listed() -> None:
    lines = list(diff(compiled(name="a"), compiled(name="b")).lines())
    assert lines == ["- interface a", "+ interface b"]


PREFIXES = st.sampled_from(
    [None, "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "fd00::/8", "fd00::1"]
)
MATCHES = st.builds(
    lambda protocol, source, destination, ports: MatchModel.model_validate(
        {
            key: value
            for key, value in {
                "protocol": protocol,
                "source": source,
                "destination": destination,
                "destination_port": ports,
            }.items()
            if value is not None
        }
    ),
    st.sampled_from([None, "tcp", "udp"]),
    PREFIXES,
    PREFIXES,
    st.sampled_from([None, 1, "1-3", "2-4", "1-65535"]),
).filter(lambda m: not m.source or not m.destination or m.source.version == m.destination.version)


def takes(match: MatchModel, frame: tuple[Protocol, object, object, int]) -> bool:
    """By the definition, value by value."""
    protocol, source, destination, port = frame
    return (
        match.protocol in (None, protocol)
        and (match.source is None or source in match.source)
        and (match.destination is None or destination in match.destination)
        and (match.destination_port is None or match.destination_port[0] <= port <= match.destination_port[1])
    )


def frames() -> list[tuple[Protocol, object, object, int]]:
    """One for every way in which the prefixes and ports above can tell frames apart."""
    found = []
    for family in (("10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1"), ("fd00::1", "fd00::2", "2001:db8::1")):
        addresses = [ip_network(address).network_address for address in family]
        found += [
            (protocol, source, destination, port)
            for protocol in Protocol
            for source in addresses
            for destination in addresses
            for port in (1, 2, 3, 4, 5)
        ]
    random.Random(1).shuffle(found)
    return found


FRAMES = frames()


@settings(max_examples=300, deadline=None)
@given(MATCHES, MATCHES)
def test_regions_agree_with_the_frames_they_stand_for(one: MatchModel, other: MatchModel) -> None:
    mine, theirs = Region.of(one), Region.of(other)
    both = any(takes(one, frame) and takes(other, frame) for frame in FRAMES)
    assert mine.meets(theirs) == both
    if mine.contains(theirs):
        assert all(takes(one, frame) for frame in FRAMES if takes(other, frame))
