"""The matrix of the README: what it is made of, that it is whole, and that a failure shows in it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.backends.harness.result import Recorder
from tests.backends.harness.rows import GROUPS, ROWS, pairs

TOP = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("matrix", TOP / "tools/matrix.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


matrix = load()


def table(text: str) -> list[list[str]]:
    """The cells of each line of the README's block."""
    block = matrix.BLOCK.search(text)
    assert block, "README.md has no matrix"
    lines = [line for line in block[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_test_file_is_a_column() -> None:
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert files - {"matrix", "several"} == set(GROUPS)


def test_the_readme_names_every_pair_and_every_group() -> None:
    header, _, *rows = table((TOP / "README.md").read_text())
    assert header == ["backend", "against", *GROUPS.values()]
    assert [(row[0], row[1]) for row in rows] == [(pair.us.name, pair.them.name) for pair in pairs()]


def test_the_readme_has_a_number_where_something_is_tested_and_only_there() -> None:
    _, _, *rows = table((TOP / "README.md").read_text())
    for pair, row in zip(pairs(), rows, strict=True):
        for group, cell in zip(GROUPS, row[2:], strict=True):
            assert bool(re.fullmatch(r"\d+(, \d+ (failed|skipped))*", cell)) == pair.does(group), (
                pair.name,
                group,
            )


def test_every_row_meets_the_kernel_or_itself() -> None:
    whole = {pair.us.name: pair.them.name for pair in pairs() if pair.groups is None}
    assert whole.keys() == {row.name for row in ROWS}
    assert all(them in ("kernel", us) for us, them in whole.items())


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """Of a run of which every test passed."""
    made = Recorder(tmp_path / "result.json")
    for pair in pairs():
        for group in filter(pair.does, GROUPS):
            for role in ("server", "client"):
                made.expect(f"{pair.name} {group} {role}", pair, group)
                for when in ("setup", "call", "teardown"):
                    made.note(f"{pair.name} {group} {role}", when, "passed")
    return made


def test_a_failure_shows(recorder: Recorder) -> None:
    first = pairs()[0]
    recorder.note(f"{first.name} many client", "teardown", "failed")
    recorder.note(f"{first.name} many server", "call", "failed")
    assert recorder.complete
    recorder.write()
    text = matrix.replace(
        "<!-- matrix: x -->\nold\n<!-- end of matrix -->",
        matrix.render(json.loads(recorder.path.read_text())),
    )
    header, _, row, *_ = table(text)
    assert row[header.index("many connections")] == "0, 2 failed"
    assert row[header.index("sizes")] == "2"


def test_what_was_skipped_is_named(recorder: Recorder) -> None:
    first = pairs()[0]
    recorder.note(f"{first.name} many client", "setup", "skipped")
    assert recorder.complete
    assert recorder.silent == [f"{first.us.name} against {first.them.name}: many"]


def test_a_part_of_a_run_is_no_result(recorder: Recorder) -> None:
    assert recorder.complete
    recorder.leave_out([f"{pairs()[0].name} many client"])
    assert not recorder.complete
