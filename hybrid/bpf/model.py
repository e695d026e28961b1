"""What is known of a steering, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hybrid.policy.rule import Rule


class XdpMode(StrEnum):
    """How an XDP program runs: in the driver, before a packet has a socket buffer, or generically after."""

    AUTO = "auto"
    NATIVE = "native"
    GENERIC = "generic"


# In the order of enum hy_xdp_mode.
XDP_MODES = (XdpMode.AUTO, XdpMode.NATIVE, XdpMode.GENERIC)


@dataclass(frozen=True, slots=True)
class Obtained:
    """What was asked for and what it came to. ``ifindex`` is 0 once the link is dead."""

    ifname: str
    ifindex: int
    netns: int  # inode number of the network namespace that it was attached in
    requested: XdpMode
    mode: XdpMode
    note: str  # why ``mode`` is not the preferred one; empty if it is
    queues: int  # receive queues when it was attached
    program_id: int
    link_id: int
    tag: str
    layout: tuple[int, int]  # major and minor version of the maps
    fragments: bool = False  # frames larger than a buffer are steered too (xdp.frags)


@dataclass(frozen=True, slots=True)
class Count:
    """Frames, and their bytes from the Ethernet header on."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RuleCount:
    """A rule in force, the frames that it has decided, and those of them that found no socket."""

    rule: Rule
    hit: Count
    no_socket: Count


@dataclass(frozen=True, slots=True)
class Counters:
    """Rules in the order tried, and every frame seen under exactly one reason."""

    generation: int
    rules: tuple[RuleCount, ...]
    reasons: dict[str, Count]

    def rule(self, name: str) -> RuleCount:
        """The rule of that name. ``KeyError``: it isn't in force."""
        for counted in self.rules:
            if counted.rule.name == name:
                return counted
        raise KeyError(name)

    def reason(self, name: str) -> Count:
        """The frames counted under that reason. ``KeyError``: there is no such reason."""
        return self.reasons[name]
