"""What every test may use: labs, the markers that say what a test needs, and a count of what was skipped.

``lab`` gives a fresh server and client namespace to one test; ``make_lab`` gives as many as asked
for, with other parameters. Both skip, with the reason, where namespaces cannot be made.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from hybrid.errors import PrivilegeError
from hybrid.lab import Lab

_NEEDS_ROOT = "needs root: network namespaces and XDP programs are privileged"

# What runs is what is installed: a Python that a test starts must not import the source tree it stands in.
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    config.addinivalue_line("markers", "root: needs root; skipped with the reason where there is none")
    config.addinivalue_line("markers", "netns: makes network namespaces of its own; needs root")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that cannot run here is skipped, and says why."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("netns"):
            item.add_marker(pytest.mark.skip(reason=_NEEDS_ROOT))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts what was skipped, by reason."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        where = report.longrepr
        reasons[str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("skipped, by reason")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5}  {reason}")


_serial = itertools.count()


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """``make_lab(queues=2)``: a lab that is up, with a name of its own; gone after the test."""
    with ExitStack() as stack:

        def make(**parameters: int) -> Lab:
            name = f"t{os.getpid()}-{next(_serial)}"
            try:
                return stack.enter_context(Lab(name, **parameters))
            except PrivilegeError as error:
                pytest.skip(f"{_NEEDS_ROOT} ({error.message})")

        yield make


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A server and a client namespace with one queue each; gone after the test."""
    return make_lab()
