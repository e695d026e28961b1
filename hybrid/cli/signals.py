"""SIGTERM ends a command the way Ctrl-C does: as an exception, so that context managers unwind."""

from __future__ import annotations

import signal
import sys
from types import FrameType

__all__ = ["Interruption"]


class Interruption:
    """Turns SIGINT and SIGTERM into one KeyboardInterrupt, and remembers which it was.

    The first signal raises. While what it interrupted is being put in order, a second one is only
    answered, so that an impatient Ctrl-C doesn't leave the host half restored; a third raises again.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._count = 0

    def install(self) -> None:
        """Main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells count; 130 where none was seen (raised by hand)."""
        return 128 + (self.signal or signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 2:
            sys.stderr.write("hybrid: putting the host in order; once more stops at once\n")
            return
        self.signal = signal.Signals(number)
        raise KeyboardInterrupt
