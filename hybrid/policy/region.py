"""The set of frames that a match describes, as ranges: what contains what, and what meets what."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from hybrid.policy.model import MatchModel
from hybrid.policy.rule import Protocol

__all__ = ["Region"]

_Range = tuple[int, int]


def _addresses(network: IPv4Network | IPv6Network | None) -> _Range | None:
    if network is None:
        return None
    return int(network.network_address), int(network.broadcast_address)


def _contains(outer: _Range | None, inner: _Range | None) -> bool:
    """None is everything."""
    return outer is None or (inner is not None and outer[0] <= inner[0] and inner[1] <= outer[1])


def _meets(one: _Range | None, other: _Range | None) -> bool:
    return one is None or other is None or (one[0] <= other[1] and other[0] <= one[1])


@dataclass(frozen=True, slots=True)
class Region:
    """``None`` stands for any value; ``family`` is 4 or 6 where a prefix says which."""

    protocol: Protocol | None
    family: int | None
    source: _Range | None
    destination: _Range | None
    ports: _Range | None

    @staticmethod
    def of(match: MatchModel) -> Region:
        """The frames that a match takes."""
        prefix = match.source or match.destination
        return Region(
            protocol=match.protocol,
            family=prefix.version if prefix is not None else None,
            source=_addresses(match.source),
            destination=_addresses(match.destination),
            ports=match.destination_port,
        )

    def at_port(self, protocol: Protocol, port: int) -> Region:
        """The part of it that goes to one port; only where ``meets_port`` says that there is one."""
        return Region(protocol, self.family, self.source, self.destination, (port, port))

    def meets_port(self, protocol: Protocol, port: int) -> bool:
        """True if any frame to that port is in it."""
        return self.protocol in (None, protocol) and _meets(self.ports, (port, port))

    def contains(self, inner: Region) -> bool:
        """True if every frame of ``inner`` is in it."""
        return (
            self.protocol in (None, inner.protocol)
            and self.family in (None, inner.family)
            and _contains(self.ports, inner.ports)
            and _contains(self.source, inner.source)
            and _contains(self.destination, inner.destination)
        )

    def meets(self, other: Region) -> bool:
        """True if some frame is in both."""
        return (
            (self.protocol is None or other.protocol is None or self.protocol == other.protocol)
            and (self.family is None or other.family is None or self.family == other.family)
            and _meets(self.ports, other.ports)
            and _meets(self.source, other.source)
            and _meets(self.destination, other.destination)
        )
