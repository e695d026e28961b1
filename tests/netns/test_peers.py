"""Our stack against the kernel's, both ways: our server with its clients, our client with its servers.

Our side is ``peer_app.c``, an application on hybrid.h that does on each connection what it is told, started
by ``hybrid run`` on an AF_XDP socket; the kernel's side is Python's sockets in the other namespace.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from hybrid.lab import Lab
from tests.netns.conversations import both_ways, kernel_sends, we_send
from tests.netns.peers import (
    CLIENT,
    MIB,
    PORT,
    SERVER,
    SILENT_PORT,
    App,
    BadWire,
    Listener,
    Meet,
    Peer,
    Received,
    address,
    dial,
    echo_many,
    random_bytes,
    resets,
    until,
)

pytestmark = pytest.mark.netns

SIZES = [1, 1024, MIB, 64 * MIB]


# ---- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_what_the_kernel_sends_arrives(app: App, meet: Meet, family: int, size: int) -> None:
    kernel_sends(app, meet, family, size)


@pytest.mark.parametrize("size", SIZES)
def test_what_we_send_arrives(app: App, meet: Meet, family: int, size: int) -> None:
    we_send(app, meet, family, size)


def test_both_ways_at_once(app: App, meet: Meet) -> None:
    both_ways(app, meet, 8 * MIB)


def test_two_hundred_connections_at_once_to_our_server(app: App, family: int) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(dial(app, "echo", family)) for _ in range(200)]
        ports = [peer.port for peer in peers]
        assert echo_many([peer.sock for peer in peers], random_bytes(32768)) == 200
    assert all(app.result(port)["status"] == 0 for port in ports)


def test_two_hundred_connections_at_once_from_our_client(app: App, family: int) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(Listener(app.lab.client))
        names = [app.connect(CLIENT[family], "echo", listener.port) for _ in range(200)]
        peers = [stack.enter_context(listener.accept()) for _ in names]
        assert len({peer.sock.getpeername()[1] for peer in peers}) == 200
        assert echo_many([peer.sock for peer in peers], random_bytes(32768)) == 200
    assert all(app.result(name)["status"] == 0 for name in names)


# ---- the end ---------------------------------------------------------------------------------------


def test_we_close_first_and_nobody_resets(app: App, meet: Meet) -> None:
    before = resets(app)
    peer, name = meet("send 100000")
    with peer:
        assert peer.read_all().count == 100000
    assert app.result(name)["status"] == 0
    assert resets(app) == before


def test_the_peer_closes_first_and_nobody_resets(app: App, meet: Meet) -> None:
    before = resets(app)
    peer, name = meet("echo")
    with peer:
        peer.send_all(b"x" * 1000)
        peer.end()
        assert peer.read_all().count == 1000
    assert app.result(name)["status"] == 0
    assert resets(app) == before


def test_what_was_pushed_before_a_close_arrives(app: App, meet: Meet) -> None:
    peer, name = meet("leave 300000")
    with peer:
        received = peer.read_all()
    assert received == Received(300000, app.result(name)["crc_out"])


def test_the_peer_has_ended_and_we_go_on_sending(app: App, meet: Meet) -> None:
    peer, name = meet(f"send {4 * MIB}")
    with peer:
        peer.end()
        assert peer.read_all() == Received(4 * MIB, app.result(name)["crc_out"])


def test_we_have_ended_and_the_peer_goes_on_sending(app: App, meet: Meet) -> None:
    data = random_bytes(4 * MIB)
    peer, name = meet("half")
    with peer:
        assert peer.read_all().count == 0
        peer.send_all(data)
        peer.end()
        ours = app.result(name)
    assert (ours["status"], Received(ours["received"], ours["crc_in"])) == (0, Received.of(data))


def test_a_reset_by_the_peer_is_told(app: App, meet: Meet) -> None:
    peer, name = meet("take")
    peer.send_all(b"x")
    peer.reset()
    assert app.result(name)["status"] == -errno.ECONNRESET


def test_a_reset_by_us_is_seen_by_the_peer(app: App, meet: Meet) -> None:
    peer, name = meet("abort 1000")
    with peer:
        peer.send_all(b"x" * 1000)
        with pytest.raises(ConnectionResetError):
            peer.read_all()
    assert app.result(name)["status"] == 0


KILLED = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.sendall(sys.argv[3].encode() + b"\\n")
print(sock.getsockname()[1], sock.recv(1), flush=True)
sys.stdin.read()
"""


def test_a_peer_that_is_killed_while_we_send_ends_the_connection(app: App) -> None:
    command = [sys.executable, "-c", KILLED, SERVER[4], str(PORT), f"send {16 * MIB}"]
    process = app.lab.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    port = process.stdout.readline().split()[0]
    process.kill()
    ours = app.result(port)
    assert ours["status"] in (-errno.ECONNRESET, -errno.EPIPE)
    assert ours["sent"] < 16 * MIB
    process.wait()


def test_a_port_of_ours_that_nobody_listens_on_refuses(app: App, family: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        dial(app, family=family, port=SILENT_PORT)


def test_a_port_of_the_kernels_that_nobody_listens_on_refuses_us(app: App, family: int) -> None:
    with Listener(app.lab.client) as listener:
        port = listener.port
    name = app.connect(CLIENT[family], "take", port)
    assert app.result(name)["status"] == -errno.ECONNREFUSED


def test_connecting_to_a_host_that_is_not_there_can_be_given_up(app: App) -> None:
    name = app.connect("10.77.0.99", "take", 9)
    before = app.stats()["neighbour_requests"]
    until(lambda: app.stats()["neighbour_requests"] > before, "asking for the neighbour again")
    app.order("abort", name)
    assert app.result(name)["status"] == -errno.ECANCELED


# ---- flow control ------------------------------------------------------------------------------------


def test_a_peer_that_reads_nothing_closes_its_window_and_opens_it_again(app: App, meet: Meet) -> None:
    size = 8 * MIB
    probes = app.stats()["tcp_probes"]
    peer, name = meet(f"send {size}")
    with peer:
        until(lambda: app.stats()["tcp_probes"] > probes, "a probe of the closed window")
        received = peer.read_all()
    ours = app.result(name)
    assert (ours["status"], received) == (0, Received(size, ours["crc_out"]))


def test_we_read_nothing_and_the_peer_waits_until_we_do(app: App, meet: Meet) -> None:
    data = random_bytes(8 * MIB)
    peer, name = meet("stall")
    with peer:
        sender = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
        sender.start()
        until(peer.probing, "a probe of our closed window")
        assert sender.is_alive()
        app.order("resume")
        sender.join()
        assert peer.answer() == Received.of(data)
    assert app.result(name)["status"] == 0


def test_an_echo_whose_client_does_not_read_holds_back_and_loses_nothing(app: App, meet: Meet) -> None:
    data = random_bytes(16 * MIB)
    peer, name = meet("echo")
    with peer:
        sender = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
        sender.start()
        until(peer.probing, "back-pressure as far as the sender")
        assert peer.read_all() == Received.of(data)
        sender.join()
    assert app.result(name)["status"] == 0


# ---- datagrams ---------------------------------------------------------------------------------------


def test_datagrams_from_the_kernel_are_echoed(app: App, family: int) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with app.lab.client.call(lambda: socket.socket(kind, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(30)
        sock.connect((SERVER[family], PORT))
        for size in [1, 2, 63, 64, 500, 1400, 1452, *range(1, 1400, 97)]:
            data = random.Random(size).randbytes(size)
            sock.send(data)
            assert sock.recv(2048) == data


def test_datagrams_from_us_are_echoed_by_the_kernel(app: App, family: int) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with app.lab.client.call(lambda: socket.socket(kind, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(30)
        sock.bind((CLIENT[family], 0))
        name = app.name()
        app.order("datagrams", name, address(CLIENT[family], sock.getsockname()[1]), 100)
        for _ in range(100):
            data, sender = sock.recvfrom(2048)
            sock.sendto(data, sender)
    assert (ours := app.result(name))["status"] == 0
    assert ours["received"] == 100


# ---- a bad wire --------------------------------------------------------------------------------------


def test_what_the_peer_loses_is_sent_again(app: App, meet: Meet) -> None:
    before = app.stats()["tcp_retransmits"]
    peer, name = meet(f"send {4 * MIB}")
    with peer:
        peer.lose(per_mille=10)
        received = peer.read_all()
    assert received == Received(4 * MIB, app.result(name)["crc_out"])
    assert app.stats()["tcp_retransmits"] > before


def test_acknowledgements_that_are_lost_do_no_harm(app: App, meet: Meet) -> None:
    data = random_bytes(4 * MIB)
    peer, name = meet("take")
    with peer:
        peer.lose(per_mille=100)
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
    assert app.result(name)["status"] == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_transfers_complete_over_a_wire_that_loses_delays_and_doubles(
    app_for: Callable[[Lab], App], seed: int, family: int
) -> None:
    data = random_bytes(MIB)
    with ExitStack() as stack:
        app = app_for(stack.enter_context(Lab(f"peers-wire-{os.getpid()}")))
        wire = BadWire(app.lab, seed)
        stack.callback(wire.remove)
        with Peer.dial(wire.far, SERVER[family]) as peer, Peer.dial(wire.far, SERVER[family]) as other:
            wire.bad = True
            for way in (peer, other):
                way.send_all(b"take\n" if way is peer else b"send %d\n" % MIB)
            peer.send_all(data)
            peer.end()
            assert peer.answer() == Received.of(data)
            received = other.read_all()
        ours = app.result(other.port)
        assert received == Received(MIB, ours["crc_out"])
        stats = app.stats()
        assert wire.lost and wire.late and wire.doubled
        assert stats["tcp_out_of_order"] and stats["tcp_retransmits"] and stats["drop_duplicate"]


def test_a_peer_that_vanishes_is_waited_for_and_found_again(app: App, meet: Meet) -> None:
    peer, name = meet(f"wait {MIB}")
    link = ["ip", "link", "set", app.lab.client.interface]
    with peer:
        app.result(f"{name} waits")
        before = app.stats()["tcp_rto"]
        app.lab.client.run([*link, "down"])
        try:
            app.order("resume")
            until(lambda: app.stats()["tcp_rto"] >= before + 3, "the third attempt")
        finally:
            app.lab.client.run([*link, "up"])
            # Gone with the link: the kernel keeps IPv4 addresses only.
            network = str(app.lab.client.network6)
            app.lab.client.run(["ip", "addr", "add", network, "dev", app.lab.client.interface, "nodad"])
        received = peer.read_all()
    ours = app.result(name)
    assert (ours["status"], received) == (0, Received(MIB, ours["crc_out"]))
