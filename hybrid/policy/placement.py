"""Which of a program's transports a local port is placed on: rules of all interfaces, as ranges of ports.

A program binds a port, not a port on an interface, so the rules of every interface are laid over each
other: a port that one interface bypasses and another leaves to the kernel is bypassed with the kernel as
its fallback, which is to say served on both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

from hybrid.policy.rule import Fallback, Protocol, Rule

__all__ = ["Backend", "Placement", "placements"]

_PORT_MAX = 65535


class Backend(IntEnum):
    """Transports (enum hy_backend). ``NONE`` in a fallback: there is none."""

    NONE = 0
    BYPASS = 1
    KERNEL = 2


@dataclass(frozen=True, slots=True)
class Placement:
    """One row of the table. Ports are a range with both ends."""

    protocol: Protocol
    ports: tuple[int, int]
    to: Backend
    fallback: Backend = Backend.NONE

    @property
    def kernel(self) -> bool:
        """Whether the port is (also) served by the kernel's sockets."""
        return Backend.KERNEL in (self.to, self.fallback)


def placements(interfaces: Sequence[Sequence[Rule]]) -> tuple[Placement, ...]:
    """Rows that do not overlap, by protocol and port.

    Where any row has the kernel's sockets, the ports that no rule names have them too: everything that a
    policy does not name stays with the kernel. Otherwise they have no row, and a program without the
    kernel's sockets takes what it has.
    """
    rows = [row for protocol in Protocol for row in _joined(_pieces(protocol, interfaces))]
    if not any(row.kernel for row in rows):
        return tuple(rows)
    return tuple(row for protocol in Protocol for row in _filled(protocol, rows))


def without_bypass(rows: Sequence[Placement]) -> tuple[Placement, ...]:
    """The rows of a program that has no frame device: every port is where its fallback says."""
    return tuple(
        replace(row, to=Backend.KERNEL, fallback=Backend.NONE) if row.fallback is Backend.KERNEL else row
        for row in rows
    )


def placed(rows: Sequence[Placement], protocol: Protocol, port: int) -> Placement | None:
    """The row that decides of a port."""
    return next((r for r in rows if r.protocol is protocol and r.ports[0] <= port <= r.ports[1]), None)


def _pieces(protocol: Protocol, interfaces: Sequence[Sequence[Rule]]) -> Iterator[Placement]:
    relevant = [[r for r in rules if r.protocol in (None, protocol)] for rules in interfaces]
    edges = {1, _PORT_MAX + 1}
    for rules in relevant:
        for rule in rules:
            low, high = rule.ports or (1, _PORT_MAX)
            edges |= {low, high + 1}
    cuts = sorted(edges)
    for low, following in pairwise(cuts):
        found = [first for rules in relevant if (first := _decides(rules, low)) is not None]
        bypass = [rule for rule in found if rule.to.bypasses]
        kernel = any(rule.to.passes or rule.fallback is Fallback.KERNEL for rule in found)
        ports = (low, following - 1)
        if bypass:
            yield Placement(protocol, ports, Backend.BYPASS, Backend.KERNEL if kernel else Backend.NONE)
        elif kernel:
            yield Placement(protocol, ports, Backend.KERNEL)


def _decides(rules: Sequence[Rule], port: int) -> Rule | None:
    """The first rule that places what is bound there; one that passes or drops only some frames does not."""
    for rule in rules:
        low, high = rule.ports or (1, _PORT_MAX)
        if low <= port <= high and (rule.to.bypasses or (rule.source is None and rule.destination is None)):
            return rule
    return None


def _joined(pieces: Iterator[Placement]) -> Iterator[Placement]:
    last: Placement | None = None
    for piece in pieces:
        if (
            last is not None
            and replace(last, ports=piece.ports) == piece
            and last.ports[1] + 1 == piece.ports[0]
        ):
            last = replace(last, ports=(last.ports[0], piece.ports[1]))
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _filled(protocol: Protocol, rows: Sequence[Placement]) -> Iterator[Placement]:
    """The rows of a protocol with the gaps between them."""
    following = 1
    for row in (row for row in rows if row.protocol is protocol):
        if following < row.ports[0]:
            yield Placement(protocol, (following, row.ports[0] - 1), Backend.KERNEL)
        yield row
        following = row.ports[1] + 1
    if following <= _PORT_MAX:
        yield Placement(protocol, (following, _PORT_MAX), Backend.KERNEL)
