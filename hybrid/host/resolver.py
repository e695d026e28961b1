"""When to ask the kernel to resolve or confirm a neighbour.

Shards report a next hop that has no entry; whoever can send packets to a shard can
make it report many. So everything here is bounded: one request per neighbour and
second, a bucket over all of them, a memory of those that failed.

No I/O: the caller passes the time and sends what :meth:`Resolver.requests` returns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import TypeVar

from hybrid.host.kernel import NUD_FAILED, NUD_STALE, KernelNeighbour, Key

V = TypeVar("V")

RETRY_S = 1.0
FAILED_S = 3.0
RATE_PER_S = 64.0
BURST = 64.0
PENDING_MAX = 1024
IN_USE_MAX = 256


class Resolver:
    """Neighbours reported missing, those that failed, and those in use that want confirming."""

    def __init__(self) -> None:
        self._queue: OrderedDict[Key, float] = OrderedDict()  # and not before when
        self._asked: OrderedDict[Key, float] = OrderedDict()
        self._failed: OrderedDict[Key, float] = OrderedDict()
        self._in_use: OrderedDict[Key, None] = OrderedDict()
        self._tokens = BURST
        self._filled_at: float | None = None
        self.refused = 0
        """reports not acted on: failed a moment ago, or no room"""

    @property
    def in_use(self) -> Collection[Key]:
        """Neighbours that shards have asked for, most recent last."""
        return self._in_use.keys()

    def missing(self, key: Key, now: float) -> None:
        """A shard has a packet for a neighbour without an entry."""
        _touch(self._in_use, key, None, IN_USE_MAX)
        if now < self._failed.get(key, now):
            self.refused += 1
        elif now - self._asked.get(key, -RETRY_S) >= RETRY_S:
            self._want(key, now)

    def changed(self, neighbour: KernelNeighbour, gateways: Collection[Key], now: float) -> None:
        """The kernel reports a neighbour's state."""
        key = (neighbour.ifindex, neighbour.ip)
        if neighbour.state & NUD_FAILED:
            _touch(self._failed, key, now + FAILED_S, PENDING_MAX)
            self._asked.pop(key, None)
            self._in_use.pop(key, None)
        elif neighbour.usable:
            self._failed.pop(key, None)
        if neighbour.state & NUD_STALE and (key in self._in_use or key in gateways):
            # The kernel sends nothing there itself, so nothing else would ever confirm it.
            self._want(key, max(now, self._asked.get(key, now - RETRY_S) + RETRY_S))

    def _want(self, key: Key, at: float) -> None:
        if key in self._queue:
            return
        if len(self._queue) >= PENDING_MAX:
            self.refused += 1
            return
        self._queue[key] = at

    def requests(self, now: float) -> list[Key]:
        """What to ask the kernel for at this moment."""
        if self._filled_at is not None:
            self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE_PER_S)
        self._filled_at = now
        due = [key for key, at in self._queue.items() if at <= now][: int(self._tokens)]
        for key in due:
            del self._queue[key]
            _touch(self._asked, key, now, PENDING_MAX)
            self._tokens -= 1
        return due

    def next_deadline(self, now: float) -> float | None:
        """When :meth:`requests` has something again; ``None``: not before something happens."""
        if not self._queue:
            return None
        return max(min(self._queue.values()), now + max(0.0, (1 - self._tokens) / RATE_PER_S))


def _touch(memory: OrderedDict[Key, V], key: Key, value: V, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > limit:
        memory.popitem(last=False)
