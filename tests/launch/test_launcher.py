"""The launcher's side of the protocol: what it hands over, holds, answers, forwards and cleans up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybrid.lab import netns
from hybrid.launch.ports import PORTS_MAX
from hybrid.launch.record import records
from tests.host.conftest import Pair, pair  # noqa: F401 - the fixture

FAKES = Path(__file__).with_name("fakes.py")
CAP_IPC_LOCK = 1 << 14


class Running:
    """A launcher and its child, and what both have said."""

    def __init__(self, process: subprocess.Popen[str], run: Path) -> None:
        self.process = process
        self.run = run
        self.heard: list[dict[str, Any]] = []

    def hear(self, key: str) -> Any:
        """What was said under a key; reads on until it comes."""
        for said in self.heard:
            if key in said:
                return said[key]
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            self.heard.append(said)
            if key in said:
                return said[key]
        raise AssertionError(f"never said {key}: {self.heard}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def launch(pair: Pair, tmp_path: Path) -> Iterator[Callable[..., Running]]:  # noqa: F811
    started: list[Running] = []

    def start(mode: str, *arguments: str, **environ: str) -> Running:
        def run() -> subprocess.Popen[str]:
            ifindex = socket.if_nametoindex("v0")
            return subprocess.Popen(
                [sys.executable, str(FAKES), "launcher", mode, *arguments],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "FAKE_RUN": str(tmp_path), "FAKE_IFINDEX": str(ifindex), **environ},
            )

        running = Running(netns.run_in(pair.here, run), tmp_path)
        started.append(running)
        return running

    yield start
    for running in started:
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        running.process.wait()
        assert running.process.stdout is not None
        running.process.stdout.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Waits until a process that is not our child has ended."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            return bool(select.select([fd], [], [], 10)[0])
        finally:
            os.close(fd)
    return True


def bind(where: str, port: int, family: int = socket.AF_INET) -> None:
    """As a server does: with SO_REUSEADDR, then listen."""
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((where, port))
        sock.listen()


def test_the_program_is_given_its_queues_host_table_and_statistics_page(launch) -> None:
    running = launch("serves")
    assert running.hear("queues") == [0, 1]
    assert running.hear("fds") == 4
    assert running.hear("rings") == 512
    assert running.heard[0]["ports"] == [40000, 40099]
    assert running.hear("entered") == 2
    assert running.hear("go") == 0
    assert running.hear("ready") == running.hear("child")


def test_the_program_keeps_no_privilege_but_locking_memory(launch) -> None:
    running = launch("serves")
    assert running.hear("capabilities") & ~CAP_IPC_LOCK == 0


def test_the_program_runs_as_the_user_asked_for(launch) -> None:
    running = launch("serves", "--user", "nobody")
    assert running.hear("uid") != 0
    assert running.hear("capabilities") & ~CAP_IPC_LOCK == 0
    assert running.hear("go") == 0


def test_a_bound_port_cannot_be_taken_by_anybody_else_in_the_kernel(launch, pair: Pair) -> None:  # noqa: F811
    running = launch("serves")
    assert running.hear("ready")
    v4, v6 = socket.AF_INET, socket.AF_INET6
    for family, where in ((v4, "0.0.0.0"), (v4, "10.77.0.1"), (v6, "::")):
        with pytest.raises(OSError, match="Address already in use"):
            netns.run_in(pair.here, lambda f=family, w=where: bind(w, 6379, f))
    netns.run_in(pair.here, lambda: bind("0.0.0.0", 6380))
    running.end()
    netns.run_in(pair.here, lambda: bind("0.0.0.0", 6379))


def test_a_port_that_is_unbound_is_given_back(launch, pair: Pair) -> None:  # noqa: F811
    running = launch("unbinds")
    assert running.hear("unbound")
    deadline = time.monotonic() + 10
    while True:
        try:
            netns.run_in(pair.here, lambda: bind("0.0.0.0", 6379))
            break
        except OSError:
            assert time.monotonic() < deadline


def test_a_port_that_a_process_listens_on_in_the_kernel_is_refused_by_name(launch, pair: Pair) -> None:  # noqa: F811
    def listen() -> socket.socket:
        sock = socket.socket()
        sock.bind(("0.0.0.0", 6379))
        sock.listen()
        return sock

    with netns.run_in(pair.here, listen):
        running = launch("serves")
        error = running.hear("error")
        assert "tcp port 6379 is in use in the kernel by " in error
        assert f"(pid {os.getpid()})" in error
        assert running.process.wait(10) == 6
        assert running.hear("go") == -98
        assert not any("ready" in said for said in running.heard)


def test_a_port_that_no_rule_steers_is_warned_of(launch) -> None:
    running = launch("unsteered")
    assert "no rule steers tcp *:9999" in running.hear("warning")
    assert running.hear("ready")


def test_a_port_of_the_outgoing_range_is_not_reserved_one_by_one(launch) -> None:
    running = launch("ephemeral")
    assert running.hear("ready")
    assert next(said["ports"] for said in running.heard if "ready" in said) == ["tcp *:6379"]


def test_queues_that_cannot_go_into_service_end_the_program_with_the_reason(launch) -> None:
    running = launch("serves", "enter-fails")
    assert running.hear("go") == -16
    assert running.hear("error") == "the queues are taken"
    assert running.process.wait(10) == 1


def test_a_program_that_set_up_too_few_queues_is_refused(launch) -> None:
    running = launch("short")
    assert "1 of its 2 queues" in running.hear("error")


def test_messages_that_make_no_sense_are_ignored(launch) -> None:
    running = launch("nonsense")
    assert running.hear("ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_and_leaves_no_file(launch, number: signal.Signals) -> None:
    running = launch("serves")
    pid = running.hear("ready")
    assert list((running.run / "shards").iterdir())
    code = running.end(number)
    assert code in (128 + number, 1)
    assert not alive(pid)
    assert list((running.run / "shards").iterdir()) == []


def test_other_signals_are_handed_on(launch) -> None:
    running = launch("hangup")
    running.hear("ready")
    running.process.send_signal(signal.SIGHUP)
    assert running.hear("hangup")


def test_a_program_that_ends_by_itself_ends_the_launcher_with_its_code(launch) -> None:
    assert launch("exits").process.wait(20) == 3


def test_a_program_that_is_killed_is_reported(launch) -> None:
    running = launch("serves")
    os.kill(running.hear("ready"), signal.SIGKILL)
    assert "killed by SIGKILL" in running.hear("warning")
    assert running.process.wait(10) == 128 + signal.SIGKILL


def test_a_program_that_crashes_is_reported(launch) -> None:
    running = launch("crashes")
    assert "killed by SIGSEGV" in running.hear("warning")
    assert running.process.wait(10) == 128 + signal.SIGSEGV


def test_a_second_signal_ends_a_program_that_ignores_the_first(launch) -> None:
    running = launch("stubborn")
    pid = running.hear("ready")
    running.process.send_signal(signal.SIGTERM)
    running.process.send_signal(signal.SIGUSR1)  # keeps the two apart: equal signals pending are one
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            running.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert not alive(pid)


def test_the_program_ends_when_its_launcher_is_killed(launch) -> None:
    running = launch("serves")
    pid = running.hear("ready")
    running.process.kill()
    assert gone(pid)


def test_a_program_that_is_to_outlive_its_launcher_goes_on_and_its_record_with_it(launch) -> None:
    running = launch("serves", "outlives")
    pid = running.hear("ready")
    running.process.kill()
    running.process.wait()
    try:
        assert alive(pid)
        (record,) = records(running.run)
        assert record.alive
    finally:
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)


def test_the_record_says_what_runs_and_goes_stale_with_it(launch) -> None:
    running = launch("serves")
    pid = running.hear("ready")
    (record,) = records(running.run)
    assert record.alive
    assert record.about["pid"] == pid
    assert record.about["in_service"] is True
    assert record.about["ports"] == ["tcp *:6379"]
    assert len(record.about["requested"]) == len(record.about["obtained"]) == 2
    assert next(iter(record.stats.values())) == 42
    running.process.kill()
    assert gone(pid)
    with record.path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the last holder's descriptors are closed
    (stale,) = records(running.run)
    assert not stale.alive
    assert {path.suffix for path in stale.remove()} == {".stats", ".json"}
    assert list(records(running.run)) == []


def test_the_program_is_told_where_its_ports_are_placed(launch) -> None:
    running = launch("serves", "fallback")
    assert running.hear("rows") == [[6, 1, 2, 6379, 6379]]
    assert running.hear("kernel") == [1, 1]
    assert running.hear("eal") == "--no-pci\n-m 64\n"


def test_a_listener_with_a_fallback_holds_its_port_in_the_kernel_by_itself(launch, pair: Pair) -> None:  # noqa: F811
    running = launch("serves", "fallback")
    assert running.hear("ready")
    netns.run_in(pair.here, lambda: bind("0.0.0.0", 6379))
    (record,) = records(running.run)
    assert record.about["placed"] == {"tcp *:6379": "bypass, fallback kernel"}
    assert record.about["kernel"] == {"requested": "fallback", "obtained": True, "note": ""}


def test_without_the_kernels_sockets_the_port_is_reserved(launch, pair: Pair) -> None:  # noqa: F811
    running = launch("no-kernel", "fallback")
    assert "nothing to fall back to" in running.hear("warning")
    assert running.hear("ready")
    with pytest.raises(OSError, match="Address already in use"):
        netns.run_in(pair.here, lambda: bind("0.0.0.0", 6379))


def test_only_the_queues_that_the_program_has_go_into_service(launch) -> None:
    running = launch("partly", "fallback")
    assert running.hear("entered") == 1
    assert "queue 1 cannot be bypassed" in running.hear("warning")
    assert running.hear("ready")


def test_what_a_program_makes_up_neither_ends_the_launcher_nor_reaches_the_terminal(launch) -> None:
    running = launch("hostile", "fallback")
    assert running.hear("ready")
    missing_kernel, missing_queue = (said["warning"] for said in running.heard if "warning" in said)
    assert "nothing to fall back to" in missing_kernel
    assert "(?[2Jall is well?\ufffd)" in missing_queue
    (record,) = records(running.run)
    assert len(record.about["ports"]) == PORTS_MAX
    assert running.end() == 128 + signal.SIGTERM


def test_a_lost_queue_is_given_back_once_its_interface_is_there_again(launch) -> None:
    running = launch("loses", "fallback")
    assert "v0: queue 0 was lost" in running.hear("warning")
    assert running.hear("more") == [9, 0, 1]
    assert running.hear("more_fds") == 1
    assert running.hear("entered_later") == 0
    while "queue 0 is bypassed again" not in running.hear("warning"):
        running.heard = [said for said in running.heard if "warning" not in said]
    (record,) = records(running.run)
    assert (record.about["devices_lost"], record.about["devices_returned"]) == (1, 1)
    assert [slot["in_service"] for slot in record.about["devices"]] == [True, True]


def test_a_neighbour_that_the_program_misses_is_resolved(launch, pair: Pair) -> None:  # noqa: F811
    running = launch("missing")
    running.hear("ready")
    deadline = time.monotonic() + 10
    while "lladdr" not in pair.ip(pair.here, "neigh show 10.77.0.2"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_that_does_not_exist_is_a_mistake_on_the_command_line(tmp_path: Path) -> None:
    from hybrid.errors import UsageError
    from hybrid.launch import child

    with pytest.raises(UsageError, match="no program 'no-such-program'"):
        child.start(["no-such-program"], environ={}, fds=[])
    with pytest.raises(UsageError, match="no user 'no-such-user'"):
        child.start(["true"], environ={}, fds=[], user="no-such-user")
