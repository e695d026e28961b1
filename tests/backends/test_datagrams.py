"""Datagrams: whole or not at all, with their sender."""

from __future__ import annotations

import errno

import pytest

from tests.backends.harness.ends import at, ports
from tests.backends.harness.meeting import Meeting

SIZES = [1, 2, 63, 64, 500, 1400, 1472]


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_every_size_comes_back(talk: Meeting, role: str, family: int) -> None:
    server_end, client_end = talk.ends(role)
    address = at(server_end.addresses[family], next(ports))
    server, client = server_end.datagram(), client_end.datagram()
    server.bind(address)
    server.reflect()
    client.bind(at(client_end.addresses[family], 0))
    for size in [*SIZES[:-1], SIZES[-1] if family == 4 else 1452]:
        receiving = client.receive()
        sent = client.send(size, address).result()
        got = receiving.result()
        assert got.moved == sent.moved
        assert (got.bytes, got.peer) == (size, address)


def test_a_socket_that_is_connected_needs_no_address(talk: Meeting, role: str) -> None:
    server_end, client_end = talk.ends(role)
    address = at(server_end.addresses[4], next(ports))
    server, client = server_end.datagram(), client_end.datagram()
    server.bind(address)
    client.connect(address).result()
    receiving = server.receive()
    sent = client.send(100).result()
    got = receiving.result()
    assert got.moved == sent.moved
    receiving = client.receive()
    sent = server.send(200, got.peer).result()
    assert receiving.result().moved == sent.moved


def test_a_burst_is_kept_in_order(talk: Meeting, role: str) -> None:
    server_end, client_end = talk.ends(role)
    address = at(server_end.addresses[4], next(ports))
    server, client = server_end.datagram(), client_end.datagram()
    server.bind(address)
    client.connect(address).result()
    sending = [client.send(size) for size in range(1, 41)]
    for pending in sending:
        pending.result()
    assert [server.receive().result().bytes for _ in sending] == list(range(1, 41))


def test_many_may_be_waited_for(talk: Meeting) -> None:
    address = at(talk.us.addresses[4], next(ports))
    server, client = talk.us.datagram(), talk.them.datagram()
    server.bind(address)
    receiving = [server.receive() for _ in range(10)]
    for size in range(1, 11):
        client.send(size, address).result()
    assert [pending.result().bytes for pending in receiving] == list(range(1, 11))


def test_a_port_belongs_to_one_socket(talk: Meeting) -> None:
    address = at(talk.us.addresses[4], next(ports))
    first, second = talk.us.datagram(), talk.us.datagram()
    first.bind(address)
    second.bind(address, errno.EADDRINUSE)
    first.close()
    talk.us.datagram().bind(address)


def test_a_socket_that_closes_ends_what_it_waits_for(talk: Meeting) -> None:
    sock = talk.us.datagram()
    sock.bind(at(talk.us.addresses[4], next(ports)))
    receiving = sock.receive()
    sock.close()
    receiving.result(errno.ECANCELED)


def test_without_an_address_there_is_nowhere_to_send_to(talk: Meeting) -> None:
    talk.us.datagram().send(10).result(errno.EDESTADDRREQ)


def test_what_does_not_fit_the_path_is_refused(talk: Meeting) -> None:
    if talk.row.stack:  # the kernel would send it in fragments
        sock = talk.us.datagram()
        sock.send(1473, at(talk.them.addresses[4], next(ports))).result(errno.EMSGSIZE)
