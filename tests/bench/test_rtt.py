"""``hybrid bench rtt`` from its command line, in labs of its own: tiny numbers, never a time asserted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybrid.bench import backends
from hybrid.cli import app
from hybrid.cli.session import Session
from hybrid.errors import HybridError, UnsupportedError
from hybrid.lab import Lab, Phase

# -P: what is installed is tested, not the source tree that the tests may be started in.
HYBRID = [sys.executable, "-P", "-c", "from hybrid.cli import main; main()"]
pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores, one for each end"),
]


@pytest.fixture
def prefix() -> Iterator[str]:
    """Begins the names of labs; they are gone after the test even if the benchmark left one."""
    name = f"bench{os.getpid()}"
    yield name
    for lab in left_of(name):
        Lab(lab).down(kill=True)


def left_of(prefix: str) -> list[str]:
    """The labs of these names that there are."""
    return [lab for lab in (f"{prefix}-{n}" for n in range(16)) if Lab(lab).status().phase is not Phase.DOWN]


def test_stdout_is_one_json_object_with_both_cases_and_their_peers(prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the optional extra `plot` is not installed")
    picture = tmp_path / "cdf.svg"
    options = ["--rounds", "2", "--count", "20", "--lab", prefix, "--plot", str(picture)]
    done = subprocess.run(
        [*HYBRID, "bench", "rtt", *options, "--output", "json"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(done.stdout)
    assert list(made) == ["bench", "machine", "rows", "ratios"]
    assert made["bench"] == "rtt"
    assert [(row["case"], row["subject"]) for row in made["rows"]] == [
        ("kernel-client", "kernel"),
        ("kernel-client", "hybrid"),
        ("bypass-both-ends", "raw-afxdp"),
        ("bypass-both-ends", "hybrid"),
    ]
    assert all(row["unit"] == "us" and row["n"] == 40 for row in made["rows"])
    assert all(0 < row["p50"] <= row["p99"] <= row["p999"] for row in made["rows"])
    assert {(r["case"], r["subject"], r["versus"]) for r in made["ratios"]} == {
        ("kernel-client", "hybrid", "kernel"),
        ("bypass-both-ends", "hybrid", "raw-afxdp"),
    }
    assert picture.read_text().startswith("<?xml")
    assert left_of(prefix) == []


def test_backends_are_measured_beside_and_bring_their_peers(prefix: str) -> None:
    options = ["--rounds", "1", "--count", "20", "--lab", prefix]
    wanted = []
    for name in ("uring", "uring-tap", "uring-packet"):
        try:
            backends.BACKENDS[name].check()
        except HybridError as error:
            pytest.skip(f"{name}: {error.message}")
        wanted += ["--backend", name]
    done = subprocess.run(
        [*HYBRID, "bench", "rtt", *options, *wanted, "--output", "json"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(done.stdout)
    assert [row["subject"] for row in made["rows"] if row["case"] == "kernel-client"] == [
        "kernel",
        "hybrid",
        "uring",
        "kernel-epoll-sleep",
        "kernel-io_uring-sleep",
        "uring-tap",
        "uring-packet",
    ]
    assert ("uring", "kernel-epoll-sleep") in {(r["subject"], r["versus"]) for r in made["ratios"]}
    assert left_of(prefix) == []


def test_two_processes_over_memif_are_measured_beside_frames_with_no_stack(prefix: str) -> None:
    try:
        backends.BACKENDS["dpdk-memif"].check()
    except HybridError as error:
        pytest.skip(error.message)
    options = ["--rounds", "1", "--count", "20", "--lab", prefix, "--backend", "dpdk-memif"]
    done = subprocess.run(
        [*HYBRID, "bench", "rtt", *options, "--output", "json"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(done.stdout)
    ratios = {(r["subject"], r["versus"]) for r in made["ratios"] if r["case"] == "bypass-both-ends"}
    assert ratios == {("hybrid", "raw-afxdp"), ("dpdk-memif", "raw-memif"), ("dpdk-memif", "hybrid")}
    assert left_of(prefix) == []


def test_ctrl_c_takes_every_lab_and_program_down(prefix: str) -> None:
    command = [*HYBRID, "bench", "rtt", "--rounds", "1000", "--count", "2000", "--lab", prefix]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()  # the first case is measured: labs and programs are up
            assert "in turns" in said, said + process.stderr.read()
            assert left_of(prefix) == [f"{prefix}-0", f"{prefix}-1"]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert left_of(prefix) == []
    assert not any(prefix in name for name in [p.name for p in Path("/run/netns").iterdir()])


def test_one_core_is_not_enough_and_says_so() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        with pytest.raises(UnsupportedError, match="need a core each"):
            backends.two_cores()
    finally:
        os.sched_setaffinity(0, before)


def test_an_unknown_backend_is_a_sentence_and_the_exit_code_of_a_wrong_command_line() -> None:
    done = CliRunner().invoke(app, ["bench", "rtt", "--backend", "pigeon"], obj=Session(environ={}))
    assert done.exit_code == 2
    assert "there is no backend pigeon" in done.output
    assert "afxdp" in done.output, "the remedy names those that there are"
