"""``hybrid bench rtt``: round trips of 64 bytes, our stack beside the kernel's and beside no stack at all.

Every subject has a lab of its own, so that what one needs cannot slow another: no XDP program and
no offload switched off where the kernel's TCP serves, another XDP program for raw frames. All are
up at once, servers sleep while it is not their turn, and clients take turns::

    kernel-client      kernel     kernel TCP client ----------- kernel TCP server
                       hybrid     kernel TCP client ----------- hybrid-echo on AF_XDP
    bypass-both-ends   raw-afxdp  frames on AF_XDP  ----------- frames echoed on AF_XDP
                       hybrid     our client on AF_XDP -------- hybrid-echo on AF_XDP
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from pyroute2.ethtool.ioctl import IoctlEthtool

from hybrid.bench.machine import machine
from hybrid.bench.result import Aim, Result, Samples
from hybrid.bench.stack import PROGRAMS
from hybrid.bench.turns import Program, take_turns
from hybrid.errors import HybridError, UnsupportedError, UsageError
from hybrid.lab import Lab, Side

PORT = 7
CLIENT_PORTS = "40000-49999"
SPIN_US = 20_000  # longer than any gap within a round; then the server sleeps until its next turn
PAYLOAD = 64
# On the wire: Ethernet, IPv4, TCP with timestamps, payload. A raw frame is as long.
FRAME = 14 + 20 + 32 + PAYLOAD
AIMS = [
    Aim("kernel-client", "hybrid", "kernel", 0.70),
    Aim("bypass-both-ends", "hybrid", "raw-afxdp", 1.15),
]
NOTES = (
    "us per round trip of 64 B; both ends spin on a core of their own; one connection a round",
    "kernel: TCP_NODELAY, non-blocking calls, a veth pair without XDP and with offloads on",
    "SO_BUSY_POLL is left off: veth has nothing to poll",
    f"raw-afxdp: frames of {FRAME} B, as long as the TCP segment, turned round with no stack and no checksum",
)
# Not the script beside the interpreter: there may be none.
_HYBRID = [sys.executable, "-P", "-c", "from hybrid.cli import main; main()", "--output", "json"]
# What a lab switches off for AF_XDP and a kernel peer is better with.
_OFFLOADS = ("rx-checksum", "tx-checksum-ip-generic", "tx-generic-segmentation", "tx-tcp-segmentation")


@dataclass(frozen=True, slots=True)
class Options:
    """``count`` round trips a round, after ``warmup`` that are thrown away.

    ``mode`` is how XDP programs attach. On veth the generic mode is the faster one for single frames.
    """

    rounds: int = 25
    count: int = 2000
    warmup: int = 200
    lab: str = "bench"
    mode: str = "generic"
    busy_poll: bool = False
    client_core: int = 0
    server_core: int = 1


class RttSubject:
    """One way for 64 bytes to go there and back. Its samples are us per round trip."""

    def __init__(self, name: str, client: Program, options: Options, obtained: str = "") -> None:
        self._name = name
        self._client = client
        self._options = options
        self.obtained = obtained

    @property
    def name(self) -> str:
        """As in the table."""
        return self._name

    def round(self) -> list[float]:
        """One turn."""
        answer = self._client.round(self._options.count, self._options.warmup)
        return [ns / 1000 for ns in answer["ns"]]


Setup = Callable[[Options, ExitStack], RttSubject]


@dataclass(frozen=True, slots=True)
class Steered:
    """One side of a lab with its interface steered; the steering goes with the stack."""

    side: Side
    options: Options
    stack: ExitStack

    def apply(self, ports: str) -> None:
        """Sends what comes to these TCP ports to AF_XDP."""
        policy = (
            f"version: 1\ninterfaces:\n- name: {self.side.interface}\n  mode: {self.options.mode}\n"
            f"  busy_poll: {str(self.options.busy_poll).lower()}\n  rules:\n"
            f'  - {{name: bench, to: afxdp, match: {{protocol: tcp, destination_port: "{ports}"}}}}\n'
        )
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(policy)
            file.flush()
            self.stack.callback(self._hybrid, "clean", "--force")
            self._hybrid("apply", file.name)

    def run(self, core: int, *command: object) -> Program:
        """A program of ours on a core, its queues in service when this returns."""
        started = [*_HYBRID, "run", "--", "taskset", "-c", core, *command]
        return _start(self.stack, self.side, started)

    def _hybrid(self, *arguments: str) -> None:
        done = self.side.run([*_HYBRID, *arguments], check=False)
        if done.returncode:
            try:
                error = json.loads(done.stdout.splitlines()[-1])["error"]
            except (ValueError, LookupError):
                error = {"message": f"hybrid {arguments[0]} failed in {self.side.namespace}", "remedy": None}
            raise HybridError(error["message"], error["remedy"])


def _serve_echo(lab: Lab, options: Options, stack: ExitStack) -> str:
    """hybrid-echo on the server's side; what its queue obtained."""
    server = Steered(lab.server, options, stack)
    server.apply(str(PORT))
    echo = [PROGRAMS / "hybrid-echo", "--port", PORT, f"--spin={SPIN_US}"]
    told = server.run(options.server_core, *echo).announced
    (interface,), (device,) = told["interfaces"], told["devices"]
    copying = "zero-copy" if device["obtained"]["zerocopy"] else "copy"
    return f"XDP {interface['mode_obtained']} mode (asked {interface['mode_requested']}), AF_XDP {copying}"


def two_cores() -> tuple[int, int]:
    """The first and the last core that this process may use: the client's and the server's."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UnsupportedError(
            "the two ends of a round trip need a core each, and this process may use one",
            "run it where two cores are free: taskset shows and sets what a process may use",
        )
    return cores[0], cores[-1]


def _kernel(options: Options, stack: ExitStack) -> RttSubject:
    lab = stack.enter_context(Lab(f"{options.lab}-kernel"))
    for side in lab.sides.values():
        side.call(partial(_offloads_on, side.interface))
    binary, address = PROGRAMS / "hybrid-bench-rtt-kernel", [str(lab.server.ipv4), str(PORT)]
    _start(stack, lab.server, [binary, "--server", *address, "--core", options.server_core])
    client = _start(stack, lab.client, [binary, "--client", *address, "--core", options.client_core])
    return RttSubject("kernel", client, options)


def _hybrid_server(options: Options, stack: ExitStack) -> RttSubject:
    lab = stack.enter_context(Lab(f"{options.lab}-server"))
    obtained = _serve_echo(lab, options, stack)
    binary, address = PROGRAMS / "hybrid-bench-rtt-kernel", [str(lab.server.ipv4), str(PORT)]
    client = _start(stack, lab.client, [binary, "--client", *address, "--core", options.client_core])
    return RttSubject("hybrid", client, options, obtained)


def _hybrid_both(options: Options, stack: ExitStack) -> RttSubject:
    lab = stack.enter_context(Lab(f"{options.lab}-both"))
    obtained = _serve_echo(lab, options, stack)
    end = Steered(lab.client, options, stack)
    end.apply(CLIENT_PORTS)
    binary, address = PROGRAMS / "hybrid-bench-rtt-client", f"{lab.server.ipv4}:{PORT}"
    return RttSubject("hybrid", end.run(options.client_core, binary, address), options, obtained)


def _raw_afxdp(options: Options, stack: ExitStack) -> RttSubject:
    lab = stack.enter_context(Lab(f"{options.lab}-raw"))
    binary = PROGRAMS / "hybrid-bench-rawxdp"
    both = ["--mode", options.mode, *(["--busy-poll"] if options.busy_poll else [])]
    echo = ["--echo", "--ifname", lab.server.interface, "--core", options.server_core]
    ping = ["--ping", "--ifname", lab.client.interface, "--core", options.client_core]
    _start(stack, lab.server, [binary, *echo, *both])
    client = _start(stack, lab.client, [binary, *ping, *both, "--dst-mac", lab.server.mac, "--size", FRAME])
    return RttSubject("raw-afxdp", client, options, f"XDP {options.mode} mode")


def _start(stack: ExitStack, side: Side, command: list[object]) -> Program:
    """A program inside one side of a lab, ready when this returns, ended with the stack."""
    return stack.enter_context(Program([str(word) for word in command], popen=side.popen))


def _offloads_on(interface: str) -> None:
    """Best effort, as the figures are the kernel's: a feature that this kernel lacks stays off."""
    with contextlib.closing(IoctlEthtool(interface)) as device:
        wanted = device.get_features()
        for feature in _OFFLOADS:
            if feature in wanted:
                wanted[feature] = True
        device.set_features(wanted)


CASES: dict[str, tuple[Setup, ...]] = {
    "kernel-client": (_kernel, _hybrid_server),
    "bypass-both-ends": (_raw_afxdp, _hybrid_both),
}


@contextlib.contextmanager
def subjects_of(case: str, options: Options) -> Iterator[list[RttSubject]]:
    """The subjects of a case, ready to be measured; gone, with their labs, after the block."""
    with ExitStack() as stack:
        yield [setup(options, stack) for setup in CASES[case]]


def run(options: Options, progress: Callable[[str], None] = lambda _: None) -> Result:
    """Both cases, subjects in turns within each."""
    if options.client_core == options.server_core:
        raise UsageError("both ends of a round trip cannot spin on one core", "choose two cores")
    result = Result("rtt", machine(), [], aims=AIMS)
    for case in CASES:
        with subjects_of(case, options) as subjects:
            names = " and ".join(s.name for s in subjects)
            progress(f"{case}: {names} in turns, {options.rounds} rounds of {options.count}")
            samples = take_turns(subjects, options.rounds)
        result.notes.extend(f"{case}, {s.name}: {s.obtained}" for s in subjects if s.obtained)
        result.samples.extend(Samples.of(case, name, "us", values) for name, values in samples.items())
    result.notes.extend(NOTES)
    result.notes.append(f"client on core {options.client_core}, server on core {options.server_core}")
    return result
