"""An MTU that no frame holds, against the kernel: streams and datagrams in packets of several frames."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from hybrid.lab import Lab
from tests.netns.conftest import Cli
from tests.netns.peers import APP, MIB, PORT, SERVER, App, Peer, Received, dial, random_bytes, until

pytestmark = pytest.mark.netns

JUMBO = 9000
ETH_P_IP = 0x0800


@pytest.fixture(scope="module", params=["native", "generic"])
def jumbo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    if not APP.exists():
        pytest.skip(f"{APP} is not built (ninja -C build)")
    with Lab(f"jumbo-{os.getpid()}-{request.param}", mtu=JUMBO) as lab:
        app = App(lab, tmp_path_factory.mktemp("jumbo") / "log", request.param)
        yield app
        app.stop()
        app.detach()


def test_the_program_attaches_to_an_interface_whose_frames_are_larger_than_a_buffer(jumbo: App) -> None:
    with jumbo.steering() as steering:
        assert steering.obtained.fragments
        assert str(steering.obtained.mode) == jumbo.mode


def test_64_mib_from_the_kernel(jumbo: App, family: int) -> None:
    data = random_bytes(64 * MIB)
    before = jumbo.stats()
    with dial(jumbo, "take", family) as peer:
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
    after = jumbo.stats()
    # Segments of the whole MTU, or nearly all of them: at 1448 bytes each there would be 46,000.
    assert after["tcp_in"] - before["tcp_in"] < 64 * MIB // 4000
    assert after["drop_checksum"] == before["drop_checksum"]


def test_64_mib_to_the_kernel_without_a_copy(jumbo: App, family: int) -> None:
    before = jumbo.stats()
    with dial(jumbo, f"send {64 * MIB}", family) as peer:
        port = peer.port
        received = peer.read_all()
    ours = jumbo.result(port)
    assert received == Received(64 * MIB, ours["crc_out"])
    after = jumbo.stats()
    assert after["tcp_out_chained"] - before["tcp_out_chained"] > 64 * MIB // JUMBO // 2
    retransmitted = after["tcp_retransmits"] - before["tcp_retransmits"]
    copied = after["tcp_out_copied_bytes"] - before["tcp_out_copied_bytes"]
    assert copied < MIB + retransmitted * JUMBO
    assert after["device_tx_invalid"] == 0


@pytest.mark.parametrize("size", [1, 1471, 1857, 4000, JUMBO - 28])
def test_a_datagram_comes_back_whole(jumbo: App, size: int) -> None:
    data = random_bytes(size)
    with jumbo.lab.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(30)
        sock.sendto(data, (SERVER[4], PORT))
        assert sock.recv(65536) == data


def test_every_checksum_on_the_wire_is_right(jumbo: App) -> None:
    """As a capture sees it: what the kernel accepts need not have been looked at."""
    client = jumbo.lab.client
    capture = client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)))
    with capture:
        capture.bind((client.interface, ETH_P_IP))
        capture.setsockopt(socket.SOL_SOCKET, 33, 64 * MIB)  # SO_RCVBUFFORCE
        with dial(jumbo, f"send {MIB}") as peer:
            port = peer.port
            assert peer.read_all().count == MIB
        jumbo.result(port)
        seen = large = 0
        while seen < MIB // JUMBO:
            capture.settimeout(30)
            frame = capture.recv(65536)
            segment = frame[34 : 14 + struct.unpack("!H", frame[16:18])[0]]
            if frame[23] != socket.IPPROTO_TCP or struct.unpack("!H", segment[:2])[0] != PORT:
                continue
            assert internet_sum(frame[26:34] + struct.pack("!HH", 6, len(segment)) + segment) == 0xFFFF
            seen += 1
            large += len(segment) > 2048
        assert large > 50


def internet_sum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_peer_with_a_smaller_segment_size_gets_its_own(jumbo: App) -> None:
    sock = jumbo.lab.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    before = jumbo.stats()["tcp_out_chained"]
    with Peer(sock) as peer:
        sock.connect((SERVER[4], PORT))
        peer.port = int(sock.getsockname()[1])
        sock.sendall(f"send {MIB}\n".encode())
        assert peer.read_all().count == MIB
    assert jumbo.result(peer.port)["status"] == 0
    assert jumbo.stats()["tcp_out_chained"] == before


def test_checksums_can_be_left_to_the_kernel(cli: Cli) -> None:
    """By policy, where it is on record what was requested and obtained."""
    cli.lab.mtu = JUMBO
    cli.lab.up()
    cli("apply", cli.policy("echo tcp 7", tx_checksum="true"))
    device = cli.start("serve", "echo").ready()["devices"][0]
    assert device["requested"]["tx_checksum"] and device["obtained"]["tx_checksum"]
    assert device["obtained"]["multi_buffer"] and device["obtained"]["packet_bytes_max"] > JUMBO
    assert "checksums left to the kernel (requested on)" in cli("status").stdout
    data = random_bytes(MIB)
    with Peer.dial(cli.client, SERVER[4], port=7) as peer:
        sender = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
        sender.start()
        assert peer.read_all() == Received.of(data)
        sender.join()
    seen = lambda: cli.json("status")["shards"][0]["stats"].get("checksums_left", 0)  # noqa: E731
    until(lambda: seen() > 50, "the checksums that were left")
