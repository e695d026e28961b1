"""``hybrid bench throughput``: requests per second, and per second of the server's processor time.

Every subject serves in a lab of its own, as in :mod:`hybrid.bench.rtt`, on one core; one client, the
same for all, asks from the other core over the kernel's TCP and reads the server's processor time meanwhile::

    hybrid-bench-load ---- veth ---- hybrid-echo, hybrid-kv    on each of our backends
                      ---- veth ---- hybrid-bench-peer         the kernel's TCP by epoll, by liburing

A server that polls burns a whole core whatever it answers, one that sleeps does not; requests per second of
processor time is where both can be compared, and what ratios are of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hybrid.bench.backends import PEERS, Backend, Place, Server, Service, asked, available
from hybrid.bench.machine import machine
from hybrid.bench.result import Aim, Result, Samples
from hybrid.bench.stack import PROGRAMS
from hybrid.bench.turns import Program, Rests, take_turns
from hybrid.errors import UsageError
from hybrid.lab import Lab

CONNECTIONS = (64, 1)
CONNECTIONS_MAX = 64
PER_SECOND, PER_CPU, PER_CORE = "requests/s", "requests/cpu-s", "requests/core-s"
NOTES = (
    "requests/s: answered in slices of 20 ms; p99 is a slice that 99 of 100 do not exceed",
    "requests/cpu-s: per second of processor time of the server's process, all threads, user and system",
    "requests/core-s: per second that the server's core was busy, whoever with (10 ms ticks, a turn each)",
)
AT_HOME = "what an end receives goes up its kernel on its own core, by RPS, and counts there"
BEFORE_RPS = (
    "but XDP in the driver (afxdp-native, dpdk-af_xdp) comes before RPS: that work stays with the sender,"
    " so compare these two with each other"
)
AT_SENDER = "what an end receives goes up its kernel on the sender's core, as veth has it, and counts there"


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of which service; ``depth`` requests are under way on each connection."""

    name: str
    service: Service
    exchange: str
    depth: int

    def named(self, connections: int) -> str:
        """In the table: 64 connections go without saying."""
        return self.name if connections == CONNECTIONS_MAX else f"{self.name}-c{connections}"


CASES = {
    case.name: case
    for case in (
        Case("echo-64-depth-1", Service.ECHO, "echo", 1),
        Case("echo-64-depth-16", Service.ECHO, "echo", 16),
        Case("kv-get", Service.KV, "kv-get", 1),
        Case("bulk", Service.ECHO, "bulk", 1),
    )
}


@dataclass(frozen=True, slots=True)
class Options:
    """``window_ms`` are measured in a turn, after ``warmup_ms`` that are not."""

    rounds: int = 5
    window_ms: int = 300
    warmup_ms: int = 60
    cases: tuple[str, ...] = tuple(CASES)
    connections: tuple[int, ...] = CONNECTIONS
    backends: tuple[str, ...] = ()
    lab: str = "bench"
    mode: str = "generic"
    busy_poll: bool = False
    at_home: bool = True
    client_core: int = 0
    server_core: int = 1


class ThroughputSubject:
    """A server and its client in one case. Its samples by unit, in :attr:`samples`."""

    def __init__(self, name: str, client: Program, options: Options, rests: Rests) -> None:
        self._name = name
        self._rests = rests
        self._rests.stop()
        self._client = client
        self._options = options
        self.samples: dict[str, list[float]] = {PER_SECOND: [], PER_CPU: [], PER_CORE: []}

    @property
    def name(self) -> str:
        """As in the table."""
        return self._name

    def round(self) -> list[float]:
        """One turn."""
        with self._rests:
            answer = self._client.round(self._options.window_ms, self._options.warmup_ms)
        requests = answer["requests"]
        self.samples[PER_SECOND] += rates(requests, answer["ns"])
        self.samples[PER_CPU] += rates(requests, answer["cpu_ns"])
        self.samples[PER_CORE] += rates([sum(requests)], [answer["core_busy_ms"] * 1e6])
        return self.samples[PER_CPU]


def rates(counts: Sequence[float], ns: Sequence[float]) -> list[float]:
    """Per second. A slice that took no time that could be measured says nothing and is left out."""
    return [count * 1e9 / spent for count, spent in zip(counts, ns, strict=True) if spent > 0]


def aims_of(case: Case, connections: int, backends: Sequence[Backend]) -> list[Aim]:
    """Everything beside epoll that polls; a backend also beside what it resembles more."""
    name = case.named(connections)
    floor = 1.2 if connections == CONNECTIONS_MAX else 1.0
    aims = [
        Aim(name, b.name, "kernel-epoll", at_least=floor if b.name.removesuffix("-spin") == "uring" else None)
        for b in backends
    ]
    aims += [Aim(name, peer, "kernel-epoll") for peer in PEERS if peer != "kernel-epoll"]
    aims += [Aim(name, b.name, peer) for b in backends for peer in b.beside if peer != "kernel-epoll"]
    if "dpdk-af_xdp" in {b.name for b in backends}:
        aims.append(Aim(name, "afxdp-native", "dpdk-af_xdp", at_least=1.0))
    return aims


def _check(options: Options) -> None:
    if options.client_core == options.server_core:
        raise UsageError("client and server cannot share one core", "choose two cores")
    for name in options.cases:
        if name not in CASES:
            raise UsageError(f"there is no case {name}", f"choose of {', '.join(CASES)}")


class _Run:
    """One service at a time: its servers are started once, and all its cases asked of them."""

    def __init__(self, options: Options, backends: list[Backend], result: Result) -> None:
        self.options = options
        self.backends = backends
        self.result = result

    def service(self, service: Service, cases: Sequence[Case], progress: Callable[[str], None]) -> None:
        with ExitStack() as stack:
            served = []
            for number, backend in enumerate([*PEERS.values(), *self.backends]):
                place = self._place(stack, number)
                for side in place.lab.sides.values():
                    place.receive_at_home(side, side.interface)
                server = backend.serve(place, service)
                served.append((backend.name, place, server))
                if server.obtained:
                    self.result.notes.append(f"{service.value}, {backend.name}: {server.obtained}")
            for case in cases:
                for connections in self.options.connections:
                    progress(f"{case.named(connections)}: {', '.join(n for n, _, _ in served)} in turns")
                    self._case(case, connections, served)

    def _place(self, stack: ExitStack, number: int) -> Place:
        options = self.options
        lab = stack.enter_context(Lab(f"{options.lab}-{number}"))
        return Place(
            lab,
            stack,
            options.mode,
            options.busy_poll,
            options.client_core,
            options.server_core,
            options.at_home,
        )

    def _case(self, case: Case, connections: int, served: Sequence[tuple[str, Place, Server]]) -> None:
        with ExitStack() as stack:
            subjects = [
                ThroughputSubject(
                    name,
                    stack.enter_context(_client(case, connections, place, server)),
                    self.options,
                    server.rests,
                )
                for name, place, server in served
            ]
            take_turns(subjects, self.options.rounds)
        self.result.samples.extend(
            Samples.of(case.named(connections), subject.name, unit, values)
            for unit in (PER_SECOND, PER_CPU, PER_CORE)
            for subject in subjects
            if (values := subject.samples[unit])
        )
        self.result.aims.extend(aims_of(case, connections, self.backends))


def _client(case: Case, connections: int, place: Place, server: Server) -> Program:
    asks = ["--case", case.exchange, "--depth", case.depth, "--connections", connections]
    reads = ["--server", server.pid, "--server-core", place.server_core, "--core", place.client_core]
    command = [PROGRAMS / "hybrid-bench-load", *asks, *reads, server.address, case.service.port]
    return Program([str(word) for word in command], popen=place.lab.client.popen)


def run(options: Options, progress: Callable[[str], None] = lambda _: None) -> Result:
    """All cases with every number of connections, subjects in turns within each."""
    _check(options)
    backends, missing = (asked(options.backends), []) if options.backends else available()
    for backend in backends:
        if not backend.for_kernel:
            raise UsageError(
                f"{backend.name} joins two programs of ours, and the load of this benchmark is the kernel's",
                f"hybrid bench rtt --backend {backend.name}",
            )
    result = Result("throughput", machine(), [], notes=missing, headline=(PER_CPU,))
    run_ = _Run(options, backends, result)
    for service in Service:
        cases = [CASES[name] for name in dict.fromkeys(options.cases) if CASES[name].service is service]
        if cases:
            run_.service(service, cases, progress)
    result.notes.extend(NOTES)
    result.notes.append(AT_HOME if options.at_home else AT_SENDER)
    if options.at_home:
        result.notes.append(BEFORE_RPS)
    result.notes.append(f"client on core {options.client_core}, server on core {options.server_core}")
    return result
