"""The fixtures of the test_peers files: our program in a lab, and a connection with it in either role."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hybrid.lab import Lab
from tests.netns.peers import APP, CLIENT, App, Listener, Meet, Peer, dial


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """One of each kind, for as long as this file lasts."""
    if not APP.exists():
        pytest.skip(f"{APP} is not built (ninja -C build)")
    made: dict[tuple[str, int], App] = {}
    with ExitStack() as stack:

        def get(mode: str = "native", queues: int = 1) -> App:
            if (mode, queues) not in made:
                lab = stack.enter_context(Lab(f"peers-{os.getpid()}-{mode}-{queues}", queues=queues))
                log = tmp_path_factory.mktemp("peers") / "log"
                made[mode, queues] = App(lab, log, mode)
                stack.callback(made[mode, queues].detach)
                stack.callback(made[mode, queues].stop)
            return made[mode, queues]

        yield get


@pytest.fixture
def app_for(tmp_path: Path) -> Iterator[Callable[[Lab], App]]:
    """In a lab of the test's own, which ends it."""
    if not APP.exists():
        pytest.skip(f"{APP} is not built (ninja -C build)")
    made: list[App] = []

    def make(lab: Lab) -> App:
        made.append(App(lab, tmp_path / "log"))
        return made[-1]

    yield make
    for app in made:
        app.drop()


@pytest.fixture
def app(apps: Callable[..., App]) -> App:
    return apps()


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Called:
    """Our side has connected to a server of the kernel's, and does there what it was told."""

    def __init__(self, app: App, order: str, family: int = 4) -> None:
        with Listener(app.lab.client) as listener:
            self.name = app.connect(CLIENT[family], order, listener.port)
            self.peer = listener.accept()


@pytest.fixture(params=["our server", "our client"])
def meet(request: pytest.FixtureRequest, app: App) -> Meet:
    """A connection on which our side does what it is told: the kernel's end, and what our side calls it."""

    def make(order: str, family: int = 4) -> tuple[Peer, str]:
        if request.param == "our server":
            peer = dial(app, order, family)
            return peer, str(peer.port)
        called = Called(app, order, family)
        return called.peer, called.name

    return make
