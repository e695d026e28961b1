"""``hybrid bench stack`` from its command line: both stacks, tiny numbers, never a time asserted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybrid.bench import stack
from hybrid.bench.turns import Program
from hybrid.cli import app
from hybrid.cli.session import Session
from hybrid.errors import UnsupportedError

CASES = {"rx-64", "echo-64", "rx-64-burst-32", "echo-64-burst-32"}

needs_lwip = pytest.mark.skipif(
    not (stack.PROGRAMS / stack.SUBJECTS["lwip"]).exists(), reason="built without liblwip-dev, the peer"
)


@needs_lwip
def test_stdout_is_one_json_object_with_every_case_and_both_subjects(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the optional extra `plot` is not installed")
    picture = tmp_path / "cdf.png"
    command = [
        "bench",
        "stack",
        "--rounds",
        "2",
        "--batches",
        "3",
        "--output",
        "json",
        "--plot",
        str(picture),
    ]
    done = CliRunner().invoke(app, command, obj=Session(environ={}))
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert list(made) == ["bench", "machine", "rows", "ratios"]
    assert made["bench"] == "stack"
    assert {(row["case"], row["subject"]) for row in made["rows"]} == {
        (case, subject) for case in CASES for subject in ("hybrid", "lwip")
    }
    assert all(row["unit"] == "ns" and row["n"] == 6 for row in made["rows"])
    assert all(0 < row["p50"] <= row["p99"] <= row["p999"] for row in made["rows"])
    assert {(r["case"], r["subject"], r["versus"]) for r in made["ratios"]} == {
        (case, "hybrid", "lwip") for case in CASES
    }
    assert picture.stat().st_size > 0


@needs_lwip
def test_the_table_shows_every_ratio_beside_its_aim() -> None:
    done = CliRunner().invoke(
        app, ["bench", "stack", "--rounds", "1", "--batches", "1"], obj=Session(environ={})
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.count("hybrid / lwip") == len(CASES)
    assert done.stdout.count("<= 0.25") == len(CASES)


@needs_lwip
@pytest.mark.parametrize("name", ["hybrid", "lwip"])
@pytest.mark.parametrize("case", stack.CASES, ids=lambda case: case.name)
def test_a_stack_answers_what_it_is_asked_to(name: str, case: stack.Case) -> None:
    """The programs check every batch themselves: bytes read by the application, and bytes sent back."""
    with Program([stack.find_programs()[name], *case.arguments()]) as program:
        answer = program.round(count=50, warmup=0)
    assert len(answer["ns"]) == len(answer["empty_ns"]) == 50
    if case.echo:  # each request has one reply, which carries the acknowledgement
        assert answer["frames_out_per_op"] == pytest.approx(1.0, abs=0.02)
    else:
        assert answer["frames_out_per_op"] <= 1.0


@needs_lwip
@pytest.mark.parametrize("name", ["hybrid", "lwip"])
def test_both_stacks_pay_for_verifying_checksums(name: str) -> None:
    """Or the comparison would be unfair: neither reads a segment with one bit turned over."""
    program = stack.find_programs()[name]
    done = subprocess.run([program, "--spoil", "--ops", "64"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"the application over {name} read 0 bytes of 4096" in done.stderr


@needs_lwip
def test_instructions_are_counted_inside_the_measured_loop_only() -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    case = stack.CASES[0]
    once, again = (stack.instructions_per_op(stack.find_programs()["lwip"], case) for _ in range(2))
    assert once > 100
    assert once == pytest.approx(again, rel=0.02)


def test_a_missing_peer_is_a_sentence_that_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        stack.find_programs(tmp_path)
    assert caught.value.remedy is not None and "liblwip-dev" in caught.value.remedy


@pytest.mark.parametrize(
    "orders", ["0 0", "x", "1", "-1 0", "99999999 0"], ids=["zero", "word", "short", "negative", "huge"]
)
@needs_lwip
def test_a_program_refuses_a_round_that_makes_no_sense(orders: str) -> None:
    program = stack.find_programs()["lwip"]
    done = subprocess.run([program], input=orders + "\n", capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "expected" in done.stderr
