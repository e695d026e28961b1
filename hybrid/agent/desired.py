"""What a policy asks of an interface, in the form that can be compared with what the kernel holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from hybrid.policy import CompiledInterface, Fallback, Rule, Via

PortRange = tuple[int, int]


def comparable(interface: CompiledInterface) -> CompiledInterface:
    """The same, with its rules as the kernel side says them back."""
    return replace(interface, rules=in_order(interface.rules))


def in_order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """As they are tried, each in its plainest form: a prefix of no bits is none, all ports are none."""
    return tuple(
        replace(
            rule,
            source=_prefix(rule.source),
            destination=_prefix(rule.destination),
            ports=None if rule.ports == (0, 65535) else rule.ports,
        )
        for rule in sorted(rules, key=lambda rule: -rule.priority)
    )


def _prefix(network: IPv4Network | IPv6Network | None) -> IPv4Network | IPv6Network | None:
    return None if network is None or network.prefixlen == 0 else network


def outgoing(interface: CompiledInterface) -> tuple[PortRange, ...]:
    """Ranges of local ports whose frames are steered: a program's outgoing connections use them."""
    found = {rule.ports for rule in interface.rules if rule.to.bypasses and rule.ports is not None}
    return tuple(sorted((low, high) for low, high in found if low < high))


def has_port(interface: CompiledInterface) -> bool:
    """Whether a DPDK port is reached by a veth of ours."""
    return interface.steered and interface.dpdk is not None and interface.dpdk.via is Via.DEVMAP


def can_do_without(interface: CompiledInterface) -> bool:
    """Whether programs can serve each port that is bypassed here without the bypass, and that is allowed."""
    bypassed = [rule for rule in interface.rules if rule.to.bypasses]
    covered = all(rule.fallback is Fallback.KERNEL for rule in bypassed)
    return bool(bypassed) and covered and not interface.strict
