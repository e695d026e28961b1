"""What is wrong with rules that are each well formed: impossible, overlapping, shadowed, or dangerous.

Pure: rules in, findings out. Shadowing is looked for rule by rule; a rule that only several others
together cover is not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybrid.policy.device import FrameDevice, Via
from hybrid.policy.document import Path
from hybrid.policy.model import InterfaceModel, RuleModel
from hybrid.policy.region import Region
from hybrid.policy.rule import Fallback, Protocol, Target

__all__ = [
    "DEFAULT_PRIORITY",
    "Finding",
    "check_devices",
    "check_interfaces",
    "check_rules",
    "effective_priority",
]

# Of the first rule that names none; each one after it has one less.
DEFAULT_PRIORITY = 1000

ROCE_PORT = 4791

# Losing one of these to a rule can cut a host off from the people who run it.
_LIFELINES = (
    (Protocol.TCP, 22, "SSH (TCP port 22)"),
    (Protocol.UDP, 68, "DHCP (UDP port 68)"),
    (Protocol.UDP, 546, "DHCPv6 (UDP port 546)"),
)


@dataclass(frozen=True)
class Finding:
    """A mistake, and the way to it from the place that was checked."""

    path: Path
    message: str
    expected: str


@dataclass(frozen=True)
class _Row:
    index: int
    rule: RuleModel
    priority: int
    region: Region


def effective_priority(rule: RuleModel, index: int) -> int:
    """As given, or by the rule's place in its list."""
    return rule.priority if rule.priority is not None else DEFAULT_PRIORITY - index


def check_interfaces(interfaces: Sequence[tuple[int, InterfaceModel]]) -> Iterator[Finding]:
    """What several interfaces get wrong together. Each comes with its place in the list."""
    seen: set[str] = set()
    for index, interface in interfaces:
        if interface.name in seen:
            yield Finding(
                ("interfaces", index, "name"),
                f"interface {interface.name} stands in this policy twice",
                "one entry for each interface, with all of its rules",
            )
        seen.add(interface.name)


def check_devices(interface: InterfaceModel) -> Iterator[Finding]:
    """Where what an interface's rules say, and what it says of its device, contradict each other."""
    device, dpdk = interface.device, interface.dpdk
    if device is FrameDevice.TAP and interface.tap is None:
        yield Finding(
            ("device",),
            "a TAP device has no address of its own here",
            "tap: {addresses: [10.0.0.2/24]} beside it",
        )
    if device is not FrameDevice.TAP and interface.tap is not None:
        yield Finding(("tap",), f"'tap' says nothing of device {device}", "device: tap, or no such key")
    if dpdk is not None and dpdk.via is not Via.DEVMAP and device is not FrameDevice.DPDK:
        yield Finding(
            ("dpdk", "via"),
            f"a DPDK port via {dpdk.via} has the interface to itself, and its device is {device}",
            "device: dpdk, or via: devmap, which leaves the interface to the steering program",
        )
    if dpdk is not None and dpdk.via is Via.WHOLE and dpdk.port is None:
        yield Finding(
            ("dpdk",),
            "a NIC that is DPDK's whole has no default port",
            'port: its devargs, such as "0000:01:00.0"',
        )
    if dpdk is not None and device not in (FrameDevice.AFXDP, FrameDevice.DPDK):
        yield Finding(("dpdk",), f"'dpdk' says nothing of device {device}", "device: dpdk, or no such key")
    for index, rule in enumerate(interface.rules):
        allowed = {
            FrameDevice.AFXDP: (Target.AFXDP, Target.DPDK),
            FrameDevice.DPDK: (Target.DPDK,),
        }.get(device, ())
        if rule.to.bypasses and rule.to is not Target.BYPASS and rule.to not in allowed:
            yield Finding(
                ("rules", index, "to"),
                f"rule '{rule.name}' says {rule.to}, and the device of {interface.name} is {device}",
                f"to: bypass, which is {device} here, or another device",
            )
        unsteered = not device.steered or (dpdk is not None and dpdk.via is Via.WHOLE)
        if rule.to is Target.DROP and unsteered:
            yield Finding(
                ("rules", index, "to"),
                f"rule '{rule.name}' drops, and no steering program runs on {interface.name} to do it",
                "device: afxdp",
            )


def check_rules(rules: Sequence[tuple[int, RuleModel]]) -> Iterator[Finding]:
    """The rules of one interface, each with its place in the list. Paths start at that place."""
    names: set[str] = set()
    rows: list[_Row] = []
    for index, rule in rules:
        if rule.name in names:
            yield Finding((index, "name"), f"two rules are called '{rule.name}'", "a name of its own")
        names.add(rule.name)
        impossible = list(_impossible(index, rule))
        yield from impossible
        if not impossible:
            rows.append(_Row(index, rule, effective_priority(rule, index), Region.of(rule.match)))
    rows.sort(key=lambda row: (-row.priority, row.index))  # as they are tried
    for place, row in enumerate(rows):
        before = rows[:place]
        hidden = _hidden(row, before)
        if hidden is not None:
            yield hidden
        yield from _dangerous(row, before)


def _impossible(index: int, rule: RuleModel) -> Iterator[Finding]:
    """What no frame can match, or what this can't be asked for."""
    match = rule.match
    if not match.model_fields_set:
        yield Finding(
            (index, "match"),
            f"rule '{rule.name}' names nothing to match, so it would take every frame",
            "at least one of protocol, source, destination and destination_port",
        )
    if match.source is not None and match.destination is not None:
        families = (match.source.version, match.destination.version)
        if families[0] != families[1]:
            yield Finding(
                (index, "match", "destination"),
                f"rule '{rule.name}' can match nothing: its source is IPv{families[0]} and its destination "
                f"IPv{families[1]}",
                "two prefixes of one family",
            )
    if match.destination_port is not None and match.protocol is None:
        yield Finding(
            (index, "match", "destination_port"),
            f"rule '{rule.name}' names a port without a protocol",
            "protocol: tcp or protocol: udp beside it",
        )
    if rule.fallback is not Fallback.NONE and not rule.to.bypasses:
        yield Finding(
            (index, "fallback"),
            f"rule '{rule.name}' has a fallback, and {rule.to} is nothing to fall back from",
            "no such key, or a bypass such as to: afxdp",
        )
    if (
        not rule.to.passes
        and match.protocol is Protocol.UDP
        and match.destination_port == (ROCE_PORT, ROCE_PORT)
    ):
        yield Finding(
            (index, "match", "destination_port"),
            f"rule '{rule.name}' takes UDP port {ROCE_PORT}, which is RDMA's and the kernel always keeps",
            "another port",
        )


def _hidden(row: _Row, before: Sequence[_Row]) -> Finding | None:
    """A rule that is never reached, or whose frames two rules claim with equal right."""
    for other in before:
        same_right = other.priority == row.priority
        if same_right and other.rule.to is not row.rule.to:
            if other.region.meets(row.region):
                return Finding(
                    (row.index, "name"),
                    f"rules '{row.rule.name}' and '{other.rule.name}' overlap: a frame can match both, both "
                    f"have priority {row.priority}, but one says {row.rule.to} and the other {other.rule.to}",
                    "a different priority for one of them: the higher is tried first",
                )
        elif other.region.contains(row.region):
            return Finding(
                (row.index, "name"),
                f"rule '{row.rule.name}' never takes a frame: rule '{other.rule.name}' (priority "
                f"{other.priority}) is tried before it (priority {row.priority}) and covers all of it",
                f"a narrower '{other.rule.name}', a higher priority for '{row.rule.name}', or one rule less",
            )
    return None


def _dangerous(row: _Row, before: Sequence[_Row]) -> Iterator[Finding]:
    """Whoever can lose the host by a rule must say that it is meant."""
    if row.rule.to.passes or row.rule.allow_everything:
        return
    for protocol, port, what in _LIFELINES:
        if not row.region.meets_port(protocol, port):
            continue
        taken = row.region.at_port(protocol, port)
        if any(other.rule.to.passes and other.region.contains(taken) for other in before):
            continue
        yield Finding(
            (row.index, "match"),
            f"rule '{row.rule.name}' takes {what} from the kernel, which can lock people out of this host",
            f"a destination_port without {port}, a rule of higher priority that leaves it to the kernel, "
            "or allow_everything: true if it is meant",
        )
