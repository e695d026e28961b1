"""The ends of connections: every order of FIN, what may still be said, TIME_WAIT and resets."""

from __future__ import annotations

import pytest

import hybrid
from tests.stack.conftest import LINUX, Peer, Stack

Joined = tuple[Stack, Peer, hybrid.Queue]


def is_gone(peer: Peer) -> bool:
    """A segment of a connection that is no more is reset."""
    answers = peer.send("A")
    return [str(p.flags) for p in answers] == ["R"]


def test_the_peer_closes_first(joined: Joined) -> None:
    """ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSED."""
    stack, peer, queue = joined
    (ack,) = peer.send("FA")
    assert (ack.flags, ack.ack) == ("A", peer.seq)
    assert queue.recv(0) == b""
    queue.post(b"still")
    assert peer.take(stack.run()) == b"still"
    peer.send("A")
    queue.close()
    (fin,) = stack.run()
    assert "F" in fin.flags
    peer.take([fin])
    assert peer.send("A") == []
    assert is_gone(peer)
    assert stack.shard.next_deadline_ns is None


def test_we_close_first_and_time_wait_ends_after_a_minute(joined: Joined) -> None:
    """ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT, CLOSED."""
    stack, peer, queue = joined
    queue.shutdown()
    peer.take(stack.run())
    assert peer.send("A") == []
    (ack,) = peer.send("FA")
    assert ack.ack == peer.seq
    assert queue.recv(0) == b""
    queue.close()
    stack.passes(59_000)
    (again,) = peer.send("FA", seq=peer.seq - 1)
    assert (again.flags, again.ack) == ("A", peer.seq)
    stack.passes(61_000)
    assert is_gone(peer)
    assert stack.shard.next_deadline_ns is None


def test_both_close_at_once(joined: Joined) -> None:
    """ESTABLISHED, FIN_WAIT_1, CLOSING, TIME_WAIT."""
    stack, peer, queue = joined
    queue.shutdown()
    (fin,) = stack.run()
    (ack,) = peer.send("FA")
    assert (ack.flags, ack.ack, ack.seq) == ("A", peer.seq, fin.seq + 1)
    peer.take([fin])
    assert peer.send("A") == []
    assert queue.recv(0) == b""
    queue.close()
    stack.passes(61_000)
    assert is_gone(peer)


def test_only_the_acknowledgement_of_our_fin_ends_fin_wait_1(joined: Joined) -> None:
    stack, peer, queue = joined
    queue.shutdown()
    (fin,) = stack.run()
    peer.send("A")
    said = stack.passes(1000)
    assert said[0][1].flags == "FA"
    assert said[0][1].seq == fin.seq


@pytest.mark.parametrize("acknowledged", [True, False])
def test_data_after_our_fin_is_delivered(joined: Joined, acknowledged: bool) -> None:
    """In FIN_WAIT_2 and in FIN_WAIT_1."""
    stack, peer, queue = joined
    queue.shutdown()
    fins = stack.run()
    if acknowledged:
        peer.take(fins)
        peer.send("A")
    peer.send("PA", b"last words")
    assert queue.recv(0) == b"last words"
    peer.take(fins)
    peer.send("FA")
    assert queue.recv(0) == b""


def test_data_and_fin_in_one_segment(joined: Joined) -> None:
    _, peer, queue = joined
    (ack,) = peer.send("FPA", b"bye")
    assert ack.ack == peer.seq
    assert queue.recv(0) == b"bye"
    assert queue.recv(0) == b""


def test_a_fin_ahead_of_a_gap_waits_for_the_gap(joined: Joined) -> None:
    _, peer, queue = joined
    peer.send("FA", b"second", seq=peer.seq + 5)
    with pytest.raises(hybrid.TimedOutError):
        queue.recv(0)
    peer.send("A", b"first")
    got = b""
    while piece := queue.recv(0):
        got += piece
    assert got == b"firstsecond"


def test_a_lost_fin_is_sent_again(joined: Joined) -> None:
    stack, peer, queue = joined
    queue.post(b"end")
    queue.shutdown()
    stack.run()
    (_, again), *_ = stack.passes(500)
    assert again.flags.F
    assert bytes(again.payload) == b"end"
    peer.take([again])
    peer.send("A")
    assert not [p for _, p in stack.passes(5000) if p.flags.F]


def test_closing_with_data_unread_resets_so_that_the_peer_knows(joined: Joined) -> None:
    """RFC 2525 section 2.17."""
    stack, peer, queue = joined
    peer.send("PA", b"never read")
    queue.close()
    said = stack.run()
    assert said[-1].flags.R
    assert said[-1].seq == peer.ack


def test_data_for_a_reader_that_has_gone_is_reset(joined: Joined) -> None:
    stack, peer, queue = joined
    queue.close()
    peer.take(stack.run())
    peer.send("A")
    assert [str(p.flags)[0] for p in peer.send("PA", b"anybody?")] == ["R"]


def test_abort_is_a_reset_that_the_peer_accepts(joined: Joined) -> None:
    stack, peer, queue = joined
    queue.abort()
    (rst,) = stack.run()
    assert rst.flags.R
    assert rst.seq == peer.ack
    assert is_gone(peer)


def test_what_was_pushed_before_close_is_delivered(joined: Joined) -> None:
    stack, peer, queue = joined
    queue.post(b"z" * 5000)
    queue.close()
    got = peer.take(stack.run())
    for _ in range(10):
        got += peer.take(peer.send("A"))
    assert got == b"z" * 5000


def test_a_reset_does_not_cut_time_wait_short(joined: Joined) -> None:
    """RFC 1337."""
    stack, peer, queue = joined
    queue.close()
    peer.take(stack.run())
    peer.send("FA")
    assert peer.send("R") == []
    (again,) = peer.send("FA", seq=peer.seq - 1)
    assert again.flags == "A"


def test_a_new_syn_with_a_higher_number_reopens_time_wait(stack: Stack) -> None:
    """RFC 9293 section 3.6.1, as Linux does."""
    listener = stack.listen()
    peer = Peer(stack, options=LINUX[:1])
    peer.open()
    queue = stack.accepted(listener)
    queue.close()
    peer.take(stack.run())
    peer.send("FA")
    peer.send("A")
    again = Peer(stack, seq=peer.seq + 100_000, options=LINUX[:1])
    again.open()
    again.send("PA", b"new")
    assert stack.accepted(listener).recv(0) == b"new"


def test_an_orphan_in_fin_wait_2_goes_after_a_minute(joined: Joined) -> None:
    stack, peer, queue = joined
    queue.close()
    peer.take(stack.run())
    peer.send("A")
    stack.passes(61_000)
    assert is_gone(peer)
    assert stack.shard.next_deadline_ns is None


def test_a_listener_that_closes_resets_who_was_not_accepted(stack: Stack) -> None:
    listener = stack.listen()
    peer = Peer(stack)
    peer.open()
    listener.close()
    assert any(p.flags.R for p in stack.run())
    assert is_gone(peer)
