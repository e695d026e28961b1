"""Our stack on DPDK ports against the kernel's, both ways: every driver that this host can have."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.dpdk.ports import KINDS, DpdkApp
from tests.netns.conversations import both_ways, echoed, kernel_sends, we_send
from tests.netns.peers import MIB, Meet, random_bytes

pytestmark = pytest.mark.netns


@pytest.fixture(params=KINDS)
def app(request: pytest.FixtureRequest, dpdk_apps: Callable[[str], DpdkApp]) -> DpdkApp:
    return dpdk_apps(request.param)


@pytest.mark.parametrize("size", [1, MIB, 64 * MIB])
def test_what_the_kernel_sends_arrives(app: DpdkApp, meet: Meet, family: int, size: int) -> None:
    kernel_sends(app, meet, family, size)


@pytest.mark.parametrize("size", [1, MIB, 64 * MIB])
def test_what_we_send_arrives(app: DpdkApp, meet: Meet, family: int, size: int) -> None:
    we_send(app, meet, family, size)


def test_both_ways_at_once(app: DpdkApp, meet: Meet) -> None:
    both_ways(app, meet, 8 * MIB)


def test_frames_are_moved_in_place_and_counted(app: DpdkApp, meet: Meet) -> None:
    before = app.stats()
    peer, name = meet("echo")
    with peer:
        echoed(peer, random_bytes(MIB))
    app.result(name)
    after = app.stats()
    gained = {key: after[key] - before[key] for key in before if isinstance(before[key], int)}
    assert gained["device_rx_bytes"] > MIB and gained["device_tx_bytes"] > MIB
    assert gained["device_rx_frames"] >= gained["tcp_in"] > 0
    assert gained["device_copied"] <= gained["tcp_retransmits"]


def test_checksums_are_left_to_a_port_that_completes_them(app: DpdkApp, meet: Meet, family: int) -> None:
    before = app.stats()["checksums_left"]
    we_send(app, meet, family, MIB)
    left = app.stats()["checksums_left"] - before
    assert (left > 0) == (app.obtained["tx_checksum"] == 1)
