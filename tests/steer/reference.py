"""What the steering program is meant to do, in plain Python: for the differential test.

Written from the documents (IEEE 802.1Q, RFC 791, 8200, 4302, 9293, 768), not from the program.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from hybrid.policy.rule import Protocol, Rule, Target

ABORTED, DROP, PASS, TX, REDIRECT = range(5)

VLAN_TYPES = (0x8100, 0x88A8)
EXTENSIONS = {0: "hop-by-hop", 43: "routing", 60: "destination"}


class Verdict(Exception):  # noqa: N818 - a way out of nested parsing
    """Parsing has decided: the kernel's, for this reason."""


@dataclass(frozen=True)
class Flow:
    protocol: Protocol
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    port: int


def number(data: bytes, offset: int, size: int = 2) -> int:
    return int.from_bytes(data[offset : offset + size], "big")


def need(data: bytes, size: int) -> None:
    if len(data) < size:
        raise Verdict("truncated")


def consistent(truth: bool) -> None:
    if not truth:
        raise Verdict("malformed")


def parse(frame: bytes) -> Flow:
    need(frame, 14)
    kind, rest = number(frame, 12), frame[14:]
    tags = 0
    while kind in VLAN_TYPES:
        if tags == 2:
            raise Verdict("vlan-depth")
        need(rest, 4)
        kind, rest = number(rest, 2), rest[4:]
        tags += 1
    if kind == 0x0800:
        return parse_v4(rest)
    if kind == 0x86DD:
        return parse_v6(rest)
    raise Verdict("not-ip")


def parse_v4(packet: bytes) -> Flow:
    need(packet, 20)
    header, total = (packet[0] & 15) * 4, number(packet, 2)
    consistent(packet[0] >> 4 == 4 and header >= 20 and total >= header)
    need(packet, total)
    more, offset = number(packet, 6) & 0x2000, number(packet, 6) & 0x1FFF
    if more or offset:
        raise Verdict("fragment")
    source, destination = ip_address(packet[12:16]), ip_address(packet[16:20])
    return parse_transport(packet[9], source, destination, packet[header:total])


def parse_v6(packet: bytes) -> Flow:
    need(packet, 40)
    consistent(packet[0] >> 4 == 6)
    length = number(packet, 4)
    need(packet, 40 + length)
    source, destination = ip_address(packet[8:24]), ip_address(packet[24:40])
    kind, rest = packet[6], packet[40 : 40 + length]
    seen = 0
    while kind in EXTENSIONS:
        if seen == 8:
            raise Verdict("ext-depth")
        consistent(not (kind == 0 and seen > 0))
        consistent(len(rest) >= 8)
        if kind == 43 and rest[3] > 0:
            raise Verdict("routing")
        size = (rest[1] + 1) * 8
        consistent(len(rest) >= size)
        kind, rest = rest[0], rest[size:]
        seen += 1
    if kind == 44:
        raise Verdict("fragment")
    return parse_transport(kind, source, destination, rest)


def parse_transport(
    kind: int, source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, segment: bytes
) -> Flow:
    if kind == 6:
        consistent(len(segment) >= 20)
        header = (segment[12] >> 4) * 4
        consistent(20 <= header <= len(segment))
        return Flow(Protocol.TCP, source, destination, number(segment, 2))
    if kind == 17:
        consistent(len(segment) >= 8 and 8 <= number(segment, 4) <= len(segment))
        if number(segment, 2) == 4791:
            raise Verdict("roce")
        return Flow(Protocol.UDP, source, destination, number(segment, 2))
    raise Verdict("icmp" if kind in (1, 58) else "protocol")


def matches(rule: Rule, flow: Flow) -> bool:
    if rule.protocol is not None and rule.protocol != flow.protocol:
        return False
    if rule.ports is not None and not rule.ports[0] <= flow.port <= rule.ports[1]:
        return False
    for prefix, address in ((rule.source, flow.source), (rule.destination, flow.destination)):
        if prefix is not None and (prefix.version != address.version or address not in prefix):
            return False
    return True


def judge(frame: bytes, rules: list[Rule], sockets: bool = False) -> tuple[int, str, str | None]:
    """Action, reason, and the name of the rule that decided."""
    try:
        flow = parse(frame)
    except Verdict as verdict:
        return PASS, str(verdict), None
    for rule in sorted(rules, key=lambda r: -r.priority):
        if matches(rule, flow):
            if rule.to is Target.DROP:
                return DROP, "rule-drop", rule.name
            if rule.to in (Target.KERNEL, Target.URING):
                return PASS, "rule-kernel", rule.name
            if rule.to is Target.DPDK:
                return PASS, "no-port", rule.name
            return (REDIRECT, "redirected", rule.name) if sockets else (PASS, "no-socket", rule.name)
    return PASS, "no-match", None
