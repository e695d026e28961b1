"""TAP devices and packet sockets through the Python API."""

from __future__ import annotations

import errno
import socket
import threading
from functools import partial
from ipaddress import ip_address, ip_network

import pytest

import hybrid
from hybrid.lab import Lab

pytestmark = pytest.mark.netns

ROW, PORT = 7, 7
MAC = "02:00:00:00:88:02"


def table(address: str, network: str) -> hybrid.Host:
    made = hybrid.Host()
    made.update(
        links=[hybrid.Link(ROW, MAC, answers_arp=True)],
        addresses=[hybrid.LocalAddress(ip_address(address), 24, ROW)],
        routes=[hybrid.Route(ip_network(network), ROW)],
    )
    return made


def give_back_one(shard: hybrid.Shard, client: socket.socket, address: str) -> bytes:
    """What a client of the kernel's gets back of what it sends to an echo on the shard."""
    answers: list[bytes] = []

    def talk() -> None:
        with client:
            client.settimeout(30)
            client.connect((address, PORT))
            client.sendall(b"over frames")
            client.shutdown(socket.SHUT_WR)
            answers.append(client.makefile("rb").read())

    thread = threading.Thread(target=talk)
    with shard.socket() as listener:
        listener.bind(f":{PORT}").listen()
        thread.start()
        with listener.accept_wait(30) as connection:
            while data := connection.recv(timeout=30):
                connection.send(data)
        shard.wait_any(timeout=0.1)
        thread.join(30)
    return answers[0]


def test_a_tap_device(lab: Lab) -> None:
    with hybrid.Shard() as shard, table("10.88.0.2", "10.88.0.0/24") as host:
        shard.set_host(host)
        tap = lab.server.call(lambda: shard.attach_tap("tap8", ifindex=ROW))
        assert (tap.name, tap.mtu_bytes, tap.offload) == ("tap8", 1500, True)
        lab.server.run(["ip", "addr", "add", "10.88.0.1/24", "dev", "tap8"])
        lab.server.run(["ip", "link", "set", "tap8", "up"])
        client = lab.server.call(socket.socket)
        assert give_back_one(shard, client, "10.88.0.2") == b"over frames"


@pytest.mark.parametrize("handed", [False, True], ids=["opened", "handed over"])
def test_a_packet_socket(lab: Lab, handed: bool) -> None:
    address = ip_address("10.77.0.9")
    with hybrid.Shard() as shard, table(str(address), "10.77.0.0/24") as host:
        shard.set_host(host)
        interface = lab.server.ifindex
        options = {"mac": MAC, "addresses": [address]}
        fd = lab.server.call(partial(hybrid.open_packet, interface, **options)) if handed else -1
        packet = lab.server.call(partial(shard.attach_packet, interface, ifindex=ROW, fd=fd, **options))
        assert (packet.mac, packet.mtu_bytes, packet.quiet) == (MAC, 1500, "")
        client = lab.client.call(socket.socket)
        assert give_back_one(shard, client, str(address)) == b"over frames"


def test_shared_flows_can_be_changed(lab: Lab) -> None:
    with hybrid.Shard() as shard, hybrid.Host() as host:
        host.update(
            links=[hybrid.Link(ROW, lab.server.mac)],
            addresses=[hybrid.LocalAddress(lab.server.ipv4, 24, ROW)],
            routes=[hybrid.Route(ip_network("10.77.0.0/24"), ROW)],
            neighbours=[hybrid.Neighbour(lab.client.ipv4, lab.client.mac, ROW)],
        )
        shard.set_host(host)
        attach = partial(
            shard.attach_packet,
            lab.server.ifindex,
            ifindex=ROW,
            mode=hybrid.PacketMode.SHARED,
            flows=[hybrid.Flow(6, 9, 9)],
        )
        assert lab.server.call(attach).quiet == "tcx"
        shard.set_packet_flows(ROW, [hybrid.Flow(6, PORT, PORT)])
        assert give_back_one(shard, lab.client.call(socket.socket), str(lab.server.ipv4)) == b"over frames"


def test_a_failure_names_the_remedy(lab: Lab) -> None:
    with hybrid.Shard() as shard:
        with pytest.raises(hybrid.AttachError, match="to be named") as told:
            lab.server.call(partial(shard.attach_packet, lab.server.ifindex))
        assert told.value.errno == errno.EINVAL
        with pytest.raises(hybrid.QueueError):
            shard.set_packet_flows(ROW, [hybrid.Flow(6, 80, 80)])
