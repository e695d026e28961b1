"""Subjects that take turns, so that whatever the machine does meanwhile happens to all of them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from hybrid.errors import HybridError


class Subject(Protocol):
    """Something that can be measured for one round at a time and rests in between."""

    @property
    def name(self) -> str:
        """As in the table."""
        ...

    def round(self) -> list[float]:
        """One round's samples."""
        ...


def take_turns(subjects: Sequence[Subject], rounds: int) -> dict[str, list[float]]:
    """Every subject's samples after ``rounds`` rounds.

    Within a round each subject has one turn. Every other round goes backwards, so that neither
    is always the one that runs first.
    """
    samples: dict[str, list[float]] = {s.name: [] for s in subjects}
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            samples[subject.name].extend(subject.round())
    return samples


class Rests:
    """Stops a process that polls for ever, but for its turns: it would take its core in those of others.

    A context manager for a turn. None: a process that sleeps by itself.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        self._signal(signal.SIGCONT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Until its first turn."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):  # its client says that it has ended
                os.kill(self._pid, number)


class Program:
    """A long-lived benchmark program and the conversation with it (``bench.h``).

    A context manager: the program is ended and waited for on the way out, whatever happened.
    ``popen`` starts it somewhere else: in a lab's namespace, say. ``announced`` is what it said
    when it was ready: a JSON object, or with ``ready`` a line that begins so (and nothing in ``announced``).
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
        timeout_s: float = 60.0,
        ready: str = "{",
    ) -> None:
        self._command = [str(part) for part in command]
        self._popen = popen
        self._timeout_s = timeout_s
        self._ready = ready.encode()
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self.announced: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Of the running program."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            # A session of its own: Ctrl-C reaches us alone, and we end it in order.
            self._process = self._popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HybridError(
                f"{self._command[0]} cannot be started: {error.strerror}",
                remedy="install the package again: pip install .",
            ) from error
        try:
            self.announced = self._answer(self._ready)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        self._process = None
        process.terminate()
        process.send_signal(signal.SIGCONT)  # it may have been stopped between its turns
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it no longer reads
                    stream.close()

    def round(self, count: int, warmup: int) -> dict[str, Any]:
        """One turn of ``count`` samples after ``warmup`` that are thrown away; the program's answer."""
        process = self._process
        assert process is not None and process.stdin is not None, "used outside its context"
        try:
            process.stdin.write(b"%d %d\n" % (count, warmup))
            process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return self._answer()

    def _answer(self, begins: bytes = b"{") -> dict[str, Any]:
        """The next line of its output that begins so, as an object if it is one; other lines are its talk."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            line = self._line(deadline)
            if line.startswith(begins):
                answer: dict[str, Any] = json.loads(line) if begins == b"{" else {}
                return answer

    def _line(self, deadline: float) -> bytes:
        # Not readline(): what it has buffered, select() does not see.
        assert self._process is not None and self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise HybridError(
                    f"{Path(self._command[0]).name} gave no answer for {self._timeout_s:.0f} s",
                    remedy="is another process using its core? try again, or choose another core",
                )
            piece = os.read(fd, 1 << 20)
            if not piece:
                raise self._failure()
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _failure(self) -> HybridError:
        assert self._process is not None and self._process.stderr is not None
        code = self._process.wait()
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        detail = said[-1] if said else f"exit code {code}"
        return HybridError(f"a benchmark program ended early: {detail}")
