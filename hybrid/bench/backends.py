"""How each subject serves in a lab: our backends, and the kernel's own servers beside them.

A backend is one entry of :data:`BACKENDS`; what it needs of the host is asked before anything is
made, so that one that cannot be had is a sentence with a remedy, not a benchmark that fails half-way.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from hybrid.bench.stack import PROGRAMS
from hybrid.bench.turns import Program, Rests
from hybrid.devices import dpdk, frames, uring
from hybrid.devices.ethtool import set_offloads
from hybrid.devices.frames import Way
from hybrid.devices.uring import Uring
from hybrid.errors import HybridError, PrivilegeError, UnsupportedError, UsageError
from hybrid.lab import Lab, Side, link

__all__ = [
    "BACKENDS",
    "PEERS",
    "Backend",
    "Connect",
    "Place",
    "Server",
    "Service",
    "asked",
    "available",
    "memif_socket",
    "two_cores",
]

_CLIENT_PORTS = "40000-49999"
SPIN_US = 20_000  # longer than any gap within a round; then a server sleeps until its next turn
# What a lab switches off for AF_XDP and a kernel peer is better with.
_MEMIF_SERVER, _MEMIF_CLIENT = IPv4Interface("10.79.0.1/24"), IPv4Interface("10.79.0.2/24")
_SENDS_MERGED = ("tx-checksum-ip-generic", "tx-generic-segmentation", "tx-tcp-segmentation")
_OFFLOADS = ("rx-checksum", *_SENDS_MERGED)
_TAP, _TAP_KERNELS, _TAP_OURS = "hytap0", IPv4Interface("10.78.0.1/24"), IPv4Interface("10.78.0.2/24")
# Not the script beside the interpreter: there may be none.
_HYBRID = [sys.executable, "-P", "-c", "from hybrid.cli import main; main()", "--output", "json"]


class Service(StrEnum):
    """What is served."""

    ECHO = "echo"
    KV = "kv"

    @property
    def port(self) -> int:
        """TCP's."""
        return {Service.ECHO: 7, Service.KV: 6379}[self]

    @property
    def program(self) -> Path:
        """Ours, on hybrid.h."""
        return PROGRAMS / f"hybrid-{self.value}"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens: its process, where it is reached, and what it obtained.

    ``restless``: it polls for ever and must be stopped between its turns.
    """

    pid: int
    address: str
    obtained: str = ""
    restless: bool = False

    @property
    def rests(self) -> Rests:
        """How it is kept quiet while others have their turns."""
        return Rests(self.pid if self.restless else None)


@dataclass(frozen=True, slots=True)
class Place:
    """A lab, and how things are to be run in it. Everything that is started goes with the stack."""

    lab: Lab
    stack: ExitStack
    mode: str
    busy_poll: bool
    client_core: int
    server_core: int
    at_home: bool = False

    def start(self, side: Side, command: Sequence[object], ready: str = "{") -> Program:
        """A program inside one side, ready when this returns: when it has said a line that begins so."""
        words = [str(word) for word in command]
        return self.stack.enter_context(Program(words, popen=side.popen, ready=ready))

    def serve(self, side: Side, service: Service, spec: str, spin_us: int = SPIN_US) -> Program:
        """Our server by itself, on the backend that bench/backend.h reads from ``spec``."""
        program = [service.program, "--port", service.port, "--backend", spec, f"--spin={spin_us}"]
        return self.start(side, ["taskset", "-c", self.server_core, *program], ready=service.program.name)

    def kernels_own(self) -> None:
        """Both ends as the kernel's TCP likes them."""
        for side in self.lab.sides.values():
            side.call(partial(set_offloads, side.interface, _OFFLOADS, True))

    def receive_at_home(self, side: Side, interface: str) -> None:
        """With ``at_home``, has frames go up the side's kernel on the side's own core.

        A veth pair would have the sender's core do it, on the sender's time. RPS moves them for the price
        of an interrupt, which a network card has as well. It is set in sysfs, which is a mount's.
        """
        if not self.at_home:
            return
        core = self.server_core if side is self.lab.server else self.client_core
        knob = f"/sys/class/net/{interface}/queues/rx-0/rps_cpus"
        script = f"mount -t sysfs sysfs /sys && echo {1 << core:x} > {knob}"
        done = side.run(["unshare", "--mount", "sh", "-c", script], check=False)
        if done.returncode:
            raise UnsupportedError(
                f"the receiving of {interface} cannot be moved to core {core}: {done.stderr.strip()}",
                "hybrid bench throughput --receive-at-sender",
            )

    def steer(self, side: Side, ports: str) -> None:
        """Sends what comes to these TCP ports of the side to AF_XDP."""
        policy = (
            f"version: 1\ninterfaces:\n- name: {side.interface}\n  mode: {self.mode}\n"
            f"  busy_poll: {str(self.busy_poll).lower()}\n  rules:\n"
            f'  - {{name: bench, to: afxdp, match: {{protocol: tcp, destination_port: "{ports}"}}}}\n'
        )
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(policy)
            file.flush()
            self.stack.callback(_hybrid, side, "clean", "--force")
            _hybrid(side, "apply", file.name)

    def run(self, side: Side, core: int, *command: object) -> Program:
        """A program of ours on the side's steered queues, which are in service when this returns."""
        return self.start(side, [*_HYBRID, "run", "--", "taskset", "-c", core, *command])


Connect = Callable[[Place, Path, Server], Program]


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to serve.

    ``connect`` runs a client of ours on the same backend, where that makes sense. ``for_kernel``: a
    client of the kernel's can reach it. ``brings`` are backends without which its figures say little,
    ``beside`` peers of :data:`PEERS` that it resembles more than it does busy epoll. ``check`` raises what
    a person is told where this host cannot do it.
    """

    name: str
    serve: Callable[[Place, Service], Server]
    connect: Connect | None = None
    for_kernel: bool = True
    beside: tuple[str, ...] = ()
    brings: tuple[str, ...] = ()
    check: Callable[[], None] = lambda: None


def _hybrid(side: Side, *arguments: str) -> None:
    done = side.run([*_HYBRID, *arguments], check=False)
    if done.returncode:
        try:
            error = json.loads(done.stdout.splitlines()[-1])["error"]
        except (ValueError, LookupError):
            error = {"message": f"hybrid {arguments[0]} failed in {side.namespace}", "remedy": None}
        raise HybridError(error["message"], error["remedy"])


def two_cores() -> tuple[int, int]:
    """The first and the last core that this process may use: the client's and the server's."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UnsupportedError(
            "client and server need a core each, and this process may use one",
            "run it where two cores are free: taskset shows and sets what a process may use",
        )
    return cores[0], cores[-1]


# ---- ours ------------------------------------------------------------------------


def describe(told: dict[str, Any]) -> str:
    """What an AF_XDP server obtained, of what `hybrid run` announced."""
    (interface,), (device,) = told["interfaces"], told["devices"]
    copying = "zero-copy" if device["obtained"]["zerocopy"] else "copy"
    return f"XDP {interface['mode_obtained']} mode (asked {interface['mode_requested']}), AF_XDP {copying}"


def _afxdp(place: Place, service: Service) -> Server:
    server = place.lab.server
    place.steer(server, str(service.port))
    program = [service.program, "--port", service.port, f"--spin={SPIN_US}"]
    told = place.run(server, place.server_core, *program).announced
    return Server(told["pid"], str(server.ipv4), describe(told))


def _afxdp_native(place: Place, service: Service) -> Server:
    """The driver's XDP whatever the others have, as DPDK's port takes it."""
    return _afxdp(replace(place, mode="native"), service)


def _afxdp_native_connect(place: Place, program: Path, server: Server) -> Program:
    return _afxdp_connect(replace(place, mode="native"), program, server)


def _afxdp_connect(place: Place, program: Path, server: Server) -> Program:
    client = place.lab.client
    place.steer(client, _CLIENT_PORTS)
    return place.run(client, place.client_core, program, f"{server.address}:{Service.ECHO.port}")


def _beside(side: Side) -> IPv4Interface:
    """An address on the side's wire that is not the kernel's."""
    return IPv4Interface((side.ipv4 + 8, side.network4.network.prefixlen))


def _uring(spin_us: int) -> Callable[[Place, Service], Server]:
    def serve(place: Place, service: Service) -> Server:
        place.kernels_own()
        started = place.serve(place.lab.server, service, "uring", spin_us)
        sleeps = "sleeps when nothing has come" if spin_us == 0 else "polls"
        return Server(started.pid, str(place.lab.server.ipv4), f"kernel sockets by io_uring, {sleeps}")

    return serve


def _packet(place: Place, service: Service) -> Server:
    side = place.lab.server
    ours = _beside(side)
    started = place.serve(side, service, f"packet={side.interface}@{ours}")
    return Server(started.pid, str(ours.ip), "a station of its own on the veth pair")


def _tap(place: Place, service: Service) -> Server:
    """The TAP is made where the client is: its kernel is at the other end of it."""
    side = place.lab.client
    started = place.serve(side, service, f"tap={_TAP}@{_TAP_OURS}")

    def give_address() -> None:
        link.set_up(_TAP, 1500, (_TAP_KERNELS,))
        set_offloads(_TAP, _SENDS_MERGED, True)

    side.call(give_address)
    place.receive_at_home(side, _TAP)
    return Server(started.pid, str(_TAP_OURS.ip), "a TAP device in place of the veth pair")


def _beside_connect(spec: Callable[[Place, Side], str]) -> Connect:
    """Our client by itself on the other side."""

    def connect(place: Place, program: Path, server: Server) -> Program:
        client = place.lab.client
        command = [program, "--backend", spec(place, client), "--core", place.client_core]
        return place.start(client, [*command, f"{server.address}:{Service.ECHO.port}"])

    return connect


def _af_xdp_port(place: Place, side: Side) -> str:
    """DPDK's own AF_XDP port has the interface to itself, with its own program."""
    return f"dpdk=net_af_xdp0,iface={side.interface}@{_beside(side)}"


def _dpdk_af_xdp(place: Place, service: Service) -> Server:
    side = place.lab.server
    started = place.serve(side, service, _af_xdp_port(place, side))
    return Server(started.pid, str(_beside(side).ip), "DPDK's net_af_xdp port", restless=True)


def _memif_port(place: Place, side: Side) -> str:
    role = "server" if side is place.lab.server else "client"
    port = f"net_memif0,role={role},socket={memif_socket(place)},socket-abstract=no"
    return f"dpdk={port}@{_MEMIF_SERVER if role == 'server' else _MEMIF_CLIENT}"


def _dpdk_memif(place: Place, service: Service) -> Server:
    side = place.lab.server
    started = place.serve(side, service, _memif_port(place, side))
    return Server(started.pid, str(_MEMIF_SERVER.ip), "DPDK's net_memif port, two processes", restless=True)


def memif_socket(place: Place) -> Path:
    """Where the two ends of this place's memif meet. Its folder goes with the stack."""
    folder = Path(tempfile.gettempdir()) / f"hybrid-{place.lab.name}"
    if not folder.exists():
        folder.mkdir(mode=0o700)
        place.stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder / "memif"


_WITH_DPDK = "apt-get install -y libdpdk-dev, and tools/setup"


def _needs_dpdk() -> None:
    found = dpdk.look()
    if found.abi is None:
        raise UnsupportedError("DPDK is not installed", _WITH_DPDK)
    if found.plugin is None:
        raise UnsupportedError("hybrid was built without DPDK", _WITH_DPDK)
    if found.plugin.problem:
        why = found.plugin.problem
        raise UnsupportedError(f"the DPDK plugin does not load: {why}", "hybrid devices says more")


def _needs(*ways: Callable[[], Uring | Way]) -> Callable[[], None]:
    """What this host must have, asked of what `hybrid devices` asks."""

    def check() -> None:
        for way in ways:
            found = way()
            if found.problem:
                kind = PrivilegeError if isinstance(found, Way) and found.denied else UnsupportedError
                raise kind(f"{_CALLED[way]}: {found.problem}", found.remedy)

    return check


_CALLED: dict[Callable[[], Uring | Way], str] = {
    uring.look: "io_uring",
    frames.tap: "a TAP device",
    frames.packet_socket: "a packet socket",
}
_POLLERS = ("kernel-epoll", "kernel-io_uring")
_SLEEPERS = ("kernel-epoll-sleep", "kernel-io_uring-sleep")
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("afxdp", _afxdp, _afxdp_connect),
        Backend("afxdp-native", _afxdp_native, _afxdp_native_connect),
        Backend("uring", _uring(0), check=_needs(uring.look), beside=_SLEEPERS),
        Backend("uring-spin", _uring(SPIN_US), check=_needs(uring.look), beside=_POLLERS),
        Backend("uring-packet", _packet, check=_needs(uring.look, frames.packet_socket)),
        Backend("uring-tap", _tap, check=_needs(uring.look, frames.tap)),
        Backend(
            "dpdk-af_xdp",
            _dpdk_af_xdp,
            _beside_connect(_af_xdp_port),
            brings=("afxdp-native",),
            check=_needs_dpdk,
        ),
        Backend("dpdk-memif", _dpdk_memif, _beside_connect(_memif_port), for_kernel=False, check=_needs_dpdk),
    )
}

# ---- the kernel's ------------------------------------------------------------------


def _peer(engine: str, *, sleep: bool) -> Callable[[Place, Service], Server]:
    def serve(place: Place, service: Service) -> Server:
        server = place.lab.server
        place.kernels_own()
        command = [PROGRAMS / "hybrid-bench-peer", "--engine", engine, "--service", service.value]
        where = ["--core", place.server_core, str(server.ipv4), service.port]
        started = place.start(server, [*command, *(["--sleep"] if sleep else []), *where])
        return Server(started.pid, str(server.ipv4))

    return serve


PEERS = {
    backend.name: backend
    for backend in (
        Backend("kernel-epoll", _peer("epoll", sleep=False)),
        Backend("kernel-epoll-sleep", _peer("epoll", sleep=True)),
        Backend("kernel-io_uring", _peer("io_uring", sleep=False)),
        Backend("kernel-io_uring-sleep", _peer("io_uring", sleep=True)),
    )
}


def asked(names: Sequence[str]) -> list[Backend]:
    """The backends of these names, which this host must have: the error says how it gets them."""
    for name in names:
        if name not in BACKENDS:
            raise UsageError(f"there is no backend {name}", f"choose of {', '.join(BACKENDS)}")
    wanted = [more for name in names for more in (*BACKENDS[name].brings, name)]
    found = [BACKENDS[name] for name in dict.fromkeys(wanted)]
    for backend in found:
        backend.check()
    return found


def available() -> tuple[list[Backend], list[str]]:
    """All that a client of the kernel's can reach here; a sentence for each that this host cannot have."""
    found, missing = [], []
    for backend in BACKENDS.values():
        if not backend.for_kernel:
            continue
        try:
            backend.check()
        except HybridError as error:
            missing.append(f"{backend.name} was left out: {error.message} ({error.remedy})")
        else:
            found.append(backend)
    return found, missing
