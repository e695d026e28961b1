"""Our stack against the kernel's, over every device that io_uring moves frames for.

TAP in turn with what the kernel may leave to us (checksums, segmentation) and without; the packet
socket with addresses of its own and beside the kernel's stack. The veth pair has its offloads on, so
packets arrive merged and without checksums.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.netns.conversations import both_ways, kernel_sends, we_send
from tests.netns.peers import MIB, Meet, Received, random_bytes, resets
from tests.uring.devices import DeviceApp

pytestmark = pytest.mark.netns

KINDS = {
    "tap": ("tap", "auto"),
    "plain tap": ("tap", "no"),
    "own": ("own", "auto"),
    "shared": ("shared", "auto"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def app(request: pytest.FixtureRequest, device_apps: Callable[..., DeviceApp]) -> DeviceApp:
    return device_apps(*request.param)


@pytest.mark.parametrize("size", [1, 1024, 64 * MIB])
def test_what_the_kernel_sends_arrives(app: DeviceApp, meet: Meet, family: int, size: int) -> None:
    kernel_sends(app, meet, family, size)


@pytest.mark.parametrize("size", [1, 1024, 64 * MIB])
def test_what_we_send_arrives(app: DeviceApp, meet: Meet, family: int, size: int) -> None:
    we_send(app, meet, family, size)


def test_both_ways_at_once(app: DeviceApp, meet: Meet) -> None:
    both_ways(app, meet, 8 * MIB)


def test_datagrams_come_back(app: DeviceApp, family: int) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with app.peer.call(lambda: socket.socket(kind, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(30)
        sock.connect((app.ends.ours[family], 7000))
        for size in (1, 100, 1400):
            sock.send(random_bytes(size))
            assert sock.recv(2000) == random_bytes(size)


def test_nobody_resets(app: DeviceApp, meet: Meet) -> None:
    before = resets(app)
    peer, name = meet("send 100000")
    with peer:
        assert peer.read_all().count == 100000
    assert app.result(name)["status"] == 0
    assert resets(app) == before


def test_the_device_counts_what_it_moves(app: DeviceApp) -> None:
    before = app.stats()
    with app.dial("echo") as peer:
        peer.send_all(b"x" * 100_000)
        peer.end()
        assert peer.read_all().count == 100_000
    after = app.stats()
    grown = {name: after[name] - before[name] for name in after if name.startswith("device_")}
    assert grown["device_rx_bytes"] > 100_000 and grown["device_tx_bytes"] > 100_000
    assert grown["device_rx_frames"] >= 100_000 // 1448 and grown["device_tx_frames"] >= 100_000 // 1448
    assert grown["device_tx_errors"] == grown["device_tx_invalid"] == grown["device_rx_dropped"] == 0
    bad = [name for name in after if "drop" in name and "checksum" in name and after[name] != before[name]]
    assert bad == []
    left_to_the_device = after["checksums_left"] - before["checksums_left"]
    assert (left_to_the_device > 0) == (app.obtained["offload"] == 1)


def test_merged_packets_arrive_in_segments(app: DeviceApp, request: pytest.FixtureRequest) -> None:
    plain = "plain" in request.node.name
    sent_before, received_before = app.kernel_packets(), app.stats()["device_rx_frames"]
    with app.dial("take") as peer:
        data = random_bytes(MIB)
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
    sent = app.kernel_packets() - sent_before
    received = app.stats()["device_rx_frames"] - received_before
    assert received >= MIB // 1448
    assert plain or sent < received // 2
