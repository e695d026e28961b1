"""The pairs of backends that every test of this folder runs on, and the result that the matrix is made of.

A test that asks for ``pair`` or ``meet`` runs once for each pair of :func:`~tests.backends.harness.rows.pairs`;
with ``meet`` or ``role`` also as server and as client. Both ends are started once for all tests of a pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.harness.agent import AGENT
from tests.backends.harness.meeting import Meet, Meeting
from tests.backends.harness.rows import ROOMY, TIGHT, Config, Pair, pairs


def group_of(path: Path) -> str:
    return path.stem.removeprefix("test_")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each pair that its file is for."""
    if "pair" not in metafunc.fixturenames:
        return
    group = group_of(metafunc.definition.path)
    chosen = [pair for pair in pairs() if pair.groups is None or group in pair.groups]
    metafunc.parametrize("pair", chosen, ids=[pair.name for pair in chosen], scope="session", indirect=True)


_serial = itertools.count()


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
    """The limits of our ends; a file may have others."""
    return ROOMY


@pytest.fixture
def tight() -> Config:
    return TIGHT


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
