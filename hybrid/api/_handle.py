"""The one place that holds a ``hy_shard *``.

Everything of the Python API calls the library through :meth:`Handle.call`, which
keeps three promises that the C side leaves to its caller:

- one thread at a time is inside a shard (cffi lets go of the interpreter lock
  during a call, so another thread could otherwise walk in);
- nothing is called on a shard that has been closed;
- a garbage collector may run on any thread, so finalizers never call the library:
  they leave what they held in ``orphans``, and the next call gives it back.

Memory that Python still looks at (a slice of a received buffer, say) is an
*export*. While there is one, the arena stays mapped: closing then ends every
connection at once, and the memory goes with the last export.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any

from hybrid._native import ffi, lib
from hybrid.api.errors import ShardBusyError, ShardClosedError, check

if TYPE_CHECKING:
    from hybrid._native import CData


class Handle:
    """Owns one open shard of the library."""

    def __init__(self, pointer: CData) -> None:
        self._pointer = pointer
        self._lock = RLock()
        self._ids = itertools.count()
        self.closing = False
        self.qds: set[int] = set()
        self.exports: set[int] = set()
        self.orphan_qds: deque[int] = deque()
        self.orphan_sgas: deque[CData] = deque()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(shard, *args)``, with the promises above."""
        if not self._lock.acquire(blocking=False):
            raise ShardBusyError()
        try:
            if self.closing:
                raise ShardClosedError()
            self._return_orphans()
            return function(self._pointer, *args)
        finally:
            self._lock.release()

    def check(self, action: str, function: Callable[..., int], *args: Any) -> int:
        """:meth:`call`, with a negative errno raised as the exception for it."""
        return check(action, self.call(function, *args))

    def _return_orphans(self) -> None:
        while self.orphan_sgas:
            lib.hy_sga_free(self._pointer, self.orphan_sgas.popleft())
        while self.orphan_qds:
            lib.hy_close(self._pointer, self.orphan_qds.popleft())

    def export(self) -> int:
        """Notes that Python looks at the arena's memory until :meth:`unexport` of the number returned."""
        number = next(self._ids)
        self.exports.add(number)
        return number

    def unexport(self, number: int) -> None:
        """The finalizer's side of :meth:`export`: any thread, any time."""
        self.exports.discard(number)
        if self.closing and not self.exports:
            self._finish()

    def close(self) -> None:
        """Ends everything; the memory stays mapped as long as there are exports. Once is enough."""
        if not self._lock.acquire(blocking=False):
            raise ShardBusyError()
        try:
            if self.closing:
                return
            self._return_orphans()
            if self.exports:
                # Tell the peers now; nobody will poll this shard again.
                for qd in sorted(self.qds):
                    lib.hy_abort(self._pointer, qd)
                lib.hy_poll(self._pointer)
            self.qds.clear()
            self.closing = True
        finally:
            self._lock.release()
        if not self.exports:
            self._finish()

    def _finish(self) -> None:
        """Closes the shard in the library. ``closing`` keeps every other thread out by now."""
        with self._lock:
            pointer, self._pointer = self._pointer, ffi.NULL
            self.orphan_sgas.clear()
            self.orphan_qds.clear()
            if pointer != ffi.NULL:
                lib.hy_shard_close(pointer)
