"""Two ends on one wire: started, joined, kept clean between tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.backends.harness.agent import AgentEnd, AgentSock, launch
from tests.backends.harness.ends import End, Sock, at, ports
from tests.backends.harness.kernel import KernelEnd
from tests.backends.harness.rows import ROOMY, Config, Pair, Row
from tests.backends.harness.wires import Place, Wire, lay, name_of_wire

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
        rows = (self.pair.us, self.pair.them)
        specs = [
            None if row.kernel else row.spec(place, self._running)
            for row, place in zip(rows, self.places, strict=True)
        ]
        ends: list[End] = []
        ours = [spec for spec in specs if spec is not None]
        for spec, limits in zip(specs, (config, ROOMY), strict=True):  # only ours run out
            if spec is not None:
                spec.arguments[:0] = [
                    w for key, value in limits.items() for w in ("--config", f"{key}={value}")
                ]
        if self.pair.us.one_process and len(ours) == 2:
            ends += launch(ours, self.places[0].side, self._log)
        else:
            for spec, place in zip(specs, self.places, strict=True):
                if spec is not None:
                    ends += launch([spec], place.side, self._log)
                else:
                    ends.append(self._kernel(place))
        self.us, self.them = ends  # type: ignore[assignment]
        for end in reversed(ends):
            self._running.callback(end.stop)

    def _kernel(self, place: Place) -> KernelEnd:
        if place.wire is Wire.TAP:
            place.with_kernel()
        return KernelEnd(place.side.namespace, place.addresses)

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
