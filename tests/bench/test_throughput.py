"""``hybrid bench throughput`` from its command line, in labs of its own: tiny numbers, never a rate asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hybrid.bench import backends, throughput
from hybrid.bench.backends import Backend
from hybrid.bench.stack import PROGRAMS
from hybrid.bench.turns import Program
from hybrid.cli import app
from hybrid.cli.session import Session
from hybrid.errors import UnsupportedError
from hybrid.lab import Lab, Phase

HYBRID = [sys.executable, "-P", "-c", "from hybrid.cli import main; main()"]
UNITS = ["requests/s", "requests/cpu-s", "requests/core-s"]

needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two cores, one for each end"
)


def left_of(prefix: str) -> list[str]:
    return [lab for lab in (f"{prefix}-{n}" for n in range(16)) if Lab(lab).status().phase is not Phase.DOWN]


@pytest.fixture
def prefix() -> Iterator[str]:
    """Begins the names of labs; they are gone after the test even if the benchmark left one."""
    name = f"thr{os.getpid()}"
    yield name
    for lab in left_of(name):
        Lab(lab).down(kill=True)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["bench", "throughput", *words], obj=Session(environ={}))


@pytest.mark.netns
@needs_two_cores
def test_stdout_is_one_json_object_with_every_case_and_the_peers_beside_us(
    prefix: str, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="the optional extra `plot` is not installed")
    picture = tmp_path / "cdf.svg"
    options = [
        "--rounds",
        "2",
        "--window",
        "40",
        "--backend",
        "afxdp",
        "--connections",
        "2",
        "--connections",
        "64",
    ]
    done = subprocess.run(
        [
            *HYBRID,
            "bench",
            "throughput",
            *options,
            "--lab",
            prefix,
            "--plot",
            str(picture),
            "--output",
            "json",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(done.stdout)
    assert list(made) == ["bench", "machine", "rows", "ratios"]
    assert made["bench"] == "throughput"
    subjects = [*backends.PEERS, "afxdp"]
    assert [(row["case"], row["unit"], row["subject"]) for row in made["rows"]] == [
        (case + more, unit, subject)
        for case in ("echo-64-depth-1", "echo-64-depth-16", "bulk", "kv-get")
        for more in ("-c2", "")
        for unit in UNITS
        for subject in subjects
    ]
    assert all(0 <= row["p50"] <= row["p99"] <= row["p999"] for row in made["rows"])
    assert all(row["p99"] > 0 for row in made["rows"] if row["unit"] == "requests/s")
    ratios = {(r["case"], r["subject"], r["versus"]) for r in made["ratios"]}
    assert ("echo-64-depth-1", "afxdp", "kernel-epoll") in ratios
    assert ("kv-get-c2", "kernel-io_uring", "kernel-epoll") in ratios
    assert picture.read_text().startswith("<?xml")
    assert left_of(prefix) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--backend", "pigeon"], "there is no backend pigeon"),
        (["--case", "pigeon"], "there is no case pigeon"),
    ],
    ids=["backend", "case"],
)
@needs_two_cores
def test_what_there_is_not_is_a_sentence_that_names_what_there_is(words: list[str], told: str) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert told in done.output
    assert "choose of" in done.output


@needs_two_cores
def test_a_backend_that_this_host_cannot_have_is_exit_code_4_and_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking() -> None:
        raise UnsupportedError("DPDK is not installed", "apt-get install dpdk")

    lame = Backend("afxdp", backends.BACKENDS["afxdp"].serve, check=lacking)
    monkeypatch.setitem(backends.BACKENDS, "afxdp", lame)
    done = invoke("--backend", "afxdp")
    assert done.exit_code == 4
    assert "DPDK is not installed" in done.output
    assert "apt-get install dpdk" in done.output
    # Not asked for by name it is left out, and the notes say so.
    found, missing = backends.available()
    assert "afxdp" not in [backend.name for backend in found]
    assert missing == ["afxdp was left out: DPDK is not installed (apt-get install dpdk)"]


@needs_two_cores
def test_what_joins_two_programs_of_ours_cannot_be_asked_by_a_client_of_the_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memif = backends.BACKENDS["dpdk-memif"]
    monkeypatch.setitem(backends.BACKENDS, "dpdk-memif", Backend("dpdk-memif", memif.serve, for_kernel=False))
    done = invoke("--backend", "dpdk-memif")
    assert done.exit_code == 2
    assert "hybrid bench rtt --backend dpdk-memif" in done.output


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("pigeon", "--backend takes NAME[=DEVICE][@ADDRESS/PREFIX]"),
        ("tap=t0@10.0.0.1", "--backend takes NAME[=DEVICE][@ADDRESS/PREFIX]"),
        ("tap=t0@10.0.0.1/33", "--backend takes NAME[=DEVICE][@ADDRESS/PREFIX]"),
    ],
    ids=["unknown", "no-prefix-length", "prefix-too-long"],
)
@pytest.mark.parametrize("program", ["hybrid-echo", "hybrid-kv"])
def test_a_backend_on_a_command_line_that_makes_no_sense_is_one_sentence(
    program: str, spec: str, told: str
) -> None:
    done = subprocess.run([PROGRAMS / program, "--backend", spec], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_rates_are_per_second_and_a_slice_without_time_says_nothing() -> None:
    assert throughput.rates([10, 20, 5], [1_000_000, 10_000_000, 0]) == [10_000.0, 2_000.0]


def test_64_connections_go_without_saying_in_the_name_of_a_case() -> None:
    case = throughput.CASES["kv-get"]
    assert [case.named(n) for n in (64, 8, 1)] == ["kv-get", "kv-get-c8", "kv-get-c1"]


# ---- the programs, over loopback: they need no privilege ---------------------------


@pytest.fixture(params=["epoll", "io_uring"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("sleep", [False, True], ids=["busy", "sleep"])
@pytest.mark.parametrize(
    ("service", "exchange", "depth", "connections"),
    [("echo", "echo", 1, 1), ("echo", "echo", 16, 64), ("echo", "bulk", 1, 64), ("kv", "kv-get", 16, 8)],
)
def test_a_peer_answers_every_request_byte_for_byte(
    engine: str, sleep: bool, service: str, exchange: str, depth: int, connections: int
) -> None:
    """The load checks one exchange of every connection itself, and counts bytes of the others."""
    port = str(free_port())
    serve = ["--engine", engine, "--service", service, *(["--sleep"] if sleep else []), "127.0.0.1", port]
    with Program([PROGRAMS / "hybrid-bench-peer", *serve]) as peer:
        ask = ["--case", exchange, "--depth", str(depth), "--connections", str(connections)]
        where = ["--server", str(peer.pid), "--server-core", "0", "127.0.0.1", port]
        with Program([PROGRAMS / "hybrid-bench-load", *ask, *where]) as load:
            for _ in range(2):  # the second finds the connections of the first gone
                answer = load.round(count=60, warmup=0)
                assert len(answer["requests"]) == len(answer["ns"]) == len(answer["cpu_ns"]) == 3
                assert sum(answer["requests"]) > 0
                assert sum(answer["requests"]) % depth == 0


def test_a_server_that_answers_something_else_ends_the_load_with_a_sentence(engine: str) -> None:
    port = str(free_port())
    serve = ["--engine", engine, "--service", "echo", "127.0.0.1", port]
    with Program([PROGRAMS / "hybrid-bench-peer", *serve]) as peer:
        asked = ["--case", "kv-get", "--server", str(peer.pid), "--server-core", "0", "127.0.0.1", port]
        done = subprocess.run(
            [PROGRAMS / "hybrid-bench-load", *asked],
            input="20 0\n",
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert "the server answered something else" in done.stderr
