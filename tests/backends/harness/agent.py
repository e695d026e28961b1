"""An end that is a backend of ours: a shard of an agent process, spoken to in lines (agent/orders.c)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hybrid.lab import Side
from tests.backends.harness.ends import WITHIN_S, Outcome, Pending, Sock, name

__all__ = ["AGENT", "AgentEnd", "AgentSock", "Spec", "launch"]

BUILD = Path(os.environ.get("HYBRID_BUILD", Path(__file__).resolve().parents[3] / "build"))
AGENT = BUILD / "tests" / "backends" / "backend-agent"
_KNOWN = {"id", "status", "bytes", "total", "crc", "ended", "peer"}


@dataclass
class Spec:
    """What one shard of an agent is started with."""

    name: str
    addresses: dict[int, str]
    arguments: list[str]
    fds: list[int] = field(default_factory=list)  # handed to the process under the same numbers
    ready: Callable[[], None] = lambda: None  # called when its devices are open


class AgentSock(Sock):
    """A queue descriptor of the agent's."""

    def __init__(self, end: AgentEnd, number: int) -> None:
        self.end = end
        self.number = number

    def _now(self, word: str, *arguments: object, expected: int = 0) -> Outcome:
        return self.end.order(word, self.number, *arguments).result(expected)

    def _later(self, word: str, *arguments: object) -> Pending:
        return self.end.order(word, self.number, *arguments)

    def bind(self, address: str, expected: int = 0) -> None:
        self._now("bind", address, expected=expected)

    def listen(self, backlog: int = 128, expected: int = 0) -> None:
        self._now("listen", backlog, expected=expected)

    def accept(self) -> tuple[AgentSock, Pending]:
        fresh = self.end.sock()
        return fresh, self._later("accept", fresh.number)

    def connect(self, address: str) -> Pending:
        return self._later("connect", address)

    def push(self, count: int, piece: int = 0) -> Pending:
        return self._later("push", count, piece)

    def pop(self, count: int = 0, *, hold: bool = False) -> Pending:
        return self._later("pop", count, "hold" if hold else "")

    def echo(self) -> Pending:
        return self._later("echo")

    def send(self, count: int, to: str = "") -> Pending:
        return self._later("sendto", count, to)

    def receive(self) -> Pending:
        return self._later("receive")

    def reflect(self) -> Pending:
        return self._later("reflect")

    def drain(self) -> Pending:
        """Done when at most half of what may be queued is."""
        return self._later("drain")

    def fill(self) -> Outcome:
        """Pushes until it is refused: how much that was, and how it was refused."""
        return self._later("fill").outcome()

    def cancel(self, pending: Pending, expected: int = 0) -> None:
        self._now("cancel", pending.number, expected=expected)

    def order_cancel(self, pending: Pending) -> None:
        """Where it may be done already."""
        self._later("cancel", pending.number).result(0, errno.ENOENT)

    def shutdown(self, expected: int = 0) -> None:
        self._now("shutdown", expected=expected)

    def close(self, expected: int = 0) -> None:
        self._now("close", expected=expected)

    def abort(self, expected: int = 0) -> None:
        self._now("abort", expected=expected)

    def local(self) -> str:
        return str(self._now("local").more["address"])

    def peer(self) -> str:
        return str(self._now("peer").more["address"])


class AgentEnd:
    """One shard of a running agent."""

    def __init__(self, spec: Spec, process: subprocess.Popen[Any], orders: IO[str], answers: IO[str]) -> None:
        self.name = spec.name
        self.addresses = spec.addresses
        self.process = process
        self.siblings: list[AgentEnd] = []  # the shards of the same process, this one among them
        self.surprises: list[str] = []  # events of no operation: there must be none
        self.obtained: dict[str, Any] = {}
        self._orders = orders
        self._answers = answers
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Outcome]] = {0: Future()}
        self._hello = self._waiting[0]
        self._order_count = self._sock_count = 0
        self._open: list[AgentSock] = []
        self._ended = ""
        self._reader = threading.Thread(target=self._read, name=f"reads {spec.name}", daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def alive(self) -> bool:
        return not self._ended and self.process.poll() is None

    def _read(self) -> None:
        for line in self._answers:
            document = json.loads(line)
            known = {key: value for key, value in document.items() if key in _KNOWN and key != "id"}
            more = {key: value for key, value in document.items() if key not in _KNOWN}
            with self._lock:
                future = self._waiting.pop(document["id"], None)
            if future is None:
                self.surprises.append(line.strip())
            else:
                future.set_result(Outcome(**known, more=more))
        with self._lock:
            self._ended = "the agent has ended"
            left, self._waiting = self._waiting, {}
        for future in left.values():
            future.set_exception(AssertionError(f"{self.name}: {self._ended}"))

    def wait_ready(self) -> None:
        """Holds that it has opened its devices."""
        hello = Pending(self._hello, f"{self.name}: its start").outcome(60.0)
        detail = hello.more.get("detail") or hello.more.get("obtained")
        assert hello.status == 0, f"{self.name} could not start: {name(hello.status)} ({detail})"
        self.obtained = dict(hello.more["obtained"])

    def order(self, *words: object) -> Pending:
        """Sends one order."""
        future: Future[Outcome] = Future()
        with self._lock:
            assert not self._ended, f"{self.name}: {self._ended}"
            self._order_count += 1
            number = self._order_count
            self._waiting[number] = future
            self._orders.write(" ".join(map(str, (number, *words))) + "\n")
            self._orders.flush()
        return Pending(future, f"{self.name}: {' '.join(map(str, words))}", number)

    def sock(self) -> AgentSock:
        """A number for a socket."""
        self._sock_count += 1
        self._open.append(AgentSock(self, self._sock_count))
        return self._open[-1]

    def _opened(self, kind: str, *rest: object) -> AgentSock:
        made = self.sock()
        self.order("open", made.number, kind, *rest).result()
        return made

    def stream(self, backend: str = "") -> AgentSock:
        """``backend``: ``kernel`` or ``bypass``, to insist."""
        return self._opened("stream", backend)

    def datagram(self) -> AgentSock:
        return self._opened("dgram")

    @property
    def sleeps(self) -> bool:
        """Whether a wait without work gives the processor away; a port without an interrupt can only be polled."""
        return all(device.get("interrupt", 1) for device in self.obtained.values())

    def stats(self) -> dict[str, int]:
        """Every counter."""
        return self.order("stats").result().more

    def grab(self) -> int:
        """Takes every frame that an application may have; how many that was."""
        return int(self.order("grab").outcome().more["count"])

    def release(self) -> None:
        """Gives back what :meth:`grab` took and what pops held."""
        self.order("release").result()

    def nap(self, most_ms: int) -> Pending:
        """Looks at no orders until something happens: ``events`` (0: nothing did) and the ``ns`` it took.

        When this returns it has begun: what happens from now on ends it.
        """
        future: Future[Outcome] = Future()
        with self._lock:
            self._order_count += 1
            number = self._order_count
            self._waiting[number] = future
        self.order("nap", most_ms, number).result()
        return Pending(future, f"{self.name}: nap", number)

    def tidy(self) -> None:
        if not self.alive:
            return
        closing = [self.order("abort", sock.number) for sock in self._open]
        closing.append(self.order("release"))
        for pending in closing:
            pending.outcome()
        self._open.clear()
        surprises, self.surprises = self.surprises, []
        assert surprises == []

    def stop(self) -> None:
        code = self.let_go()
        assert code == 0, f"{self.name}: the agent ended with {code}"

    def let_go(self) -> int:
        """Ends the agent by the end of its orders; its exit code, or that of the signal it took."""
        for end in self.siblings:  # it ends when all of its shards have been told
            with contextlib.suppress(BrokenPipeError):
                end._orders.close()
        try:
            return self.process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._reader.join(WITHIN_S)
            self._answers.close()


def launch(specs: Sequence[Spec], side: Side | None, log: IO[bytes], cpu: int = -1) -> list[AgentEnd]:
    """Starts an agent with one shard for each spec, inside the namespace of a side."""
    arguments: list[str] = [str(AGENT)]
    inherited: list[int] = []
    pipes: list[tuple[IO[str], IO[str]]] = []
    for number, spec in enumerate(specs):
        orders, answers = os.pipe(), os.pipe()
        inherited += [orders[0], answers[1]]
        pipes.append((os.fdopen(orders[1], "w"), os.fdopen(answers[0])))
        arguments += ["--and"] if number else []
        arguments += ["--io", f"{orders[0]},{answers[1]}", *spec.arguments]
        arguments += ["--pin", str((cpu + number) % (os.cpu_count() or 1))] if cpu >= 0 else []
    start = side.popen if side else _popen
    fds = [fd for spec in specs for fd in spec.fds]
    process = start(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[*inherited, *fds],
    )
    for fd in inherited:
        os.close(fd)
    ends = [AgentEnd(spec, process, *pipe) for spec, pipe in zip(specs, pipes, strict=True)]
    for end in ends:
        end.siblings = ends
    try:
        for end in ends:
            end.wait_ready()
        for spec in specs:
            spec.ready()
    except BaseException:
        for end in ends:
            end.let_go()
        raise
    return ends


def _popen(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(command, start_new_session=True, **options)
