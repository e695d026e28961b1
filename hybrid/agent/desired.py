"""What a policy asks of each interface, in the form that can be compared with what is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from hybrid.bpf import XdpMode
from hybrid.launch.control import Copy
from hybrid.policy.rule import Rule, Target

PortRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Desired:
    """One interface. ``queues`` ``None``: every one that it has."""

    name: str
    rules: tuple[Rule, ...]
    mode: XdpMode = XdpMode.AUTO
    copy: Copy = Copy.AUTO
    busy_poll: bool = False
    strict: bool = False
    queues: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", in_order(self.rules))

    @property
    def outgoing(self) -> tuple[PortRange, ...]:
        """Ranges of local ports whose frames are steered: the program's outgoing connections use them."""
        found = {rule.ports for rule in self.rules if rule.to is Target.AFXDP and rule.ports is not None}
        return tuple(sorted((low, high) for low, high in found if low < high))


def in_order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """As they are tried, and each as the kernel side says it back."""
    return tuple(_plain(rule) for rule in sorted(rules, key=lambda rule: -rule.priority))


def _plain(rule: Rule) -> Rule:
    """A prefix of no bits, and a range of all ports, are the same as none."""
    return replace(
        rule,
        source=_prefix(rule.source),
        destination=_prefix(rule.destination),
        ports=None if rule.ports == (0, 65535) else rule.ports,
    )


def _prefix(network: IPv4Network | IPv6Network | None) -> IPv4Network | IPv6Network | None:
    return None if network is None or network.prefixlen == 0 else network


def describe(rule: Rule) -> str:
    """``tcp to 10.0.0.0/8 port 6379 -> afxdp``"""
    words = [str(rule.protocol) if rule.protocol else "tcp and udp"]
    if rule.source is not None:
        words.append(f"from {rule.source}")
    if rule.destination is not None:
        words.append(f"to {rule.destination}")
    if rule.ports is not None:
        low, high = rule.ports
        words.append(f"port {low}" if low == high else f"ports {low}-{high}")
    return f"{' '.join(words)} -> {rule.to}"
