"""One application for each kind of device, for as long as a file's tests last, and connections with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hybrid.lab import Lab
from tests.netns.peers import Listener, Meet, Peer
from tests.uring.devices import FRAMES_APP, DeviceApp


@pytest.fixture(scope="module")
def device_apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DeviceApp]]:
    """``device_apps(kind, offload)``: made when first asked for."""
    if not FRAMES_APP.exists():
        pytest.skip(f"{FRAMES_APP} is not built (ninja -C build)")
    made: dict[tuple[str, str], DeviceApp] = {}
    with ExitStack() as stack:

        def get(kind: str, offload: str = "auto") -> DeviceApp:
            if (kind, offload) not in made:
                lab = stack.enter_context(Lab(f"frames-{os.getpid()}-{kind}-{offload}"))
                made[kind, offload] = DeviceApp(lab, tmp_path_factory.mktemp("frames") / "log", kind, offload)
                stack.callback(made[kind, offload].leave)
            return made[kind, offload]

        yield get


@pytest.fixture
def device_app_for(tmp_path: Path) -> Iterator[Callable[..., DeviceApp]]:
    """In a lab of the test's own."""
    if not FRAMES_APP.exists():
        pytest.skip(f"{FRAMES_APP} is not built (ninja -C build)")
    made: list[DeviceApp] = []

    def make(lab: Lab, kind: str, **options: str) -> DeviceApp:
        made.append(DeviceApp(lab, tmp_path / f"log-{len(made)}", kind, **options))
        return made[-1]

    yield make
    for app in made:
        app.drop()


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=["our server", "our client"])
def meet(request: pytest.FixtureRequest, app: DeviceApp) -> Meet:
    """A connection on which our side does what it is told: the kernel's end, and what our side calls it."""

    def make(order: str, family: int = 4) -> tuple[Peer, str]:
        if request.param == "our server":
            peer = app.dial(order, family)
            return peer, str(peer.port)
        with Listener(app.peer) as listener:
            name = app.connect(app.ends.theirs[family], order, listener.port)
            return listener.accept(), name

    return make
