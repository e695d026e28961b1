"""One application for each kind of port, for as long as a file's tests last, and connections with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hybrid.lab import Lab
from tests.dpdk.ports import PLUGIN, DpdkApp
from tests.uring.conftest import family, meet  # noqa: F401


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of the build, as the programs are."""
    if not PLUGIN.exists():
        pytest.skip(f"{PLUGIN} is not built (libdpdk-dev is missing)")


@pytest.fixture(scope="module")
def dpdk_apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], DpdkApp]]:
    """``dpdk_apps(kind)``: made when first asked for."""
    made: dict[str, DpdkApp] = {}
    with ExitStack() as stack:

        def get(kind: str) -> DpdkApp:
            if kind not in made:
                lab = stack.enter_context(Lab(f"dpdk-{os.getpid()}-{kind}"))
                made[kind] = DpdkApp(lab, tmp_path_factory.mktemp("dpdk") / "log", kind)
                stack.callback(made[kind].leave)
            return made[kind]

        yield get


@pytest.fixture
def dpdk_app_for(tmp_path: Path) -> Iterator[Callable[..., DpdkApp]]:
    """In a lab of the test's own."""
    made: list[DpdkApp] = []

    def make(lab: Lab, kind: str, **options: Any) -> DpdkApp:
        made.append(DpdkApp(lab, tmp_path / f"log-{len(made)}", kind, **options))
        return made[-1]

    yield make
    for app in made:
        app.drop()
