"""How each subject serves in a lab: our backends, and the kernel's own servers beside them.

A backend is one entry of :data:`BACKENDS`; what it needs of the host is asked before anything is
made, so that one that cannot be had is a sentence with a remedy, not a benchmark that fails half-way.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2.ethtool.ioctl import IoctlEthtool

from hybrid.bench.stack import PROGRAMS
from hybrid.bench.turns import Program
from hybrid.errors import HybridError, UnsupportedError, UsageError
from hybrid.lab import Lab, Side

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
    "two_cores",
]

_CLIENT_PORTS = "40000-49999"
SPIN_US = 20_000  # longer than any gap within a round; then a server sleeps until its next turn
# What a lab switches off for AF_XDP and a kernel peer is better with.
_OFFLOADS = ("rx-checksum", "tx-checksum-ip-generic", "tx-generic-segmentation", "tx-tcp-segmentation")
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
    """A server that listens: its process, where it is reached, and what it obtained."""

    pid: int
    address: str
    obtained: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A lab, and how things are to be run in it. Everything that is started goes with the stack."""

    lab: Lab
    stack: ExitStack
    mode: str
    busy_poll: bool
    client_core: int
    server_core: int

    def start(self, side: Side, command: Sequence[object]) -> Program:
        """A program inside one side, ready when this returns."""
        return self.stack.enter_context(Program([str(word) for word in command], popen=side.popen))

    def kernels_own(self) -> None:
        """Both ends as the kernel's TCP likes them."""
        for side in self.lab.sides.values():
            side.call(partial(_offloads_on, side.interface))

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
    client of the kernel's can reach it. ``beside`` are peers of :data:`PEERS` that it resembles more than it
    does busy epoll. ``check`` raises what a person is told where this host cannot do it.
    """

    name: str
    serve: Callable[[Place, Service], Server]
    connect: Connect | None = None
    for_kernel: bool = True
    beside: tuple[str, ...] = ()
    check: Callable[[], None] = lambda: None


def _hybrid(side: Side, *arguments: str) -> None:
    done = side.run([*_HYBRID, *arguments], check=False)
    if done.returncode:
        try:
            error = json.loads(done.stdout.splitlines()[-1])["error"]
        except (ValueError, LookupError):
            error = {"message": f"hybrid {arguments[0]} failed in {side.namespace}", "remedy": None}
        raise HybridError(error["message"], error["remedy"])


def _offloads_on(interface: str) -> None:
    """Best effort, as the figures are the kernel's: a feature that this kernel lacks stays off."""
    with contextlib.closing(IoctlEthtool(interface)) as device:
        wanted = device.get_features()
        for feature in _OFFLOADS:
            if feature in wanted:
                wanted[feature] = True
        device.set_features(wanted)


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


def _afxdp_connect(place: Place, program: Path, server: Server) -> Program:
    client = place.lab.client
    place.steer(client, _CLIENT_PORTS)
    return place.run(client, place.client_core, program, f"{server.address}:{Service.ECHO.port}")


BACKENDS = {backend.name: backend for backend in (Backend("afxdp", _afxdp, _afxdp_connect),)}

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
    found = [BACKENDS[name] for name in dict.fromkeys(names)]
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
