"""One side has said that it has ended; the other goes on for as long as it likes."""

from __future__ import annotations

import errno

from tests.backends.harness.meeting import Meet

MIB = 1 << 20


def test_we_have_ended_and_they_go_on_sending(meet: Meet) -> None:
    ours, theirs = meet()
    ours.shutdown()
    assert theirs.pop().result().ended
    taken = ours.pop()
    pushed = theirs.push(4 * MIB).result()
    theirs.shutdown()
    got = taken.result()
    assert got.moved == pushed.moved
    assert got.ended


def test_they_have_ended_and_we_go_on_sending(meet: Meet) -> None:
    ours, theirs = meet()
    theirs.shutdown()
    assert ours.pop().result().ended
    taken = theirs.pop()
    pushed = ours.push(4 * MIB).result()
    ours.shutdown()
    assert taken.result().moved == pushed.moved


def test_the_end_comes_after_the_bytes(meet: Meet) -> None:
    ours, theirs = meet()
    pushed = ours.fill()
    ours.shutdown()
    got = theirs.pop().result()
    assert got.moved == pushed.moved
    assert got.ended


def test_both_end_at_once_with_bytes_on_their_way(meet: Meet) -> None:
    ours, theirs = meet()
    pushed, pushing = ours.fill(), theirs.push(MIB)
    ours.shutdown()
    came, went = ours.pop(), theirs.pop()
    sent = pushing.result()
    theirs.shutdown()
    assert went.result().moved == pushed.moved
    assert came.result().moved == sent.moved


def test_after_our_end_nothing_more_is_taken(meet: Meet) -> None:
    ours, theirs = meet()
    ours.shutdown()
    ours.push(1).result(errno.EPIPE)
    pushed = theirs.push(10).result()  # and nothing else has been broken by it
    assert ours.pop(10).result().moved == pushed.moved


def test_an_end_is_told_as_often_as_one_asks(meet: Meet) -> None:
    ours, theirs = meet()
    theirs.push(10).result()
    theirs.shutdown()
    assert ours.pop().result().bytes == 10
    for _ in range(3):
        got = ours.pop().result()
        assert (got.bytes, got.ended) == (0, True)


def test_a_reader_that_waits_is_told_of_the_end(meet: Meet) -> None:
    ours, theirs = meet()
    popping = ours.pop()
    theirs.shutdown()
    assert popping.result().ended


def test_an_end_without_a_byte(meet: Meet) -> None:
    ours, theirs = meet()
    ours.shutdown()
    theirs.shutdown()
    assert ours.pop().result().ended
    assert theirs.pop().result().ended
