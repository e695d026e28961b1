"""What a run becomes: percentiles, rows, ratios, the JSON object, the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.bench import plot
from hybrid.bench.machine import machine
from hybrid.bench.result import Aim, Result, Row, Samples, percentile
from hybrid.errors import UnsupportedError, UsageError


def result() -> Result:
    samples = [
        Samples.of("echo", "ours", "ns", [30.0, 10.0, 20.0]),
        Samples.of("echo", "theirs", "ns", [40.0, 40.0, 50.0]),
        Samples.of("echo", "ours", "instructions", [400.0]),
        Samples.of("alone", "ours", "ns", [1.0]),
    ]
    aims = [Aim("echo", "ours", "theirs", 0.25), Aim("alone", "ours", "theirs", 0.25)]
    return Result("demo", machine(), samples, aims)


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(50, 500.0), (99, 990.0), (99.9, 999.0), (100, 1000.0), (0.1, 1.0), (0.01, 1.0)],
)
def test_a_percentile_is_the_sample_of_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([float(i) for i in range(1, 1001)], percent) == expected


def test_the_median_of_an_even_number_of_samples_is_one_of_them() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=200), st.floats(0.1, 100))
def test_at_least_that_many_samples_do_not_exceed_a_percentile(values: list[float], percent: float) -> None:
    found = percentile(sorted(values), percent)
    assert found in values
    assert sum(v <= found for v in values) >= percent / 100 * len(values) - 1e-6


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentage_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        percentile([1.0], percent)


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_a_row_holds_percentiles_and_the_number_of_samples() -> None:
    row = result().rows()[0]
    assert row == Row(case="echo", subject="ours", unit="ns", p50=20.0, p99=30.0, p999=30.0, n=3)


def test_a_ratio_is_ours_over_the_peers_p50_and_needs_both() -> None:
    (ratio,) = result().ratios()
    assert (ratio.case, ratio.subject, ratio.versus, ratio.value) == ("echo", "ours", "theirs", 0.5)


def test_a_ratio_of_rates_is_of_the_unit_that_the_benchmark_is_about() -> None:
    samples = [
        Samples.of("echo", who, unit, [value])
        for who, unit, value in (
            ("ours", "requests/s", 100.0),
            ("theirs", "requests/s", 100.0),
            ("ours", "requests/cpu-s", 300.0),
            ("theirs", "requests/cpu-s", 200.0),
        )
    ]
    aims = [Aim("echo", "ours", "theirs", at_least=1.2)]
    made = Result("demo", machine(), samples, aims, headline=("requests/cpu-s",))
    assert [ratio.value for ratio in made.ratios()] == [1.5]


@pytest.mark.parametrize(
    ("aim", "value", "text", "verdict"),
    [
        (Aim("c", "a", "b", 0.7), 0.7, "<= 0.70", "met"),
        (Aim("c", "a", "b", 0.7), 0.71, "<= 0.70", "not met"),
        (Aim("c", "a", "b", at_least=1.2), 1.2, ">= 1.20", "met"),
        (Aim("c", "a", "b", at_least=1.2), 1.19, ">= 1.20", "not met"),
        (Aim("c", "a", "b"), 9.0, "", ""),
    ],
    ids=["at-most", "above", "at-least", "below", "nothing-aimed-at"],
)
def test_a_ratio_is_judged_by_its_aim(aim: Aim, value: float, text: str, verdict: str) -> None:
    assert (str(aim), aim.verdict(value)) == (text, verdict)


def test_the_json_object_has_exactly_the_agreed_members() -> None:
    made = json.loads(json.dumps(result().as_json()))
    assert list(made) == ["bench", "machine", "rows", "ratios"]
    assert {tuple(row) for row in made["rows"]} == {("case", "subject", "unit", "p50", "p99", "p999", "n")}
    assert {tuple(ratio) for ratio in made["ratios"]} == {("case", "subject", "versus", "value")}


def test_the_machine_is_described_and_not_named() -> None:
    facts = machine()
    assert list(facts) == ["kernel", "cpu", "cores", "clocksource", "hypervisor"]
    assert all(facts.values())
    assert Path("/proc/sys/kernel/hostname").read_text().strip() not in {str(v) for v in facts.values()}


def test_a_cdf_rises_from_the_smallest_sample_to_one_at_the_largest() -> None:
    xs, ys = plot.cdf([float(i) for i in range(10_000)], points=100)
    assert len(xs) == 100
    assert (xs[0], xs[-1], ys[-1]) == (0.0, 9999.0, 1.0)
    assert xs == sorted(xs)
    assert ys == sorted(ys)


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_cdf_is_drawn_to_a_file(tmp_path: Path, ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib", reason="the optional extra `plot` is not installed")
    path = tmp_path / f"cdf.{ending}"
    plot.draw(result(), path)
    assert path.read_bytes().startswith(magic)


def test_a_missing_matplotlib_is_one_sentence_and_a_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UnsupportedError) as caught:
        plot.check(tmp_path / "cdf.png")
    assert caught.value.message == "--plot needs matplotlib, which is not installed"
    assert caught.value.remedy is not None and "hybrid[plot]" in caught.value.remedy


@pytest.mark.parametrize("name", ["cdf.txt", "cdf", "nowhere/cdf.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_run(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib", reason="the optional extra `plot` is not installed")
    with pytest.raises(UsageError):
        plot.check(tmp_path / name)
