"""Rules to and from the loader's structures."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from hybrid._native import ffi, lib
from hybrid.bpf._call import string
from hybrid.errors import HybridError, UsageError
from hybrid.policy.rule import Fallback, Protocol, Rule, Target

if TYPE_CHECKING:
    from hybrid._native import CData

# enum hy_steer_verdict
_VERDICTS = {Target.AFXDP: 1, Target.KERNEL: 2, Target.DROP: 3, Target.DPDK: 4, Target.URING: 5}
_TARGETS = {number: target for target, number in _VERDICTS.items()}
_FALLBACKS = {Fallback.NONE: 0, Fallback.KERNEL: 2}  # enum hy_backend
_FALLBACK_NAMES = {number: fallback for fallback, number in _FALLBACKS.items()}
_PROTOCOLS = {None: 0, Protocol.TCP: 6, Protocol.UDP: 17}
_PROTOCOL_NAMES = {number: protocol for protocol, number in _PROTOCOLS.items()}


def to_c(rules: Sequence[Rule]) -> CData:
    """An array of ``hy_steer_rule``."""
    out = ffi.new("hy_steer_rule[]", max(len(rules), 1))
    for index, rule in enumerate(rules):
        _fill(out[index], rule)
    return out


def _fill(out: CData, rule: Rule) -> None:
    name = rule.name.encode()
    if not 0 < len(name) < lib.HY_STEER_NAME_BYTES or b"\0" in name:
        limit = lib.HY_STEER_NAME_BYTES - 1
        raise UsageError(f"{rule.name!r} cannot be a rule's name", f"use 1 to {limit} bytes of UTF-8")
    families = {network.version for network in (rule.source, rule.destination) if network is not None}
    if len(families) > 1:
        raise UsageError(
            f"rule {rule.name!r} has prefixes of both address families", "write one rule for each family"
        )
    out.name = name
    out.priority = rule.priority
    out.verdict = _VERDICTS[rule.to]
    out.fallback = _FALLBACKS[rule.fallback]
    out.protocol = _PROTOCOLS[rule.protocol]
    out.family = families.pop() if families else 0
    out.port_lo, out.port_hi = rule.ports or (0, 65535)
    if rule.source is not None:
        out.source_len = rule.source.prefixlen
        ffi.memmove(out.source, rule.source.network_address.packed, rule.source.max_prefixlen // 8)
    if rule.destination is not None:
        out.destination_len = rule.destination.prefixlen
        ffi.memmove(
            out.destination, rule.destination.network_address.packed, rule.destination.max_prefixlen // 8
        )


def from_c(rule: CData) -> Rule:
    """The rule that says the same. (A prefix of no bits and none at all are one thing to the kernel side.)"""
    try:
        return Rule(
            name=string(rule.name),
            priority=rule.priority,
            to=_TARGETS[rule.verdict],
            protocol=_PROTOCOL_NAMES[rule.protocol],
            source=_network(rule.source, rule.source_len, rule.family),
            destination=_network(rule.destination, rule.destination_len, rule.family),
            ports=None if (rule.port_lo, rule.port_hi) == (0, 65535) else (rule.port_lo, rule.port_hi),
            fallback=_FALLBACK_NAMES[rule.fallback],
        )
    except (KeyError, ValueError) as broken:
        raise HybridError(
            f"the kernel holds a steering rule that makes no sense: {broken}",
            "remove it with `hybrid clean`, then apply the policy again",
        ) from broken


def _network(address: CData, length: int, family: int) -> IPv4Network | IPv6Network | None:
    if length == 0:
        return None
    return ip_network((bytes(ffi.buffer(address, 4 if family == 4 else 16)), length))
