"""Our stack on DPDK ports against the kernel's, both ways: every driver that this host can have."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.dpdk.ports import KINDS, DpdkApp
from tests.netns.peers import MIB, Meet, Received, random_bytes

pytestmark = pytest.mark.netns


@pytest.fixture(params=KINDS)
def app(request: pytest.FixtureRequest, dpdk_apps: Callable[[str], DpdkApp]) -> DpdkApp:
    return dpdk_apps(request.param)


@pytest.mark.parametrize("size", [1, MIB, 64 * MIB])
def test_what_the_kernel_sends_arrives(app: DpdkApp, meet: Meet, family: int, size: int) -> None:
    data = random_bytes(size)
    peer, name = meet("take", family)
    with peer:
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
    assert app.result(name)["status"] == 0


@pytest.mark.parametrize("size", [1, MIB, 64 * MIB])
def test_what_we_send_arrives(app: DpdkApp, meet: Meet, family: int, size: int) -> None:
    peer, name = meet(f"send {size}", family)
    with peer:
        received = peer.read_all()
    ours = app.result(name)
    assert received == Received(size, ours["crc_out"])
    assert ours["status"] == 0


def test_both_ways_at_once(app: DpdkApp, meet: Meet) -> None:
    data = random_bytes(8 * MIB)
    peer, name = meet("echo")
    with peer:
        sender = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
        sender.start()
        assert peer.read_all() == Received.of(data)
        sender.join()
    assert app.result(name)["status"] == 0


def test_frames_are_moved_in_place_and_counted(app: DpdkApp, meet: Meet) -> None:
    before = app.stats()
    data = random_bytes(MIB)
    peer, name = meet("echo")
    with peer:
        sender = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
        sender.start()
        peer.read_all()
        sender.join()
    app.result(name)
    after = app.stats()
    gained = {key: after[key] - before[key] for key in before if isinstance(before[key], int)}
    assert gained["device_rx_bytes"] > MIB and gained["device_tx_bytes"] > MIB
    assert gained["device_rx_frames"] >= gained["tcp_in"] > 0
    assert gained["device_copied"] <= gained["tcp_retransmits"]
