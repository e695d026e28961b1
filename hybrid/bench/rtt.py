"""``hybrid bench rtt``: round trips of 64 bytes, our stack beside the kernel's and beside no stack at all.

Every subject has a lab of its own, so that what one needs cannot slow another: no XDP program and
no offload switched off where the kernel's TCP serves, another XDP program for raw frames. All are
up at once, servers sleep while it is not their turn, and clients take turns::

    kernel-client      kernel     kernel TCP client ----------- kernel TCP server
                       hybrid     kernel TCP client ----------- hybrid-echo on AF_XDP
    bypass-both-ends   raw-afxdp  frames on AF_XDP  ----------- frames echoed on AF_XDP
                       hybrid     our client on AF_XDP -------- hybrid-echo on AF_XDP

``backends`` adds subjects to these: hybrid-echo on each of them, and the peers that belong beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hybrid.bench.backends import BACKENDS, PEERS, Backend, Connect, Place, Service, asked, memif_socket
from hybrid.bench.machine import machine
from hybrid.bench.result import Aim, Result, Samples
from hybrid.bench.stack import PROGRAMS
from hybrid.bench.turns import Program, Rests, take_turns
from hybrid.errors import UsageError
from hybrid.lab import Lab

KERNEL, RAW_AFXDP = PROGRAMS / "hybrid-bench-rtt-kernel", PROGRAMS / "hybrid-bench-rawxdp"
RAW_MEMIF = PROGRAMS / "hybrid-bench-rawmemif"
PAYLOAD = 64
# On the wire: Ethernet, IPv4, TCP with timestamps, payload. A raw frame is as long.
FRAME = 14 + 20 + 32 + PAYLOAD
AIMS = [
    Aim("kernel-client", "hybrid", "kernel", 0.70),
    Aim("bypass-both-ends", "hybrid", "raw-afxdp", 1.15),
    Aim("bypass-both-ends", "dpdk-memif", "raw-memif", 1.15),
    Aim("bypass-both-ends", "dpdk-memif", "hybrid", 0.50),
    *(
        Aim(case, ours, "dpdk-af_xdp", 1.00)
        for case in ("kernel-client", "bypass-both-ends")
        for ours in ("hybrid", "afxdp-native")
    ),
    Aim("kernel-client", "uring-spin", "kernel", 1.00),
    Aim("kernel-client", "uring-spin", "kernel-epoll", 1.00),
    Aim("kernel-client", "uring", "kernel-epoll-sleep", 1.00),
]
NOTES = (
    "us per round trip of 64 B; both ends spin on a core of their own; one connection a round",
    "kernel: TCP_NODELAY, non-blocking calls, a veth pair without XDP and with offloads on",
    "SO_BUSY_POLL is left off: veth has nothing to poll",
    f"raw-afxdp: frames of {FRAME} B, as long as the TCP segment, turned round with no stack and no checksum",
)


@dataclass(frozen=True, slots=True)
class Options:
    """``count`` round trips a round, after ``warmup`` that are thrown away.

    So many, because a ring's memory is touched for the first time in its first pass. ``mode`` is how XDP
    programs attach. On veth the generic mode is the faster one for single frames.
    """

    rounds: int = 25
    count: int = 2000
    warmup: int = 2000
    lab: str = "bench"
    mode: str = "generic"
    busy_poll: bool = False
    client_core: int = 0
    server_core: int = 1
    backends: tuple[str, ...] = ()


class RttSubject:
    """One way for 64 bytes to go there and back. Its samples are us per round trip."""

    def __init__(
        self, name: str, client: Program, options: Options, obtained: str = "", rests: Rests | None = None
    ) -> None:
        self._name = name
        self._client = client
        self._options = options
        self._rests = rests or Rests()
        self._rests.stop()
        self.obtained = obtained

    @property
    def name(self) -> str:
        """As in the table."""
        return self._name

    def round(self) -> list[float]:
        """One turn."""
        with self._rests:
            answer = self._client.round(self._options.count, self._options.warmup)
        return [ns / 1000 for ns in answer["ns"]]


Setup = Callable[[Place, Options], RttSubject]


def _kernel(place: Place, options: Options) -> RttSubject:
    place.kernels_own()
    server = place.lab.server
    where = [str(server.ipv4), Service.ECHO.port]
    place.start(server, [KERNEL, "--server", *where, "--core", place.server_core])
    return RttSubject("kernel", _kernel_client(place, str(server.ipv4)), options)


def _kernel_client(place: Place, address: str) -> Program:
    where = [address, Service.ECHO.port]
    return place.start(place.lab.client, [KERNEL, "--client", *where, "--core", place.client_core])


def _raw_afxdp(place: Place, options: Options) -> RttSubject:
    server, client = place.lab.server, place.lab.client
    both = ["--mode", place.mode, *(["--busy-poll"] if place.busy_poll else [])]
    echo = ["--echo", "--ifname", server.interface, "--core", place.server_core]
    ping = ["--ping", "--ifname", client.interface, "--core", place.client_core]
    place.start(server, [RAW_AFXDP, *echo, *both])
    started = place.start(client, [RAW_AFXDP, *ping, *both, "--dst-mac", server.mac, "--size", FRAME])
    return RttSubject("raw-afxdp", started, options, f"XDP {place.mode} mode")


def _raw_memif(place: Place, options: Options) -> RttSubject:
    both = [RAW_MEMIF, "--socket", memif_socket(place), "--size", FRAME]
    place.start(place.lab.server, [*both, "--echo", "--core", place.server_core])
    started = place.start(place.lab.client, [*both, "--ping", "--core", place.client_core])
    return RttSubject("raw-memif", started, options, "DPDK's net_memif port, two processes")


def _from_kernel(name: str, backend: Backend) -> Setup:
    """hybrid-echo on a backend, its client the kernel's."""

    def setup(place: Place, options: Options) -> RttSubject:
        server = backend.serve(place, Service.ECHO)
        client = _kernel_client(place, server.address)
        return RttSubject(name, client, options, server.obtained, server.rests)

    return setup


def _both_ends(name: str, connect: Connect, backend: Backend) -> Setup:
    """hybrid-echo and our client, each on the backend."""

    def setup(place: Place, options: Options) -> RttSubject:
        server = backend.serve(place, Service.ECHO)
        client = connect(place, PROGRAMS / "hybrid-bench-rtt-client", server)
        return RttSubject(name, client, options, server.obtained, server.rests)

    return setup


def cases_of(backends: Sequence[Backend]) -> dict[str, list[Setup]]:
    """The subjects of each case. AF_XDP is ``hybrid`` and always there; other backends keep their names."""
    kernel: list[Setup] = [_kernel]
    bypass: list[Setup] = [_raw_afxdp]
    measured = {"hybrid": BACKENDS["afxdp"], **{b.name: b for b in backends if b.name != "afxdp"}}
    for name, backend in measured.items():
        if backend.for_kernel:
            kernel.append(_from_kernel(name, backend))
        for peer in backend.beside:
            if peer not in measured:
                kernel.append(_from_kernel(peer, PEERS[peer]))
        if name == "dpdk-memif":
            bypass.append(_raw_memif)
        if backend.connect is not None:
            bypass.append(_both_ends(name, backend.connect, backend))
    return {"kernel-client": kernel, "bypass-both-ends": bypass}


@contextlib.contextmanager
def subjects_of(setups: Sequence[Setup], options: Options) -> Iterator[list[RttSubject]]:
    """The subjects of a case, ready to be measured; gone, with their labs, after the block."""
    with ExitStack() as stack:
        places = (
            Place(
                stack.enter_context(Lab(f"{options.lab}-{number}")),
                stack,
                options.mode,
                options.busy_poll,
                options.client_core,
                options.server_core,
            )
            for number in range(len(setups))
        )
        yield [setup(place, options) for setup, place in zip(setups, places, strict=True)]


def run(options: Options, progress: Callable[[str], None] = lambda _: None) -> Result:
    """Both cases, subjects in turns within each."""
    if options.client_core == options.server_core:
        raise UsageError("both ends of a round trip cannot spin on one core", "choose two cores")
    backends = asked(options.backends)
    result = Result("rtt", machine(), [], aims=AIMS)
    for case, setups in cases_of(backends).items():
        with subjects_of(setups, options) as subjects:
            names = " and ".join(s.name for s in subjects)
            progress(f"{case}: {names} in turns, {options.rounds} rounds of {options.count}")
            samples = take_turns(subjects, options.rounds)
        result.notes.extend(f"{case}, {s.name}: {s.obtained}" for s in subjects if s.obtained)
        result.samples.extend(Samples.of(case, name, "us", values) for name, values in samples.items())
    result.notes.extend(NOTES)
    result.notes.append(f"client on core {options.client_core}, server on core {options.server_core}")
    return result
