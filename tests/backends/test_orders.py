"""Who closes first, what is closed before it was used, what comes before anybody has asked for it."""

from __future__ import annotations

import errno

import pytest

from tests.backends.harness.ends import at, ports
from tests.backends.harness.meeting import Meet, Meeting, round_trips


def test_we_close_first(meet: Meet) -> None:
    ours, theirs = meet()
    round_trips(ours, theirs)
    ours.close()
    assert theirs.pop().result().ended
    theirs.close()


def test_they_close_first(meet: Meet) -> None:
    ours, theirs = meet()
    round_trips(ours, theirs)
    theirs.close()
    assert ours.pop().result().ended
    ours.close()


def test_both_close_at_once(talk: Meeting, role: str) -> None:
    for _ in range(10):
        ours, theirs = talk.meet(role)
        round_trips(ours, theirs)
        ours.close()
        theirs.close()


def test_what_was_pushed_before_a_close_arrives(meet: Meet) -> None:
    ours, theirs = meet()
    pushed = ours.fill()
    ours.close()
    assert theirs.pop().result().moved == pushed.moved


def test_what_comes_before_it_is_accepted_is_kept(talk: Meeting, role: str) -> None:
    listener, client = talk.knock(role)
    pushed = client.push(1000).result()
    client.shutdown()
    server, accepted = listener.accept()
    accepted.result()
    assert server.pop().result().moved == pushed.moved


def test_who_has_gone_before_it_was_accepted_is_still_accepted(talk: Meeting, role: str) -> None:
    listener, client = talk.knock(role)
    pushed = client.push(1000).result()
    client.close()
    server, accepted = listener.accept()
    accepted.result()
    got = server.pop().result()
    assert got.moved == pushed.moved
    assert got.ended


def test_accepted_connections_outlive_their_listener(meet: Meet) -> None:
    ours, theirs = meet()  # which closes the listener
    round_trips(ours, theirs)


def test_a_listener_that_closes_turns_away_who_waits(talk: Meeting, role: str) -> None:
    listener, client = talk.knock(role)
    popping = client.pop()
    listener.close()
    assert popping.outcome().status == -errno.ECONNRESET


def test_a_port_can_be_listened_on_again_at_once(talk: Meeting) -> None:
    address = at(talk.us.addresses[4], next(ports))
    for _ in range(3):
        listener = talk.us.stream()
        listener.bind(address)
        listener.listen()
        server, accepting = listener.accept()
        client = talk.them.stream()
        client.connect(address).result()
        accepting.result()
        round_trips(server, client)
        server.close()  # first, so that TIME_WAIT is ours
        assert client.pop().result().ended
        client.close()
        listener.close()


def test_a_port_belongs_to_one_listener(talk: Meeting) -> None:
    _, address = talk.listen(talk.us)
    second = talk.us.stream()
    second.bind(address, errno.EADDRINUSE)


def test_what_was_never_used_closes(talk: Meeting) -> None:
    for make in (talk.us.stream, talk.us.datagram):
        make().close()
        bound = make()
        bound.bind(at(talk.us.addresses[4], 0))
        assert not bound.local().endswith(":0")
        bound.close()
    listener, _ = talk.listen(talk.us)
    listener.close()


def test_a_descriptor_that_was_closed_is_no_longer_one(meet: Meet) -> None:
    ours, _ = meet()
    ours.close()
    ours.close(errno.EBADF)
    ours.shutdown(errno.EBADF)
    ours.pop().result(errno.EBADF)
    ours.push(1).result(errno.EBADF)


def test_operations_under_way_end_with_their_descriptor(meet: Meet) -> None:
    ours, theirs = meet()
    popping = ours.pop()
    ours.close()
    popping.result(errno.ECANCELED)
    assert theirs.pop().result().ended


def test_an_accept_under_way_ends_with_its_listener(talk: Meeting) -> None:
    listener, _ = talk.listen(talk.us)
    _, accepting = listener.accept()
    listener.close()
    accepting.result(errno.ECANCELED)


def test_a_close_with_unread_data_tells_the_peer_of_the_loss(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    other, others = talk.meet(role)
    theirs.push(100)
    round_trips(other, others)  # the bytes have come before it
    popping = theirs.pop()
    ours.close()
    popping.result(errno.ECONNRESET)


def test_a_port_that_nobody_listens_on_refuses(talk: Meeting, role: str) -> None:
    server_end, client_end = talk.ends(role)
    client = client_end.stream()
    client.connect(at(server_end.addresses[4], next(ports))).result(errno.ECONNREFUSED)


def test_both_ends_agree_on_their_addresses(meet: Meet) -> None:
    ours, theirs = meet()
    assert ours.local() == theirs.peer()
    assert ours.peer() == theirs.local()


def test_an_accept_tells_who_it_is(talk: Meeting) -> None:
    listener, address = talk.listen(talk.us)
    _, accepting = listener.accept()
    client = talk.them.stream()
    client.connect(address).result()
    assert accepting.result().peer == client.local()


@pytest.mark.parametrize("waiting", [1, 5])
def test_accepts_may_be_asked_for_before_anybody_comes(talk: Meeting, waiting: int) -> None:
    listener, address = talk.listen(talk.us)
    accepting = [listener.accept() for _ in range(waiting)]
    clients = [talk.them.stream() for _ in range(waiting)]
    for connecting in [client.connect(address) for client in clients]:
        connecting.result()
    peers = {pending.result().peer for _, pending in accepting}
    assert peers == {client.local() for client in clients}


def test_what_makes_no_sense_is_refused(meet: Meet, talk: Meeting) -> None:
    fresh = talk.us.stream()
    fresh.listen(expected=errno.EINVAL)  # unbound
    fresh.pop().result(errno.ENOTCONN)
    fresh.push(1).result(errno.ENOTCONN)
    fresh.accept()[1].result(errno.EINVAL)
    ours, _ = meet()
    ours.accept()[1].result(errno.EINVAL)
    ours.connect(at(talk.them.addresses[4], 9)).result(errno.EISCONN)
    ours.bind(at(talk.us.addresses[4], 0), errno.EINVAL)
