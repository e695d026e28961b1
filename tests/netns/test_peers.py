"""Our stack against the kernel's, both ways: our server with its clients, our client with its servers.

Our side is ``peer_app.c``, an application on hybrid.h that does on each connection what it is told, started
by ``hybrid run`` on an AF_XDP socket; the kernel's side is Python's sockets in the other namespace.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hybrid.bpf import Counters
from hybrid.lab import Lab
from hybrid.launch.record import records as records_found
from tests.netns.peers import (
    APP,
    MIB,
    PORT,
    SILENT_PORT,
    App,
    BadWire,
    Listener,
    Peer,
    Received,
    Traffic,
    address,
    echo_many,
    random_bytes,
    until,
)

pytestmark = pytest.mark.netns

SIZES = [1, 1024, MIB, 64 * MIB]
SERVER = {4: "10.77.0.1", 6: "fd77::1"}
CLIENT = {4: "10.77.0.2", 6: "fd77::2"}


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """One of each kind, for as long as this file lasts."""
    if not APP.exists():
        pytest.skip(f"{APP} is not built (ninja -C build)")
    made: dict[tuple[str, int], App] = {}
    with ExitStack() as stack:

        def get(mode: str = "native", queues: int = 1) -> App:
            if (mode, queues) not in made:
                lab = stack.enter_context(Lab(f"peers-{mode}-{queues}", queues=queues))
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


def dial(app: App, order: str = "", family: int = 4, port: int = PORT) -> Peer:
    return Peer.dial(app.lab.client, SERVER[family], order, port)


class Called:
    """Our side has connected to a server of the kernel's, and does there what it was told."""

    def __init__(self, app: App, order: str, family: int = 4) -> None:
        with Listener(app.lab.client) as listener:
            self.name = app.connect(CLIENT[family], order, listener.port)
            self.peer = listener.accept()


@pytest.fixture(params=["our server", "our client"])
def meet(request: pytest.FixtureRequest, app: App) -> Callable[..., tuple[Peer, str]]:
    """A connection on which our side does what it is told: the kernel's end, and what our side calls it."""

    def make(order: str, family: int = 4) -> tuple[Peer, str]:
        if request.param == "our server":
            peer = dial(app, order, family)
            return peer, str(peer.port)
        called = Called(app, order, family)
        return called.peer, called.name

    return make


Meet = Callable[..., tuple[Peer, str]]

# ---- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_what_the_kernel_sends_arrives(app: App, meet: Meet, family: int, size: int) -> None:
    data = random_bytes(size)
    peer, name = meet("take", family)
    with peer:
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
    assert app.result(name)["status"] == 0


@pytest.mark.parametrize("size", SIZES)
def test_what_we_send_arrives(app: App, meet: Meet, family: int, size: int) -> None:
    peer, name = meet(f"send {size}", family)
    with peer:
        received = peer.read_all()
    ours = app.result(name)
    assert received == Received(size, ours["crc_out"])
    assert ours["status"] == 0


def test_both_ways_at_once(app: App, meet: Meet) -> None:
    data = random_bytes(8 * MIB)
    peer, name = meet("echo")
    with peer:
        sender = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
        sender.start()
        assert peer.read_all() == Received.of(data)
        sender.join()
    assert app.result(name)["status"] == 0


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


def resets(app: App) -> int:
    stats = app.stats()
    return stats["tcp_resets_in"] + stats["tcp_resets_out"]


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


# ---- what else a kernel may be like -------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "tcp_timestamps=0",
        "tcp_sack=0",
        "tcp_window_scaling=0",
        "tcp_timestamps=0 tcp_sack=0 tcp_window_scaling=0",
        "tcp_ecn=1",
        "tcp_congestion_control=reno",
    ],
)
def test_options_that_the_kernel_does_without(app: App, meet: Meet, setting: str) -> None:
    """In the client's namespace, of which these settings are a part."""
    changes = [f"net.ipv4.{change}" for change in setting.split()]
    keep = app.lab.client.run(["sysctl", *(change.split("=")[0] for change in changes)]).stdout
    app.lab.client.run(["sysctl", "-w", *changes])
    try:
        data = random_bytes(MIB)
        peer, name = meet("take")
        with peer:
            peer.send_all(data)
            peer.end()
            assert peer.answer() == Received.of(data)
        assert app.result(name)["status"] == 0
        peer, name = meet(f"send {MIB}")
        with peer:
            received = peer.read_all()
        assert received == Received(MIB, app.result(name)["crc_out"])
    finally:
        app.lab.client.run(["sysctl", "-w", *(line.replace(" ", "") for line in keep.splitlines())])


@pytest.mark.parametrize(
    ("option", "value"),
    [((socket.IPPROTO_TCP, socket.TCP_MAXSEG), mss) for mss in (88, 536, 1000)]
    + [((socket.SOL_SOCKET, socket.SO_RCVBUF), size) for size in (1, 4096, 20000)],
)
def test_small_segments_and_small_windows(app: App, option: tuple[int, int], value: int) -> None:
    size = 256 << 10
    with Peer(app.lab.client.call(lambda: socket.socket())) as peer:
        peer.sock.setsockopt(*option, value)
        peer.sock.connect((SERVER[4], PORT))
        port = peer.sock.getsockname()[1]
        peer.send_all(f"send {size}\n".encode())
        received = peer.read_all()
    assert received == Received(size, app.result(port)["crc_out"])


def test_thousands_of_single_bytes(app: App, meet: Meet) -> None:
    data = random_bytes(5000)
    peer, name = meet("take")
    with peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(data)):
            peer.sock.send(data[at : at + 1])
        peer.end()
        assert peer.answer() == Received.of(data)
    assert app.result(name)["status"] == 0


def test_urgent_data_stays_in_its_place(app: App, meet: Meet) -> None:
    peer, name = meet("take")
    with peer:
        peer.send_all(b"before ")
        peer.sock.send(b"!", socket.MSG_OOB)
        peer.send_all(b" after")
        peer.end()
        assert peer.answer() == Received.of(b"before ! after")
    assert app.result(name)["status"] == 0


def test_both_close_at_once(app: App, meet: Meet) -> None:
    before = resets(app)
    for _ in range(50):
        peer, name = meet("half")
        with peer:
            peer.end()
            assert peer.read_all().count == 0
        assert app.result(name)["status"] == 0
    assert resets(app) == before


def test_a_client_comes_back_from_the_port_that_we_keep_in_time_wait(app: App, family: int) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    port = 0
    for _ in range(5):
        with Peer(app.lab.client.call(lambda: socket.socket(kind))) as peer:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            peer.sock.bind((CLIENT[family], port))
            port = peer.sock.getsockname()[1]
            # Until our last ACK has come, the kernel keeps the tuple to itself.
            until(lambda: peer.sock.connect_ex((SERVER[family], PORT)) == 0, "a free tuple")
            peer.send_all(b"send 3000\n")
            assert peer.read_all().count == 3000
        assert app.result(port)["status"] == 0


def test_two_thousand_connections_one_after_another(app: App) -> None:
    with Listener(app.lab.client) as listener:
        for i in range(2000):
            if i % 2:
                peer = dial(app, "echo")
                name = str(peer.port)
            else:
                name = app.connect(CLIENT[4], "echo", listener.port)
                peer = listener.accept()
            with peer:
                peer.send_all(b"hello")
                peer.end()
                assert peer.read_all().count == 5
            assert app.result(name)["status"] == 0


def test_a_peer_behind_a_router_and_an_address_that_came_later(app: App) -> None:
    far, late = "10.78.0.2", "10.77.0.50"
    app.lab.client.run(["ip", "addr", "add", f"{far}/32", "dev", "lo"])
    app.side.run(["ip", "route", "add", f"{far}/32", "via", CLIENT[4]])
    app.side.run(["ip", "addr", "add", f"{late}/24", "dev", app.side.interface])

    def meets() -> bool:
        with Peer(app.lab.client.call(lambda: socket.socket())) as peer:
            peer.sock.bind((far, 0))
            try:
                peer.sock.settimeout(1)
                peer.sock.connect((late, PORT))
            except OSError:
                return False
            peer.sock.settimeout(60)
            peer.send_all(b"echo\n" + b"x" * 100_000)
            peer.end()
            return peer.read_all() == Received.of(b"x" * 100_000)

    until(meets, "a connection between them")


def test_a_peer_whose_ethernet_address_changes(app: App) -> None:
    with dial(app, "echo") as peer:
        peer.send_all(b"before")
        assert peer.sock.recv(64) == b"before"
        changed = [
            "ip",
            "link",
            "set",
            app.lab.client.interface,
            "address",
            f"02:00:00:00:{os.getpid() % 256:02x}:01",
        ]
        app.lab.client.run(changed)
        peer.send_all(b"after")
        assert peer.sock.recv(64) == b"after"
        peer.end()
        assert peer.read_all().count == 0


def test_addresses_of_the_link_alone(app: App) -> None:
    """fe80::/10, whose scope is in the socket address and not in the packet."""
    shown = app.side.run(
        ["ip", "-6", "-o", "addr", "show", "dev", app.side.interface, "scope", "link"]
    ).stdout
    ours = shown.split()[3].split("/")[0]
    data = random_bytes(MIB)
    with Peer(app.lab.client.call(lambda: socket.socket(socket.AF_INET6))) as peer:
        peer.sock.connect((ours, PORT, 0, app.lab.client.ifindex))
        sender = threading.Thread(target=lambda: (peer.send_all(b"echo\n" + data), peer.end()))
        sender.start()
        assert peer.read_all() == Received.of(data)
        sender.join()


def test_a_server_that_ends_resets_its_connections_and_gives_the_port_back(
    app_for: Callable[[Lab], App],
) -> None:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(f"peers-end-{os.getpid()}"))
        app = app_for(lab)
        peers = [stack.enter_context(dial(app, "take")) for _ in range(50)]
        peers += [stack.enter_context(dial(app, f"send {8 * MIB}")) for _ in range(20)]
        assert app.stop() == 0
        for peer in peers:
            with pytest.raises(ConnectionResetError):
                peer.read_all()
        assert refused(lab)
        assert app.in_service() == []
        assert leftovers(app.launcher.pid) == []
        app.start()
        with dial(app, "echo") as peer:
            assert echo_many([peer.sock], random_bytes(1000)) == 1


# ---- memory -----------------------------------------------------------------------------------------------


def test_readers_that_sleep_cannot_use_up_the_memory_of_the_others(app: App) -> None:
    """Forty connections could hold more than all frames. One more is served all the same, and then they are."""
    data = random_bytes(2 * MIB)
    with ExitStack() as stack:
        peers = [stack.enter_context(dial(app, "stall")) for _ in range(40)]
        senders = [
            threading.Thread(target=lambda peer=peer: (peer.send_all(data), peer.end())) for peer in peers
        ]
        for sender in senders:
            sender.start()
        until(lambda: all(peer.probing() or peer.waiting() for peer in peers), "every sender held back")
        with dial(app, "echo") as one:
            assert echo_many([one.sock], random_bytes(4096)) == 1
        app.order("resume")
        for sender in senders:
            sender.join()
        assert all(peer.answer() == Received.of(data) for peer in peers)


def test_clients_that_do_not_read_cannot_use_up_the_memory_of_the_others(app: App) -> None:
    size = 2 * MIB
    probes = app.stats()["tcp_probes"]
    with ExitStack() as stack:
        peers = [stack.enter_context(dial(app, f"send {size}")) for _ in range(60)]
        until(lambda: app.stats()["tcp_probes"] > probes + 20, "closed windows")
        with dial(app, "echo") as one:
            assert echo_many([one.sock], random_bytes(65536)) == 1
        received = [peer.read_all() for peer in peers]
    assert received == [Received(size, app.result(peer.port)["crc_out"]) for peer in peers]


# ---- several queues, both modes ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_one_program_serves_every_queue(apps: Callable[..., App], mode: str) -> None:
    app = apps(mode, queues=2)
    assert app.mode == mode
    assert app.in_service() == [0, 1]
    data = random_bytes(16 * MIB)
    with dial(app, "take") as peer:
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
    with dial(app, f"send {16 * MIB}", 6) as peer:
        received = peer.read_all()
    assert received == Received(16 * MIB, app.result(peer.port)["crc_out"])
    with ExitStack() as stack:
        peers = [stack.enter_context(dial(app, "echo", family)) for family in (4, 6) * 50]
        assert echo_many([peer.sock for peer in peers], random_bytes(32768)) == 100
        listener = stack.enter_context(Listener(app.lab.client))
        for _ in range(100):
            app.connect(CLIENT[4], "echo", listener.port)
        called = [stack.enter_context(listener.accept()) for _ in range(100)]
        assert echo_many([peer.sock for peer in called], random_bytes(32768)) == 100
    if mode == "native":
        shown = app.side.run(["ethtool", "-S", app.side.interface]).stdout
        for queue in (0, 1):
            counts = [
                int(line.split()[1]) for line in shown.splitlines() if f"rx_queue_{queue}_xdp_pack" in line
            ]
            assert counts[0] > 100, shown
    check_statistics(app)


# ---- a server that is killed -------------------------------------------------------------------------


def refused(lab: Lab) -> bool:
    try:
        Peer.dial(lab.client, SERVER[4]).close()
    except ConnectionRefusedError:
        return True
    return False


def load(app: App, stack: ExitStack) -> list[threading.Thread]:
    """Eight clients that send until they are stopped by an error."""

    def send(peer: Peer) -> None:
        try:
            while True:
                peer.send_all(random_bytes(65536))
        except OSError:
            peer.close()

    threads = [threading.Thread(target=send, args=(dial(app, "take"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
        stack.callback(thread.join, 60)
    return threads


def leftovers(launcher: int) -> list[Path]:
    return sorted(Path("/run/hybrid/shards").glob(f"{launcher}-*"))


def test_kill_9_under_load_leaves_the_kernels_traffic_alone_and_the_port_to_the_kernel(
    app_for: Callable[[Lab], App],
) -> None:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(f"peers-kill-{os.getpid()}"))
        app = app_for(lab)
        traffic = Traffic(lab)
        loaders = load(app, stack)
        frames = app.stats()["device_rx_frames"]
        until(lambda: app.stats()["device_rx_frames"] > frames + 10_000, "a load")
        traffic.wait_for_more()

        assert leftovers(app.launcher.pid)
        os.kill(app.pid, signal.SIGKILL)
        assert app.launcher.wait(60) == 128 + signal.SIGKILL
        app.drop()
        assert leftovers(app.launcher.pid) == []
        assert app.in_service() == []
        assert refused(lab)
        for thread in loaders:
            thread.join(60)
            assert not thread.is_alive()
        with (
            Listener(lab.server, PORT) as listener,
            Peer.dial(lab.client, SERVER[4]) as client,
            listener.accept() as server,
        ):
            server.send_all(b"by the kernel")
            server.end()
            assert client.sock.recv(64) == b"by the kernel"
        traffic.wait_for_more()

        app.start()
        loaders = load(app, stack)
        until(lambda: app.stats()["device_rx_frames"] > 10_000, "a load again")
        os.kill(app.launcher.pid, signal.SIGKILL)
        app.drop()
        # Nobody was left to give the queue back but the kernel.
        until(lambda: app.in_service() == [], "an empty map")
        assert refused(lab)
        killed = app.launcher.pid
        app.start()
        with dial(app, "echo") as peer:
            assert echo_many([peer.sock], random_bytes(MIB)) == 1
        traffic.wait_for_more()
        sent, answered = traffic.stop()
        assert traffic.failure is None
        assert sent == answered > 0
        records = {record.path: record.alive for record in records_found()}
        for path in leftovers(killed):
            assert not records.get(path, False), "a leftover can be told from a record in use"
            path.unlink()


# ---- statistics --------------------------------------------------------------------------------------


def check_statistics(app: App) -> None:
    """Each frame is accounted for, in the kernel's program and in ours."""

    def settled() -> tuple[dict[str, int], Counters] | None:
        before = app.counters()
        stats = app.stats()
        return (stats, before) if app.counters() == before and app.stats()["polls"] else None

    stats, counters = until(settled, "a moment without traffic")
    redirected = counters.reason("redirected")
    assert redirected.packets == stats["device_rx_frames"] + stats["device_rx_dropped"]
    if stats["device_rx_dropped"] == 0:
        assert redirected.bytes == stats["device_rx_bytes"]
    assert redirected.packets == sum(rule.hit.packets - rule.no_socket.packets for rule in counters.rules)
    assert stats["device_rx_frames"] == stats["ip_in"] + stats["drop_mac"]
    assert stats["ip_in"] == stats["tcp_in"] + stats["udp_in"]
    assert stats["device_tx_frames"] + stats["drop_neighbour"] == stats["tcp_out"] + stats["udp_out"]
    for reason in ("drop_checksum", "drop_tcp_header", "drop_ip_header", "drop_short", "device_tx_invalid"):
        assert stats[reason] == 0, reason


def test_statistics_add_up(app: App) -> None:
    with dial(app, "echo") as peer:
        peer.send_all(random_bytes(MIB))
        peer.end()
        peer.read_all()
    app.result(peer.port)
    check_statistics(app)
