"""What is particular to packet sockets: they stand beside the kernel, which must neither answer nor starve."""

from __future__ import annotations

import errno
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid.lab import Lab
from tests.netns.peers import PORT, Listener, Peer, Received, Traffic, random_bytes, until
from tests.uring.devices import OUR_MAC, OWN_ENDS, SHARED_ENDS, WITHOUT, DeviceApp, failure

pytestmark = pytest.mark.netns


def kernel_resets(lab: Lab) -> int:
    """Segments with RST that the server's kernel has sent."""
    text = lab.server.call(Path("/proc/thread-self/net/snmp").read_text)
    names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("OutRsts")])


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_the_kernel_answers_nothing_that_is_ours(
    lab: Lab, device_app_for: Callable[..., DeviceApp], kind: str
) -> None:
    app = device_app_for(lab, kind)
    before = kernel_resets(lab)
    for _ in range(10):
        with app.dial("echo") as peer:
            peer.send_all(b"x" * 10_000)
            peer.end()
            assert peer.read_all().count == 10_000
    assert kernel_resets(lab) == before
    assert app.stats()["tcp_resets_in"] == 0


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_the_kernel_keeps_what_is_its_own(
    lab: Lab, device_app_for: Callable[..., DeviceApp], kind: str
) -> None:
    app = device_app_for(lab, kind)
    traffic = Traffic(lab)
    try:
        with app.dial("take") as peer:
            data = random_bytes(4 << 20)
            peer.send_all(data)
            peer.end()
            assert peer.answer() == Received.of(data)
        traffic.wait_for_more()
    finally:
        sent, answered = traffic.stop()
    assert traffic.failure is None
    assert answered == sent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_kernel_answers_again_when_the_application_has_ended(
    lab: Lab, device_app_for: Callable[..., DeviceApp], number: signal.Signals
) -> None:
    app = device_app_for(lab, "shared")
    assert app.obtained["quiet"] == 1
    app.launcher.send_signal(number)
    app.launcher.wait()
    with (
        Listener(lab.server, PORT) as listener,
        Peer.dial(lab.client, SHARED_ENDS.ours[4], port=PORT) as peer,
        listener.accept() as accepted,
    ):
        accepted.send_all(b"kernel")
        accepted.end()
        assert peer.read_all().count == 6


@pytest.fixture
def clsact(lab: Lab, device_app_for: Callable[..., DeviceApp]) -> DeviceApp:
    """Shared mode on a kernel without tcx."""
    app = device_app_for(lab, "shared", without="tcx")
    assert app.obtained["quiet"] == 2
    return app


def filters(lab: Lab) -> str:
    """What is at the interface's tc ingress."""
    return str(lab.server.run(["tc", "filter", "show", "dev", lab.server.interface, "ingress"]).stdout)


def test_before_tcx_a_filter_keeps_the_kernel_quiet_and_goes_with_the_device(
    lab: Lab, clsact: DeviceApp
) -> None:
    before = kernel_resets(lab)
    for _ in range(5):
        with clsact.dial("echo") as peer:
            peer.send_all(b"x" * 10_000)
            peer.end()
            assert peer.read_all().count == 10_000
    assert kernel_resets(lab) == before
    assert "quiet_drop" in filters(lab)
    assert clsact.stop() == 0
    assert "quiet_drop" not in filters(lab)


def test_a_filter_left_behind_lets_the_kernel_answer_before_long(lab: Lab, clsact: DeviceApp) -> None:
    clsact.launcher.kill()
    clsact.launcher.wait()
    assert "quiet_drop" in filters(lab)

    def refused() -> bool:
        with lab.client.call(socket.socket) as sock:
            sock.settimeout(1)
            return sock.connect_ex((SHARED_ENDS.ours[4], PORT)) == errno.ECONNREFUSED

    until(refused, "an answer of the kernel's")


def test_the_interface_is_promiscuous_for_as_long_as_it_is_used(
    lab: Lab, device_app_for: Callable[..., DeviceApp]
) -> None:
    def promiscuity() -> int:
        shown = lab.server.run(["ip", "-d", "-j", "link", "show", lab.server.interface])
        return int(json.loads(shown.stdout)[0]["promiscuity"])

    app = device_app_for(lab, "own")
    assert promiscuity() == 1
    assert app.stop() == 0
    until(lambda: promiscuity() == 0, "an interface that isn't promiscuous any more")


def test_the_interfaces_mac_serves_addresses_of_our_own(
    lab: Lab, device_app_for: Callable[..., DeviceApp], family: int
) -> None:
    app = device_app_for(lab, "own", mac=lab.server.mac)
    before = kernel_resets(lab)
    with app.dial("echo", family) as peer:
        peer.send_all(b"x" * 10_000)
        peer.end()
        assert peer.read_all().count == 10_000
    assert kernel_resets(lab) == before


def test_a_deleted_interface_ends_its_connections(lab: Lab, device_app_for: Callable[..., DeviceApp]) -> None:
    app = device_app_for(lab, "own")
    with app.dial("take") as peer:
        peer.send_all(b"x" * 1000)
        lab.server.run(["ip", "link", "delete", lab.server.interface])
        assert app.result(peer.port)["status"] in (-errno.ENETDOWN, -errno.ENODEV)
    assert app.stats()["devices_lost"] == 1
    assert app.stop() == 0


def test_an_interface_that_goes_down_and_up_again_goes_on(
    lab: Lab, device_app_for: Callable[..., DeviceApp]
) -> None:
    app = device_app_for(lab, "own")
    with app.dial("echo") as peer:
        lab.server.run(["ip", "link", "set", lab.server.interface, "down"])
        lab.server.run(["ip", "link", "set", lab.server.interface, "up"])
        peer.send_all(b"x" * 1000)
        peer.end()
        assert peer.read_all().count == 1000
    assert app.stats()["devices_lost"] == 0


def test_datagrams_merged_by_the_sender_are_cut(lab: Lab, device_app_for: Callable[..., DeviceApp]) -> None:
    app = device_app_for(lab, "own")
    udp_segment = 103
    with lab.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(30)
        sock.connect((app.ends.ours[4], PORT))
        sock.setsockopt(socket.IPPROTO_UDP, udp_segment, 1000)
        data = random_bytes(4500)
        sock.send(data)
        pieces = [sock.recv(2000) for _ in range(5)]
    assert pieces == [data[at : at + 1000] for at in range(0, 4500, 1000)]


def test_where_io_uring_is_switched_off_the_remedy_is_told(lab: Lab) -> None:
    told = failure(lab, "own", *PACKET_ARGUMENTS, wrap=(WITHOUT, "io_uring"))
    assert told["status"] == -errno.EPERM
    assert "io_uring_disabled" in told["detail"]


PACKET_ARGUMENTS = ("hys0", OUR_MAC, "0", f"{OWN_ENDS.ours[4]}/24")


def test_without_the_privilege_the_remedy_is_told(lab: Lab) -> None:
    drop = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    told = failure(lab, "own", *PACKET_ARGUMENTS, wrap=drop)
    assert told["status"] == -errno.EPERM
    assert "CAP_NET_RAW" in told["detail"]


def test_shared_mode_without_the_privilege_names_the_other_mode(lab: Lab) -> None:
    drop = ("setpriv", "--bounding-set=-net_admin,-bpf,-sys_admin", "--inh-caps=-net_admin,-bpf,-sys_admin")
    told = failure(lab, "shared", *PACKET_ARGUMENTS, wrap=drop)
    assert told["status"] == -errno.EPERM
    assert "addresses that the kernel does not have" in told["detail"]


def test_an_interface_that_is_not_there_is_told(lab: Lab) -> None:
    told = failure(lab, "own", "nosuch0", *PACKET_ARGUMENTS[1:])
    assert told["status"] == -errno.ENODEV
    assert "interface" in told["detail"]
