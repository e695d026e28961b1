"""An operation that is cancelled ends with ECANCELED, and what it would have brought comes to the next."""

from __future__ import annotations

import errno

from tests.backends.harness.ends import at
from tests.backends.harness.meeting import Meet, Meeting

MIB = 1 << 20
NOBODY = 99  # the last byte of an address that nobody has


def nobody(talk: Meeting) -> str:
    return at(talk.us.addresses[4].rpartition(".")[0] + f".{NOBODY}", 7000)


def test_a_pop(meet: Meet) -> None:
    ours, theirs = meet()
    popping = ours.pop()
    ours.cancel(popping)
    popping.result(errno.ECANCELED)
    pushed = theirs.push(1000).result()
    assert ours.pop(1000).result().moved == pushed.moved


def test_one_pop_of_several(meet: Meet) -> None:
    ours, theirs = meet()
    first, second, third = (ours.pop(10) for _ in range(3))
    ours.cancel(second)
    second.result(errno.ECANCELED)
    theirs.push(10).result()
    assert first.result().bytes == 10
    theirs.push(10).result()
    assert third.result().bytes == 10


def test_pops_while_bytes_stream_in(meet: Meet) -> None:
    ours, theirs = meet()
    pushing = theirs.push(8 * MIB)
    for _ in range(200):
        popping = ours.pop(1)
        ours.order_cancel(popping)
        popping.result(0, errno.ECANCELED)
    taken = ours.pop()
    pushed = pushing.result()
    theirs.shutdown()
    assert taken.result().moved == pushed.moved


def test_an_accept(talk: Meeting) -> None:
    listener, address = talk.listen(talk.us)
    _, accepting = listener.accept()
    listener.cancel(accepting)
    accepting.result(errno.ECANCELED)
    client = talk.them.stream()
    client.connect(address).result()
    server, accepting = listener.accept()
    accepting.result()
    pushed = client.push(10).result()
    assert server.pop(10).result().moved == pushed.moved


def test_a_connect_that_nobody_answers(talk: Meeting) -> None:
    client = talk.us.stream()
    connecting = client.connect(nobody(talk))
    client.cancel(connecting)
    connecting.result(errno.ECANCELED)
    client.close()


def test_a_connect_that_nobody_answers_ends_with_its_descriptor(talk: Meeting) -> None:
    client = talk.us.stream()
    connecting = client.connect(nobody(talk))
    client.close()
    connecting.result(errno.ECANCELED)


def test_a_push_gives_up_the_notice_and_not_the_bytes(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    ours.fill()
    pushing = ours.push(1)
    ours.cancel(pushing)
    cancelled = pushing.result(errno.ECANCELED)
    ours.shutdown()
    got = theirs.pop().result()
    assert got.moved == cancelled.moved


def test_a_drain(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    ours.fill()
    draining = ours.drain()
    ours.order_cancel(draining)
    draining.result(0, errno.ECANCELED)
    taken = theirs.pop()
    ours.drain().result()
    ours.shutdown()
    taken.result()


def test_what_is_done_cannot_be_cancelled(meet: Meet) -> None:
    ours, theirs = meet()
    popping = ours.pop(10)
    theirs.push(10).result()
    popping.result()
    ours.cancel(popping, errno.ENOENT)


def test_what_was_cancelled_cannot_be_cancelled_again(meet: Meet) -> None:
    ours, _ = meet()
    popping = ours.pop()
    ours.cancel(popping)
    popping.result(errno.ECANCELED)
    ours.cancel(popping, errno.ENOENT)


def test_a_datagram_that_is_waited_for(talk: Meeting) -> None:
    ours, theirs = talk.us.datagram(), talk.them.datagram()
    ours.bind(at(talk.us.addresses[4], 7999))
    receiving = ours.receive()
    ours.cancel(receiving)
    receiving.result(errno.ECANCELED)
    receiving = ours.receive()
    sent = theirs.send(100, at(talk.us.addresses[4], 7999)).result()
    assert receiving.result().moved == sent.moved
