"""The demo for real: our server and redis-server in a lab, and nothing left afterwards however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybrid.lab import Lab, Phase

TOP = Path(__file__).resolve().parents[2]
HYBRID = Path(sys.executable).with_name("hybrid")
POLICY = TOP / "examples/policies/redis.yaml"
PATIENCE_S = 120.0

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]


@pytest.fixture
def name() -> Iterator[str]:
    """Of a lab for one test; whatever is left of it is gone afterwards."""
    mine = f"demo{os.getpid()}"
    yield mine
    if Lab(mine).status().server.exists:
        subprocess.run([HYBRID, "--netns", f"{mine}-server", "clean", "--force"], check=False)
    Lab(mine).down(kill=True)


def demo(name: str, *options: str) -> list[str]:
    """The command line of a short demo."""
    words = [
        HYBRID,
        "--output",
        "json",
        "demo",
        POLICY,
        "--name",
        name,
        "--requests",
        "1000",
        "--rounds",
        "1",
    ]
    return [*map(str, words), *options]


def processes_in(name: str) -> list[tuple[int, str]]:
    status = Lab(name).status()
    return [*status.server.processes, *status.client.processes]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The story up to a line that contains the text."""
    assert process.stderr is not None
    deadline = time.monotonic() + PATIENCE_S
    story = ""
    while text not in story:
        ready, _, _ = select.select([process.stderr], [], [], deadline - time.monotonic())
        assert ready, f"no {text!r} within {PATIENCE_S:.0f} s: {story}"
        piece = os.read(process.stderr.fileno(), 65536).decode()
        assert piece, f"it ended before {text!r}: {story}"
        story += piece
    return story


@contextlib.contextmanager
def started(name: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        demo(name, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_both_servers_are_driven_and_each_flow_went_its_own_way(name: str) -> None:
    done = subprocess.run(demo(name), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert {(row["subject"], row["test"], row["pipeline"]) for row in seen["rows"]} == {
        (subject, test, pipeline)
        for subject in ("hybrid", "redis-server")
        for test in ("SET", "GET")
        for pipeline in (1, 16)
    }
    assert all(row["requests_per_s"] > 0 for row in seen["rows"])
    assert len(seen["ratios"]) == 4
    ping, ours, peer = (way["counted"] for way in seen["ways"])
    # 2 tests x (1000 + 1000/16) requests, each at least one frame, and not one of them seen by the kernel's TCP.
    assert ours["to_afxdp"] >= 2125
    assert ours["kernel_tcp"] == 0
    assert peer["kernel_tcp"] >= 2125
    assert peer["to_afxdp"] == 0
    assert ping == {"to_afxdp": 0, "kernel_tcp": 0, "kernel_pings": 3}
    assert seen["path"]["mode_obtained"] in ("native", "generic")
    assert Lab(name).status().phase is Phase.DOWN
    assert not Path(f"/run/netns/{name}-server").exists()


@pytest.mark.parametrize(
    ("at", "number"),
    [
        ("$ hybrid lab up", signal.SIGTERM),
        ("$ hybrid --netns", signal.SIGINT),
        ("serve kv", signal.SIGTERM),
        ("$ ping", signal.SIGINT),
        ("-P 16", signal.SIGINT),
        ("-P 16", signal.SIGTERM),
    ],
)
def test_a_signal_at_any_step_leaves_nothing(name: str, at: str, number: signal.Signals) -> None:
    with started(name) as process:
        read_until(process, at)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 128 + number
    assert processes_in(name) == []
    assert Lab(name).status().phase is Phase.DOWN


def test_what_a_kill_left_is_cleared_away_by_the_next_run(name: str) -> None:
    with started(name) as process:
        read_until(process, "$ redis-benchmark")
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert Lab(name).status().phase is Phase.UP
    left = processes_in(name)
    assert any("hybrid-kv" in command for _, command in left)
    done = subprocess.run(demo(name), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert "An earlier run has left its lab behind" in done.stderr
    assert Lab(name).status().phase is Phase.DOWN
    assert not [pid for pid, _ in left if Path(f"/proc/{pid}").exists()]


def test_keep_leaves_a_lab_that_answers_and_says_how_to_take_it_down(name: str) -> None:
    done = subprocess.run(
        demo(name, "--keep"), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    with Lab(name) as lab:
        assert lab.client.run(["redis-cli", "-h", str(lab.server.ipv4), "PING"]).stdout.strip() == "PONG"
    take_down = next(line.strip() for line in done.stderr.splitlines() if "lab down" in line)
    subprocess.run(["bash", "-c", take_down], check=True, capture_output=True)
    assert Lab(name).status().phase is Phase.DOWN


def test_a_second_demo_of_the_same_name_is_refused(name: str) -> None:
    with started(name) as process:
        read_until(process, "serve kv")
        second = subprocess.run(demo(name), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert second.returncode == 6
        assert "another quickstart is running" in second.stderr
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_a_policy_that_steers_nothing_is_an_error_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    policy = tmp_path / "empty.yaml"
    policy.write_text("version: 1\nnonsense: true\n")
    command = [str(policy) if word == str(POLICY) else word for word in demo(name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode != 0
    assert "empty.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert Lab(name).status().phase is Phase.DOWN


def test_without_root_it_says_what_to_do(name: str) -> None:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *demo(name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    if "Permission denied" in done.stderr or "No such file" in done.stderr:
        pytest.skip("this checkout cannot be read by another user")
    assert done.returncode == 5
    assert "sudo tools/quickstart" in done.stderr
