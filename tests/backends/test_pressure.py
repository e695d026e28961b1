"""A reader that does not read holds its sender back, and nobody else; when it reads, nothing is missing."""

from __future__ import annotations

import errno

from tests.backends.harness.agent import AgentSock
from tests.backends.harness.ends import Outcome
from tests.backends.harness.meeting import Meet, Meeting, round_trips

MIB = 1 << 20


def fill_up(talk: Meeting, role: str, ours: AgentSock) -> Outcome:
    """Pushes until nothing more is taken, however long one asks; all of it together."""
    other, theirs = talk.meet(role)
    filled, refused = ours.fill(), 0
    for _ in range(200):
        filled = ours.fill()
        assert filled.status in (-errno.EAGAIN, -errno.ENOBUFS)
        refused = refused + 1 if filled.bytes == 0 else 0
        if refused == 3:
            return filled
        round_trips(other, theirs, 10)
    raise AssertionError(f"{filled.total} bytes were taken for a reader that reads nothing")


def test_what_may_be_queued_is_bounded(talk: Meeting, role: str) -> None:
    ours, _ = talk.meet(role)
    assert fill_up(talk, role, ours).total < 64 * MIB


def test_a_reader_that_wakes_gets_all_of_it(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    filled = fill_up(talk, role, ours)
    draining = ours.drain()
    taken = theirs.pop()
    draining.result()
    ours.shutdown()
    assert taken.result().moved == filled.moved


def test_nothing_drains_while_nobody_reads(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    other, others = talk.meet(role)
    fill_up(talk, role, ours)
    draining = ours.drain()
    round_trips(other, others, 50)
    assert not draining.done
    taken = theirs.pop(64 << 10)
    taken.result()
    theirs.pop()
    draining.result()


def test_we_hold_back_who_sends_what_we_do_not_read(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    other, others = talk.meet(role)
    pushing = theirs.push(32 * MIB)
    round_trips(other, others, 60)
    assert not pushing.done
    taken = ours.pop()
    pushed = pushing.result()
    theirs.shutdown()
    assert taken.result().moved == pushed.moved


def test_an_echo_holds_back_a_client_that_does_not_read(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    other, others = talk.meet(role)
    echoed = ours.echo()
    pushing = theirs.push(32 * MIB)
    round_trips(other, others, 60)
    assert not pushing.done
    back = theirs.pop(32 * MIB)
    pushed = pushing.result()
    theirs.shutdown()
    assert back.result().moved == pushed.moved
    assert echoed.result().bytes == 32 * MIB


def test_reading_by_the_spoonful(meet: Meet) -> None:
    ours, theirs = meet()
    pushing = theirs.push(MIB)
    taken = 0
    while taken < MIB:
        taken += (got := ours.pop(1).result()).bytes
    assert got.moved == pushing.result().moved


def test_a_full_queue_does_not_keep_the_end_from_being_told(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    filled = fill_up(talk, role, ours)
    ours.shutdown()
    got = theirs.pop().result()
    assert got.moved == filled.moved
    assert got.ended
