"""Waits end when something comes, and not before, and when they were told to, and not much later."""

from __future__ import annotations

from tests.backends.harness.ends import at
from tests.backends.harness.meeting import Meet, Meeting

MS = 1_000_000


def test_a_wait_for_nothing_ends_when_it_was_told_to(talk: Meeting) -> None:
    for most_ms in (1, 20, 150):
        slept = talk.us.nap(most_ms).result().more
        assert slept["events"] == 0
        assert most_ms * MS <= slept["ns"] < (most_ms + 1000) * MS


def test_bytes_that_arrive_end_a_wait(meet: Meet, talk: Meeting) -> None:
    ours, theirs = meet()
    for _ in range(5):
        popping = ours.pop(1)
        napping = talk.us.nap(20_000)
        theirs.push(1).result()
        assert napping.result().more["ns"] < 5000 * MS
        popping.result()


def test_an_end_ends_a_wait(meet: Meet, talk: Meeting) -> None:
    ours, theirs = meet()
    popping = ours.pop()
    napping = talk.us.nap(20_000)
    theirs.shutdown()
    assert napping.result().more["ns"] < 5000 * MS
    popping.result()


def test_a_connection_that_comes_ends_a_wait(talk: Meeting) -> None:
    listener, address = talk.listen(talk.us)
    _, accepting = listener.accept()
    napping = talk.us.nap(20_000)
    client = talk.them.stream()
    client.connect(address).result()
    assert napping.result().more["ns"] < 5000 * MS
    accepting.result()


def test_a_datagram_ends_a_wait(talk: Meeting) -> None:
    ours, theirs = talk.us.datagram(), talk.them.datagram()
    address = at(talk.us.addresses[4], 7998)
    ours.bind(address)
    receiving = ours.receive()
    napping = talk.us.nap(20_000)
    theirs.send(10, address).result()
    assert napping.result().more["ns"] < 5000 * MS
    receiving.result()


def test_a_transfer_goes_on_while_we_sleep_for_want_of_events(meet: Meet, talk: Meeting) -> None:
    ours, theirs = meet()
    taken = theirs.pop()
    pushing = ours.push(200_000)
    talk.us.nap(20_000).result()  # until the push is acknowledged: window updates, timers, all of it
    pushed = pushing.result()
    ours.shutdown()
    assert taken.result().moved == pushed.moved


def test_who_waits_does_not_poll(talk: Meeting) -> None:
    before = talk.us.stats()
    talk.us.nap(300).result()
    after = talk.us.stats()
    if talk.us.sleeps:
        assert after["sleeps"] > before["sleeps"]
        assert after["polls"] - before["polls"] < 2000
