"""A connection that is broken off: who is told, with what, and that nobody else is."""

from __future__ import annotations

import errno

import pytest

from tests.backends.harness.meeting import Meet, Meeting

MIB = 1 << 20
GONE = (errno.ECONNRESET, errno.EPIPE)


def test_their_reset_is_told_to_a_reader(meet: Meet) -> None:
    ours, theirs = meet()
    popping = ours.pop()
    theirs.abort()
    popping.result(errno.ECONNRESET)


def test_our_reset_is_told_to_their_reader(meet: Meet) -> None:
    ours, theirs = meet()
    popping = theirs.pop()
    ours.abort()
    popping.result(errno.ECONNRESET)


def test_a_reset_ends_what_we_are_sending(meet: Meet) -> None:
    ours, theirs = meet()
    pushing = ours.push(64 * MIB)
    theirs.pop(1000).result()
    theirs.abort()
    assert pushing.result(*GONE).bytes < 64 * MIB


def test_our_reset_ends_what_they_are_sending(meet: Meet) -> None:
    ours, theirs = meet()
    pushing = theirs.push(64 * MIB)
    ours.pop(1000).result()
    ours.abort()
    pushing.result(*GONE)


def test_a_reset_ends_everything_that_is_under_way(meet: Meet) -> None:
    ours, theirs = meet()
    pushing, popping = ours.push(64 * MIB), ours.pop()
    theirs.pop(1000).result()
    theirs.abort()
    pushing.result(*GONE)
    popping.result(errno.ECONNRESET)


def test_after_a_reset_nothing_more_is_taken(meet: Meet) -> None:
    ours, theirs = meet()
    popping = ours.pop()
    theirs.abort()
    popping.result(errno.ECONNRESET)
    ours.push(1).result(*GONE)
    ours.close()


def test_what_is_queued_goes_with_our_reset(meet: Meet) -> None:
    ours, theirs = meet()
    ours.fill()
    ours.abort()
    theirs.pop().result(errno.ECONNRESET)


def test_our_reset_ends_our_own_operations(meet: Meet) -> None:
    ours, _ = meet()
    pushing, popping = ours.push(64 * MIB), ours.pop()
    ours.abort()
    pushing.result(errno.ECANCELED)
    popping.result(errno.ECANCELED)


@pytest.mark.parametrize("who", ["we", "they"])
def test_a_reset_is_of_one_connection(talk: Meeting, role: str, who: str) -> None:
    ours, theirs = talk.meet(role)
    other, others = talk.meet(role)
    popping = ours.pop() if who == "they" else theirs.pop()
    (theirs if who == "they" else ours).abort()
    popping.result(errno.ECONNRESET)
    taken = others.pop(1000)
    pushed = other.push(1000).result()
    assert taken.result().moved == pushed.moved


def test_who_resets_before_it_is_accepted_is_not_in_the_way_of_the_next(talk: Meeting) -> None:
    listener, address = talk.listen(talk.us)
    gone, stays = talk.them.stream(), talk.them.stream()
    gone.connect(address).result()
    gone.abort()
    stays.connect(address).result()
    pushed = stays.push(100).result()
    server, accepting = listener.accept()
    accepting.result()
    got = server.pop(100).outcome()
    if got.status == -errno.ECONNRESET:  # the first was handed out all the same
        server, accepting = listener.accept()
        accepting.result()
        got = server.pop(100).result()
    assert got.moved == pushed.moved
