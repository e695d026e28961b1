"""Two ends on one wire: started, joined, kept clean between tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.backends.harness.agent import AgentEnd, AgentSock, Spec, launch
from tests.backends.harness.ends import End, Sock, at, ports
from tests.backends.harness.kernel import KernelEnd
from tests.backends.harness.rows import ROOMY, Config, Pair, Row
from tests.backends.harness.wires import Wire, lay, name_of_wire

__all__ = ["Meet", "Meeting", "round_trips"]

Meet = Callable[..., tuple[AgentSock, Sock]]


def round_trips(ours: Sock, theirs: Sock, count: int = 1) -> None:
    """A byte there and a byte back, so often: what was sent on the wire before has arrived."""
    for _ in range(count):
        for here, there in ((ours, theirs), (theirs, ours)):
            taken = there.pop(1)
            here.push(1)  # is acknowledged by what comes back, or a little later
            taken.result()


class Meeting:
    """``us`` is the backend under test, ``them`` its peer."""

    us: AgentEnd
    them: End

    def __init__(self, pair: Pair, number: int, folder: Path) -> None:
        self.pair = pair
        self.folder = folder
        self._name = name_of_wire(number)
        self._wire = ExitStack()
        self._running = ExitStack()
        self._config: Config | None = None

    def __enter__(self) -> Self:
        self.places = self._wire.enter_context(lay(self.pair.wire, self._name, self.folder))
        for row, place in zip((self.pair.us, self.pair.them), self.places, strict=True):
            row.claim(place)
        self._log = self._wire.enter_context((self.folder / "log").open("ab"))
        return self

    def __exit__(self, *_: object) -> None:
        with self._wire:
            self.stop()

    @property
    def row(self) -> Row:
        return self.pair.us

    def start(self, config: Config) -> None:
        """Both ends with these limits; nothing where they run with them already."""
        if self._config is config and self.us.alive and self.them.alive:
            return
        self.stop()
        try:
            self._start(config)
        except BaseException:
            self._running.close()
            raise
        self._config = config

    def _start(self, config: Config) -> None:
        """Who makes the interface goes first: the kernel's end of a TAP is there when its other end is."""
        rows = (self.pair.us, self.pair.them)
        ends: dict[int, End] = {}
        if self.pair.us.one_process:
            specs = [self._spec(number, limits) for number, limits in enumerate((config, ROOMY))]
            ends.update(enumerate(launch(specs, self.places[0].side, self._log)))
        for number in sorted((0, 1), key=lambda number: rows[number].wire is not self.pair.wire):
            if number not in ends:
                ends[number] = self._one(number, ROOMY if number else config)  # only ours run out
        self.us, self.them = ends[0], ends[1]  # type: ignore[assignment]
        for end in reversed(ends.values()):
            self._running.callback(end.stop)

    def _spec(self, number: int, config: Config) -> Spec:
        row = (self.pair.us, self.pair.them)[number]
        spec = row.spec(self.places[number], self._running)
        frames = {"frames": max(int(str(config["frames"])), row.frames_least)}
        limits = {**config, **frames}.items()
        spec.arguments[:0] = [word for key, value in limits for word in ("--config", f"{key}={value}")]
        return spec

    def _one(self, number: int, config: Config) -> End:
        row, place = (self.pair.us, self.pair.them)[number], self.places[number]
        if self.pair.wire is Wire.TAP and row.wire is not Wire.TAP:
            place.with_kernel()
        if row.kernel:
            return KernelEnd(place.side.namespace, place.addresses)
        return launch([self._spec(number, config)], place.side, self._log)[0]

    def stop(self) -> None:
        running, self._running = self._running, ExitStack()
        self._config = None
        running.close()

    def tidy(self) -> None:
        for end in (self.us, self.them):
            end.tidy()

    def ends(self, role: str) -> tuple[End, End]:
        """Server and client."""
        return (self.us, self.them) if role == "server" else (self.them, self.us)

    def listen(self, end: End, family: int = 4, backlog: int = 128) -> tuple[Sock, str]:
        """A listening socket of an end, and its address."""
        address = at(end.addresses[family], next(ports))
        listener = end.stream()
        listener.bind(address)
        listener.listen(backlog)
        return listener, address

    def knock(self, role: str) -> tuple[Sock, Sock]:
        """A listener, and a client that is connected and not accepted yet."""
        server_end, client_end = self.ends(role)
        listener, address = self.listen(server_end)
        client = client_end.stream()
        client.connect(address).result()
        return listener, client

    def meet(self, role: str, family: int = 4) -> tuple[AgentSock, Sock]:
        """Our socket and theirs, connected."""
        server_end, client_end = self.ends(role)
        listener, address = self.listen(server_end, family)
        server, accepting = listener.accept()
        client = client_end.stream()
        client.connect(address).result()
        accepting.result()
        listener.close()
        return (server, client) if role == "server" else (client, server)  # type: ignore[return-value]
