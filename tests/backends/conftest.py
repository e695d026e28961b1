"""The pairs of backends that every test of this folder runs on.

A test that asks for ``pair``, ``talk`` or ``meet`` runs once for each pair of
:func:`~tests.backends.harness.rows.pairs`; with ``role`` or ``meet`` also as server and as client. Both ends
are started once for all tests of a pair. What came of it is written down for ``tools/matrix.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.backends.harness.agent import AGENT, BUILD
from tests.backends.harness.meeting import Meet, Meeting
from tests.backends.harness.result import Recorder
from tests.backends.harness.rows import ROOMY, Config, Pair, pairs

_serial = itertools.count()


def group_of(path: Path) -> str:
    """A file is a column of the matrix."""
    return path.stem.removeprefix("test_")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each pair that its file is for."""
    if "pair" in metafunc.fixturenames:
        group = group_of(metafunc.definition.path)
        chosen = [
            pytest.param(pair, id=pair.name, marks=pytest.mark.netns) for pair in pairs() if pair.does(group)
        ]
        metafunc.parametrize("pair", chosen, scope="session", indirect=True)


# ---- the result --------------------------------------------------------------------------------------

recorder = Recorder(BUILD / "backends-matrix.json")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which cell of the matrix each test belongs to."""
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and isinstance(pair := call.params.get("pair"), Pair):
            recorder.expect(item.nodeid, pair, group_of(item.path))


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    recorder.leave_out([item.nodeid for item in items])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    recorder.note(report.nodeid, report.when, report.outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A row that did not run is no row that passed."""
    if recorder.complete and recorder.silent:
        terminalreporter.section("backends that should have run and did not")
        for cell in recorder.silent:
            terminalreporter.line(cell)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The result of a whole run is kept."""
    if not recorder.complete:
        return
    recorder.write()
    if recorder.silent and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# ---- the ends ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meeting]:
    """Two ends on a wire of their own, for all tests of the pair."""
    assert AGENT.exists(), f"{AGENT} is not built: ninja -C build"
    which: Pair = request.param
    with Meeting(which, next(_serial), tmp_path_factory.mktemp(which.name)) as meeting:
        yield meeting


@pytest.fixture(params=["server", "client"])
def role(request: pytest.FixtureRequest) -> str:
    """Which of the two our end is."""
    return str(request.param)


@pytest.fixture
def config() -> Config:
    """The limits of our end; a file may have others."""
    return ROOMY


@pytest.fixture
def talk(pair: Meeting, config: Config) -> Iterator[Meeting]:
    """Both ends, running; whatever a test leaves open is closed after it."""
    pair.start(config)
    yield pair
    pair.tidy()


@pytest.fixture
def meet(talk: Meeting, role: str) -> Meet:
    """``meet()``: our socket and theirs, connected; who is the server, the role says."""
    return lambda family=4: talk.meet(role, family)
