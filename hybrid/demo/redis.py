"""The unmodified clients and the peer: redis-cli, redis-benchmark and redis-server, as Debian has them."""

from __future__ import annotations

import csv
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from tempfile import mkdtemp
from typing import Any

from hybrid.errors import HybridError, UnsupportedError
from hybrid.lab import Side

__all__ = [
    "Benchmark",
    "Measured",
    "end",
    "medians",
    "parse_csv",
    "pinned",
    "require",
    "start_peer",
    "wait_for_pong",
]

_PROGRAMS = {"redis-cli": "redis-tools", "redis-benchmark": "redis-tools", "redis-server": "redis-server"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of redis-benchmark's result. Latencies are the client's, in milliseconds."""

    subject: str
    test: str
    pipeline: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What redis-benchmark is asked to do. ``timeout_s``: against a dead server it would wait for ever."""

    clients: int = 50
    requests: int = 100_000
    tests: str = "set,get"
    timeout_s: float = 120.0

    def command(self, host: str, port: int, pipeline: int) -> list[str]:
        """The command line, as a person would type it."""
        command = ["redis-benchmark", "-h", host, "-p", str(port), "-t", self.tests]
        command += ["-c", str(self.clients), "-n", str(self.requests)]
        return [*command, "-P", str(pipeline)] if pipeline > 1 else command

    def run(
        self, client: Side, cpu: int, subject: str, host: str, port: int, pipeline: int
    ) -> list[Measured]:
        """Runs it from the client's namespace. HybridError: it ended with an error, or not in time."""
        command = [*self.command(host, port, pipeline), "--csv"]
        try:
            done = client.run(pinned(cpu, command), check=False, timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            raise HybridError(
                f"redis-benchmark against {subject} ({host}:{port}) did not end in {self.timeout_s:.0f} s",
                "see that the server answers: tools/quickstart --keep, then try redis-cli by hand",
            ) from None
        complaint = done.stderr.strip()
        if done.returncode != 0 or complaint or "Error" in done.stdout:
            said = (complaint or done.stdout.strip()).splitlines()
            why = said[0] if said else "no word why"
            raise HybridError(
                f"redis-benchmark against {subject} ({host}:{port}) failed: {why}",
                "run it by hand to see more: tools/quickstart --keep",
            )
        return parse_csv(done.stdout, subject, pipeline)


def parse_csv(text: str, subject: str, pipeline: int) -> list[Measured]:
    """What ``redis-benchmark --csv`` prints (Redis 7: one header, one row per test)."""
    rows = []
    try:
        for row in csv.DictReader(text.splitlines()):
            numbers = (float(row[column]) for column in ("rps", "p50_latency_ms", "p99_latency_ms"))
            rows.append(Measured(subject, row["test"], pipeline, *numbers))
    except (KeyError, TypeError, ValueError):
        rows = []
    if not rows:
        raise HybridError(
            "redis-benchmark printed something else than its table",
            "this needs the redis-tools of Debian 12 (Redis 7)",
        )
    return rows


def medians(runs: Sequence[Measured]) -> list[Measured]:
    """One row per subject, test and pipeline: the median of each figure over the rounds."""
    groups: dict[tuple[str, str, int], list[Measured]] = {}
    for run in runs:
        groups.setdefault((run.subject, run.test, run.pipeline), []).append(run)
    return [
        Measured(
            *key,
            median(run.requests_per_s for run in group),
            median(run.p50_ms for run in group),
            median(run.p99_ms for run in group),
        )
        for key, group in groups.items()
    ]


def require() -> None:
    """UnsupportedError: one of the programs is not installed."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise UnsupportedError(f"{program} is not installed", f"apt-get install {package}")


def pinned(cpu: int, command: Sequence[str]) -> list[str]:
    """The command, kept on one core."""
    return ["taskset", "--cpu-list", str(cpu), *command]


def wait_for_pong(
    client: Side, host: str, port: int, patience_s: float, gone: Callable[[], str | None]
) -> None:
    """Returns once a PING from the client's namespace has been answered.

    ``gone`` tells why the server can't answer any more, or None; HybridError then, and after ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            done = client.run(["redis-cli", "-h", host, "-p", str(port), "PING"], check=False, timeout=2.0)
            if done.stdout.strip() == "PONG":
                return
        except subprocess.TimeoutExpired:
            pass
        why = gone()
        if why is not None:
            raise HybridError(f"the server on port {port} ended before it answered: {why}", None)
        if time.monotonic() >= deadline:
            raise HybridError(
                f"the server on port {port} did not answer a PING within {patience_s:.0f} s",
                "hybrid doctor says what this host lacks",
            )
        time.sleep(0.05)


def start_peer(stack: ExitStack, server: Side, cpu: int, host: str, port: int) -> subprocess.Popen[Any]:
    """Debian's redis-server over the kernel, holding nothing on disk, as an unprivileged user.

    It ends with the stack.
    """
    user = next(name for name in ("redis", "nobody") if _exists(name))
    folder = mkdtemp(prefix="hybrid-demo-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    shutil.chown(folder, user)
    command = ["redis-server", "--bind", host, "--port", str(port), "--protected-mode", "no"]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
    command += ["--dir", folder, "--logfile", f"{folder}/log"]
    # Nobody who reads what the demo prints should have to wait for a server that outlived it.
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    process = server.popen(pinned(cpu, command), cwd=folder, **silent, **who)
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[Any], patience_s: float = 15.0) -> None:
    """SIGTERM, and SIGKILL where that does not help. Fine where it has ended already."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
