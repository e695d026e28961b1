"""Every limit is hit: an error that says so, a counter, and all is well again when something is given back."""

from __future__ import annotations

import errno

import pytest

from tests.backends.harness.ends import at, ports
from tests.backends.harness.meeting import Meet, Meeting
from tests.backends.harness.rows import TIGHT, Config

KIB = 1 << 10


@pytest.fixture
def config() -> Config:
    return TIGHT


def test_what_the_application_may_hold_is_bounded_and_nothing_is_lost(meet: Meet, talk: Meeting) -> None:
    ours, theirs = meet()
    pushing = theirs.push(32 * 1024 * KIB)
    ours.pop(hold=True).result(errno.ENOBUFS)
    assert not pushing.done
    talk.us.release()
    taken = ours.pop()
    pushed = pushing.result()
    theirs.shutdown()
    assert taken.result().moved == pushed.moved


def test_a_push_waits_for_frames(meet: Meet, talk: Meeting) -> None:
    ours, theirs = meet()
    assert talk.us.grab() > 0
    pushing = ours.push(64 * KIB)
    talk.us.stats()
    assert not pushing.done
    talk.us.release()
    taken = theirs.pop(64 * KIB)
    assert pushing.result().moved == taken.result().moved


def test_the_end_is_told_though_there_are_no_frames(meet: Meet, talk: Meeting) -> None:
    ours, theirs = meet()
    talk.us.grab()
    ours.shutdown()
    assert theirs.pop().result().ended


def test_large_transfers_pass_through_few_frames(meet: Meet) -> None:
    ours, theirs = meet()
    echoed = ours.echo()
    back = theirs.pop()
    pushed = theirs.push(16384 * KIB).result()
    theirs.shutdown()
    assert back.result().moved == pushed.moved
    assert echoed.result().bytes == 16384 * KIB


def test_many_readers_that_sleep_leave_frames_for_one_that_does_not(talk: Meeting, role: str) -> None:
    sleepers = [talk.meet(role) for _ in range(10)]
    for _, theirs in sleepers:
        theirs.push(512 * KIB)
    ours, theirs = talk.meet(role)
    taken = ours.pop()
    pushed = theirs.push(1024 * KIB).result()
    theirs.shutdown()
    assert taken.result().moved == pushed.moved


def test_tokens(meet: Meet) -> None:
    ours, theirs = meet()
    waiting = [ours.pop(1) for _ in range(64)]
    ours.pop(1).result(errno.ENOBUFS)
    ours.cancel(waiting[0])
    waiting[0].result(errno.ECANCELED)
    again = ours.pop(1)
    for pending in [*waiting[1:], again]:
        theirs.push(1)
        assert pending.result().bytes == 1


def test_descriptors(talk: Meeting) -> None:
    made = [talk.us.stream() for _ in range(64)]
    one_more = talk.us.sock()
    talk.us.order("open", one_more.number, "stream").result(errno.ENOBUFS)
    made[0].close()
    talk.us.stream()


def test_a_connection_waits_to_be_accepted_until_there_is_a_descriptor(talk: Meeting) -> None:
    listener, client = talk.knock("server")
    made = [talk.us.stream() for _ in range(63)]
    _, accepting = listener.accept()
    accepting.result(errno.ENOBUFS)
    made[0].close()
    server, accepting = listener.accept()
    accepting.result()
    pushed = client.push(10).result()
    assert server.pop(10).result().moved == pushed.moved


def test_connections(talk: Meeting) -> None:
    if not talk.row.stack:
        return  # the kernel has its own limits
    _, address = talk.listen(talk.them, backlog=64)
    clients = [talk.us.stream() for _ in range(40)]
    outcomes = [client.connect(address).outcome() for client in clients]
    refused = [outcome for outcome in outcomes if outcome.status == -errno.ENOBUFS]
    assert 0 < len(refused) < 40
    assert {outcome.status for outcome in outcomes} == {0, -errno.ENOBUFS}
    clients[0].abort()
    clients[-1].connect(address).result()


def test_every_frame_comes_back(talk: Meeting, role: str) -> None:
    before = talk.us.grab()
    talk.us.release()
    for _ in range(5):
        ours, theirs = talk.meet(role)
        pushing = theirs.push(512 * KIB)
        ours.pop(100 * KIB).result()
        ours.fill()
        ours.abort()
        pushing.outcome()
    talk.us.tidy()
    # What a device still sends is on its way back.
    for _ in range(200):
        if (after := talk.us.grab()) == before:
            break
        talk.us.release()
    assert after == before


def test_a_shard_that_has_run_out_of_everything_serves_the_next_as_before(meet: Meet) -> None:
    ours, theirs = meet()
    taken = theirs.pop()
    pushed = ours.push(1024 * KIB).result()
    ours.shutdown()
    assert taken.result().moved == pushed.moved


def test_ports_are_given_back(talk: Meeting) -> None:
    address = at(talk.us.addresses[4], next(ports))
    for _ in range(100):
        listener = talk.us.stream()
        listener.bind(address)
        listener.listen()
        listener.close()
