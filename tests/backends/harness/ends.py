"""An end of a conversation: what tests speak to, whether a backend of ours or the kernel is behind it.

An :class:`End` opens :class:`Sock` objects. What completes later is a :class:`Pending`, whose
:meth:`~Pending.result` waits for it, bounded, and holds that it ended with the status that was expected.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["WITHIN_S", "End", "Outcome", "Pending", "Sock", "at", "ports"]

WITHIN_S = 30.0

# Ports of servers, never the same one twice soon: what an earlier test left in TIME_WAIT is in nobody's way.
ports: Iterator[int] = itertools.cycle(range(7000, 8000))


def at(address: str, port: int) -> str:
    """As hy_addr_parse and people write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True)
class Outcome:
    """How an operation ended. ``ended``: the peer had no more.

    ``total`` and ``crc`` are of all that the socket has moved in this direction since it was opened.
    """

    status: int = 0
    bytes: int = 0
    total: int = 0
    crc: int = 0
    ended: bool = False
    peer: str = ""
    more: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def moved(self) -> tuple[int, int]:
        """What the two sides of a transfer have in common."""
        return self.total, self.crc


class Pending:
    """An operation under way."""

    def __init__(self, future: Future[Outcome], what: str, number: int = 0) -> None:
        self._future = future
        self._what = what
        self.number = number  # by which it can be cancelled

    @property
    def done(self) -> bool:
        return self._future.done()

    def outcome(self, within_s: float = WITHIN_S) -> Outcome:
        """How it ended, whatever that was."""
        try:
            return self._future.result(within_s)
        except TimeoutError:
            raise AssertionError(f"{self._what} did not end within {within_s:.0f} s") from None

    def result(self, *expected: int, within_s: float = WITHIN_S) -> Outcome:
        """How it ended, which must be well, or with one of the errnos expected."""
        got = self.outcome(within_s)
        wanted = {-number for number in expected} or {0}
        assert got.status in wanted, f"{self._what} ended with {name(got.status)}, not {names(wanted)}"
        return got


class Sock(Protocol):
    """A socket of one end. What has no :class:`Pending` is done when the call returns."""

    number: int

    def bind(self, address: str, expected: int = 0) -> None: ...
    def listen(self, backlog: int = 128, expected: int = 0) -> None: ...
    def accept(self) -> tuple[Sock, Pending]:
        """The socket that there will be once the operation is done."""
        ...

    def connect(self, address: str) -> Pending: ...
    def push(self, count: int, piece: int = 0) -> Pending:
        """So many bytes of a pattern, in pieces of so many; our ends: done when they are acknowledged."""
        ...

    def pop(self, count: int = 0, *, hold: bool = False) -> Pending:
        """Until as many bytes have come, or (0) until the peer has ended."""
        ...

    def echo(self) -> Pending:
        """Gives back what comes until the peer has ended, and ends."""
        ...

    def send(self, count: int, to: str = "") -> Pending:
        """One datagram."""
        ...

    def receive(self) -> Pending:
        """One datagram; ``peer`` is where it came from."""
        ...

    def reflect(self) -> Pending:
        """Sends every datagram back to where it came from, for as long as the socket is open."""
        ...

    def shutdown(self, expected: int = 0) -> None: ...
    def close(self, expected: int = 0) -> None: ...
    def abort(self, expected: int = 0) -> None: ...
    def local(self) -> str: ...
    def peer(self) -> str: ...


class End(Protocol):
    """One side of a wire."""

    name: str
    addresses: dict[int, str]

    def stream(self) -> Sock: ...
    def datagram(self) -> Sock: ...
    def tidy(self) -> None:
        """Resets whatever a test has left open."""
        ...

    def stop(self) -> None: ...
    @property
    def alive(self) -> bool: ...


def name(status: int) -> str:
    return "success" if status == 0 else errno.errorcode.get(-status, os.strerror(-status))


def names(statuses: set[int]) -> str:
    return " or ".join(sorted(map(name, statuses)))
