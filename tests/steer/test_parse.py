"""Which frames the rules get to decide, and why the others are the kernel's."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from hybrid.bpf import Steering
from hybrid.policy.rule import Rule, Target

from .reference import DROP, PASS

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
SEGMENT, DATAGRAM = TCP(dport=6379) / Raw(b"x" * 32), UDP(dport=6379) / Raw(b"x" * 32)
HOP, DEST = (
    IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
    IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]),
)
LONG_DEST = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 250), PadN(optdata=b"\0" * 248)])
ROUTE = IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=0)


def auth(following: int) -> Packet:
    """24 bytes: six words, and the length field says two less (RFC 4302 section 2.2)."""
    return AH(nh=following, spi=1, seq=1, payloadlen=4, icv=b"\0" * 12)


# Everything that the rules decide is dropped here: the one action that nothing else leads to.
EVERYTHING = Rule("everything", 0, Target.DROP)

DECIDED: dict[str, Packet] = {
    "IPv4 TCP": V4 / SEGMENT,
    "IPv4 UDP": V4 / DATAGRAM,
    "IPv6 TCP": V6 / SEGMENT,
    "IPv6 UDP": V6 / DATAGRAM,
    "one 802.1Q tag": Dot1Q(vlan=7) / V4 / SEGMENT,
    "one 802.1ad tag": Dot1AD(vlan=7) / V4 / SEGMENT,
    "two tags, 802.1ad outside": Dot1AD(vlan=7) / Dot1Q(vlan=8) / V4 / SEGMENT,
    "two 802.1Q tags before IPv6": Dot1Q(vlan=7) / Dot1Q(vlan=8) / V6 / SEGMENT,
    "IPv4 with one word of options": IP(src="10.0.0.1", options=[IPOption_NOP()] * 4) / SEGMENT,
    "IPv4 with all 40 bytes of options": IP(options=[IPOption_RR(routers=["0.0.0.0"] * 9), IPOption_NOP()])
    / SEGMENT,
    "do not fragment": IP(flags="DF") / SEGMENT,
    "TCP with all 40 bytes of options": V4 / TCP(dport=1, options=[("NOP", None)] * 40),
    "TCP header alone": V4 / TCP(dport=1),
    "UDP header alone": V4 / UDP(dport=1),
    "hop-by-hop options": V6 / HOP / SEGMENT,
    "destination options": V6 / DEST / SEGMENT,
    "long destination options": V6 / LONG_DEST / SEGMENT,
    "a routing header that has been used up": V6 / ROUTE / SEGMENT,
    "a chain of every extension header": V6 / HOP / DEST / ROUTE / DEST / DATAGRAM,
    "eight extension headers": V6 / HOP / DEST / DEST / DEST / DEST / DEST / DEST / DEST / SEGMENT,
    "two tags, a chain and UDP": Dot1AD(vlan=7) / Dot1Q(vlan=8) / V6 / HOP / ROUTE / DATAGRAM,
}

THE_KERNELS: dict[str, tuple[str, Packet]] = {
    "ARP": ("not-ip", ARP(pdst="10.0.0.2")),
    "tagged ARP": ("not-ip", Dot1Q(vlan=7) / ARP(pdst="10.0.0.2")),
    "an unknown Ethernet type": ("not-ip", Raw(b"x" * 64)),
    "three tags": ("vlan-depth", Dot1AD(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / V4 / SEGMENT),
    "ping": ("icmp", V4 / ICMP()),
    "neighbour discovery": ("icmp", V6 / ICMPv6ND_NS(tgt="fd00::2")),
    "ICMPv6 behind hop-by-hop options (MLD)": ("icmp", V6 / HOP / ICMPv6ND_NS(tgt="fd00::2")),
    "GRE": ("protocol", IP(proto=47) / Raw(b"x" * 32)),
    "ESP": ("protocol", V6 / ESP(spi=1, seq=1, data=b"x" * 32)),
    "no next header": ("protocol", IPv6(nh=59) / Raw(b"x" * 32)),
    "IPv4 authentication header": ("protocol", V4 / auth(6) / SEGMENT),
    "IPv6 authentication header": ("protocol", V6 / auth(6) / SEGMENT),
    "authentication header behind another": ("protocol", V6 / HOP / auth(6) / SEGMENT),
    "RoCEv2 over IPv4": ("roce", V4 / UDP(dport=4791) / Raw(b"x" * 32)),
    "RoCEv2 over IPv6": ("roce", V6 / UDP(dport=4791) / Raw(b"x" * 32)),
    "first IPv4 fragment": ("fragment", IP(flags="MF") / SEGMENT),
    "later IPv4 fragment": ("fragment", IP(flags="MF", frag=8, proto=6) / Raw(b"x" * 32)),
    "last IPv4 fragment": ("fragment", IP(frag=8, proto=6) / Raw(b"x" * 32)),
    "fragment at the highest offset": ("fragment", IP(frag=8191, proto=17) / Raw(b"x" * 8)),
    "first IPv6 fragment": ("fragment", V6 / IPv6ExtHdrFragment(m=1) / SEGMENT),
    "later IPv6 fragment": ("fragment", V6 / IPv6ExtHdrFragment(offset=8, nh=6) / Raw(b"x" * 32)),
    "atomic IPv6 fragment": ("fragment", V6 / IPv6ExtHdrFragment() / SEGMENT),
    "fragment behind other headers": ("fragment", V6 / HOP / DEST / IPv6ExtHdrFragment() / SEGMENT),
    "a routing header with segments left": (
        "routing",
        V6 / IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=1) / SEGMENT,
    ),
    "nine extension headers": (
        "ext-depth",
        V6 / HOP / DEST / DEST / DEST / DEST / DEST / DEST / DEST / DEST / SEGMENT,
    ),
    "hop-by-hop options in second place": ("malformed", V6 / DEST / HOP / SEGMENT),
    "IP version 5 in an IPv4 frame": ("malformed", IP(version=5) / SEGMENT),
    "IPv4 header of 16 bytes": ("malformed", IP(ihl=4) / SEGMENT),
    "IPv4 header of none": ("malformed", IP(ihl=0) / SEGMENT),
    "IPv4 total length shorter than its header": ("malformed", IP(len=19) / SEGMENT),
    "IPv4 total length of zero": ("malformed", IP(len=0) / SEGMENT),
    "IPv4 header longer than the packet": ("malformed", IP(ihl=15, len=40) / SEGMENT),
    "IPv4 total length beyond the frame": ("truncated", IP(len=20 + 20 + 33) / SEGMENT),
    "IPv4 total length at its highest": ("truncated", IP(len=65535) / SEGMENT),
    "IPv4 that ends in the TCP header": ("malformed", IP(len=39) / SEGMENT),
    "IP version 4 in an IPv6 frame": ("malformed", IPv6(version=4) / SEGMENT),
    "IPv6 payload length beyond the frame": ("truncated", IPv6(plen=53) / SEGMENT),
    "IPv6 payload length of zero (a jumbogram's)": ("malformed", IPv6(plen=0) / SEGMENT),
    "IPv6 that ends in the TCP header": ("malformed", IPv6(plen=19) / SEGMENT),
    "extension header beyond the payload": ("malformed", V6 / IPv6ExtHdrDestOpt(len=255) / SEGMENT),
    "payload that ends in an extension header": ("malformed", IPv6(plen=7, nh=60) / Raw(b"\6" + b"\0" * 31)),
    "TCP data offset of 16 bytes": ("malformed", V4 / TCP(dataofs=4)),
    "TCP data offset of none": ("malformed", V6 / TCP(dataofs=0)),
    "TCP data offset beyond the segment": ("malformed", V4 / TCP(dataofs=15) / Raw(b"x" * 39)),
    "UDP length of 7": ("malformed", V4 / UDP(len=7) / Raw(b"x" * 32)),
    "UDP length of zero": ("malformed", V6 / UDP(len=0) / Raw(b"x" * 32)),
    "UDP length beyond the datagram": ("malformed", V4 / UDP(len=41) / Raw(b"x" * 32)),
}


def counted(steering: Steering, frame: bytes) -> tuple[int, str]:
    """The action, and the one reason that went up, by one packet of this length."""
    before = steering.counters().reasons
    action, _ = steering.test_run(frame)
    after = steering.counters().reasons
    changed = [name for name in after if after[name] != before[name]]
    assert len(changed) == 1, changed
    assert after[changed[0]].packets - before[changed[0]].packets == 1
    assert after[changed[0]].bytes - before[changed[0]].bytes == len(frame)
    return action, changed[0]


@pytest.fixture(autouse=True)
def drop_all(steering: Steering) -> None:
    if steering.rules() != [EVERYTHING]:
        steering.replace_rules([EVERYTHING])


@pytest.mark.parametrize("name", DECIDED)
def test_the_rules_decide(steering: Steering, name: str) -> None:
    assert counted(steering, bytes(ETHER / DECIDED[name])) == (DROP, "rule-drop")


@pytest.mark.parametrize("name", THE_KERNELS)
def test_the_kernel_gets(steering: Steering, name: str) -> None:
    reason, packet = THE_KERNELS[name]
    assert counted(steering, bytes(ETHER / packet)) == (PASS, reason)


def test_bytes_behind_the_ip_packet_do_not_matter(steering: Steering) -> None:
    for packet in (V4 / SEGMENT, V6 / DATAGRAM):
        assert counted(steering, bytes(ETHER / packet) + b"\xff" * 64) == (DROP, "rule-drop")


@pytest.mark.parametrize("name", DECIDED)
def test_a_frame_cut_short_anywhere_passes(steering: Steering, name: str) -> None:
    whole = bytes(ETHER / DECIDED[name])
    for length in range(14, len(whole)):  # 14: what BPF_PROG_TEST_RUN takes at least
        action, reason = counted(steering, whole[:length])
        assert (action, reason) == (PASS, "truncated"), f"{length} of {len(whole)} bytes"


def test_before_any_rules_everything_passes() -> None:
    with Steering.load() as fresh:
        assert counted(fresh, bytes(ETHER / V4 / SEGMENT)) == (PASS, "no-match")
        assert fresh.counters().generation == 1
