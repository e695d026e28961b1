"""The main job from end to end, told as it happens, and everything taken down at its end.

Each step that a person could take by hand is taken by the same command, and printed::

    lab up -> apply POLICY -> serve kv + redis-server -> ping, redis-cli -> redis-benchmark in turns -> down

However it ends (an error, Ctrl-C, SIGTERM), what was made is unmade in reverse. What a kill -9 left
is cleared away by the next run before it starts.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hybrid.demo import redis
from hybrid.demo.evidence import Counted, Datapath, Way, counted, datapath
from hybrid.demo.redis import Benchmark, Measured
from hybrid.errors import BusyError, HybridError, PrivilegeError
from hybrid.lab import Lab, Phase

__all__ = ["Report", "Story"]

_OURS, _PEER = 6379, 6380
_RULE = "redis"
_PATIENCE_S = 20.0
_COMMAND_TIMEOUT_S = 60.0


@dataclass
class Report:
    """What was seen."""

    benchmark: Benchmark
    rounds: int
    cores: tuple[int, int]  # of the servers, of the client
    rows: list[Measured] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    path: Datapath | None = None


@dataclass
class Story:
    """One telling. ``tell`` is given each line for a person as soon as there is one."""

    policy: Path
    benchmark: Benchmark
    rounds: int
    tell: Callable[[str], None]
    keep: bool = False
    name: str = "quickstart"
    pipelines: tuple[int, ...] = (1, 16)

    def run(self) -> Report:
        """Everything. HybridError: a step failed; what had been made is gone by then."""
        if os.geteuid() != 0:
            raise PrivilegeError("namespaces and XDP programs take root", "sudo tools/quickstart")
        redis.require()
        lab = Lab(self.name)
        cores = sorted(os.sched_getaffinity(0))
        report = Report(self.benchmark, self.rounds, (cores[0], cores[-1]))
        if len(cores) == 1:
            self.tell("note: there is one core only, so server and client share it")
        with ExitStack() as stack:
            stack.enter_context(_alone(self.name))
            self._clear(lab)
            self._make(lab, stack, report)
            self._use(lab, report)
            if self.keep:
                self._leave_it(lab)
                stack.pop_all()
            else:
                self.tell("\nTaking everything down")
        return report

    # ---- the steps -----------------------------------------------------------

    def _clear(self, lab: Lab) -> None:
        if lab.status().phase in (Phase.UP, Phase.PARTIAL):
            self.tell("An earlier run has left its lab behind")
            self._down(lab)

    def _make(self, lab: Lab, stack: ExitStack, report: Report) -> None:
        server, client = lab.server, lab.client
        self.tell("A lab: two network namespaces joined by a veth pair")
        stack.callback(self._down, lab)
        self._hybrid("lab", "up", "--name", self.name)
        self.tell(f"    {server.namespace}: {server.interface} {server.ipv4}")
        self.tell(f"    {client.namespace}: {client.interface} {client.ipv4}")

        self.tell(f"\nA policy: TCP to port {_OURS} goes to AF_XDP, all else stays with the kernel")
        self._hybrid("--netns", server.namespace, "apply", str(self.policy))

        self.tell(f"\nTwo servers on core {report.cores[0]}, for clients on core {report.cores[1]}")
        self._start_ours(stack, lab, report.cores[0])
        self.tell(f"    $ redis-server --port {_PEER} --save '' --appendonly no    (the kernel's TCP)")
        peer = redis.start_peer(stack, server, report.cores[0], str(server.ipv4), _PEER)
        redis.wait_for_pong(client, str(server.ipv4), _PEER, _PATIENCE_S, lambda: _gone(peer, ""))

    def _use(self, lab: Lab, report: Report) -> None:
        host = str(lab.server.ipv4)
        report.path = datapath(self._status(lab), _RULE)
        before = self._counted(lab)
        self.tell("\nUnmodified clients")
        self._client(lab, "ping", "-q", "-c", "3", "-i", "0.2", host)
        after = self._counted(lab)
        report.ways.append(Way("ping", after - before))
        for words in (("SET", "greeting", "hello"), ("GET", "greeting"), ("INCR", "visits")):
            self._client(lab, "redis-cli", "-h", host, *words)

        self.tell(f"\nThe same redis-benchmark against both, in turns, {self.rounds} rounds")
        moved = dict.fromkeys((_OURS, _PEER), Counted(0, 0, 0))
        subjects = {_OURS: "hybrid", _PEER: "redis-server"}
        runs: list[Measured] = []
        before = self._counted(lab)
        for pipeline in self.pipelines:
            self.tell("    $ " + " ".join(self.benchmark.command(host, _OURS, pipeline)))
            for number in range(self.rounds):
                # Who goes first changes, so that a drift of the machine favours neither.
                for port in sorted(subjects, reverse=bool(number % 2)):
                    rows = self.benchmark.run(
                        lab.client, report.cores[1], subjects[port], host, port, pipeline
                    )
                    runs += rows
                    after = self._counted(lab)
                    moved[port] += after - before
                    before = after
                    figures = "  ".join(f"{row.test} {row.requests_per_s:,.0f}/s" for row in rows)
                    self.tell(f"      round {number + 1}, {subjects[port]}: {figures}")
        report.rows = redis.medians(runs)
        for port, subject in subjects.items():
            report.ways.append(Way(f"redis-benchmark, port {port} ({subject})", moved[port]))

    def _leave_it(self, lab: Lab) -> None:
        hybrid = _program()
        self.tell(
            "\nEverything is left as it is. Go on by hand (as root):\n"
            f"    {hybrid} --netns {lab.server.namespace} status\n"
            f"    nsenter --net=/run/netns/{lab.client.namespace} redis-cli -h {lab.server.ipv4}\n"
            "and take it down with:\n"
            f"    {hybrid} --netns {lab.server.namespace} clean --force && "
            f"{hybrid} lab down --name {self.name} --kill"
        )

    def _down(self, lab: Lab) -> None:
        """Each part even where another fails; the first failure is told at the end."""
        failed: HybridError | None = None
        clean = ("--netns", lab.server.namespace, "clean", "--force")
        for words in (clean, ("lab", "down", "--name", self.name, "--kill")):
            if words is clean and not lab.status().server.exists:
                continue
            try:
                self._hybrid(*words)
            except HybridError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    # ---- the means -------------------------------------------------------------

    def _start_ours(self, stack: ExitStack, lab: Lab, core: int) -> None:
        words = ["--netns", lab.server.namespace, "serve", "kv"]
        self.tell("    $ hybrid " + " ".join(words))
        folder = mkdtemp(prefix="hybrid-demo-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        log = Path(folder) / "log"
        with log.open("wb") as out:
            command = redis.pinned(core, [_program(), *words[2:]])
            process = lab.server.popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        stack.callback(redis.end, process)
        redis.wait_for_pong(
            lab.client, str(lab.server.ipv4), _OURS, _PATIENCE_S, lambda: _gone(process, log.read_text())
        )
        # Launcher and server write at the same moment: the server's word first, whichever was quicker.
        said = sorted(log.read_text().splitlines(), key=lambda line: not line.startswith("hybrid-kv:"))
        for line in said:
            self.tell(f"    {line}")

    def _hybrid(self, *words: str) -> str:
        """A command of ours, printed as a person would type it."""
        self.tell("    $ hybrid " + " ".join(words))
        return self._silently(*words)

    def _silently(self, *words: str) -> str:
        # A session of its own: Ctrl-C is this process's business, which then undoes what the command did.
        done = subprocess.run(
            [_program(), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
            start_new_session=True,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["no word why"]
            remedy = next(
                (line.partition("what to do: ")[2] for line in said if "what to do: " in line), None
            )
            raise HybridError(f"hybrid {' '.join(words)} failed: {said[0].removeprefix('hybrid: ')}", remedy)
        return done.stdout

    def _client(self, lab: Lab, *command: str) -> None:
        done = lab.client.run(command, check=False, timeout=_COMMAND_TIMEOUT_S)
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        shown = said[-2:-1] if command[0] == "ping" else said
        self.tell(f"    $ {' '.join(command)}")
        for line in shown:
            self.tell(f"    {line}")
        if done.returncode != 0:
            raise HybridError(f"{command[0]} failed: {said[-1] if said else 'no word why'}", None)

    def _status(self, lab: Lab) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(
            self._silently("--netns", lab.server.namespace, "--output", "json", "status")
        )
        return status

    def _counted(self, lab: Lab) -> Counted:
        return counted(self._status(lab), _RULE, lab.server.run(["cat", "/proc/net/snmp"]).stdout)


def _program() -> str:
    """The ``hybrid`` command beside the interpreter that runs this."""
    beside = Path(sys.executable).with_name("hybrid")
    return str(beside) if beside.exists() else shutil.which("hybrid") or "hybrid"


def _gone(process: subprocess.Popen[Any], said: str) -> str | None:
    """Why a server that should be running is not; None while it is."""
    code = process.poll()
    if code is None:
        return None
    lines = said.strip().splitlines()
    return lines[-1].removeprefix("hybrid: ") if lines else f"exit code {code}"


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One demo of a name at a time: the next one would take this one's lab for a leftover."""
    with Path(f"/run/lock/hybrid-demo-{name}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError("another quickstart is running", "wait until it has ended") from None
        yield


def as_table(rows: Sequence[Measured]) -> list[tuple[str, int, Measured, Measured]]:
    """Test, pipeline, ours, the peer's."""
    found = {(row.subject, row.test, row.pipeline): row for row in rows}
    return [
        (test, pipeline, row, found["redis-server", test, pipeline])
        for (subject, test, pipeline), row in found.items()
        if subject == "hybrid"
    ]
