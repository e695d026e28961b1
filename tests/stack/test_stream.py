"""An open connection: what is taken, what is refused, what is acknowledged, windows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from scapy.layers.inet import IP, TCP

import hybrid
from tests.stack.conftest import Peer, Stack

Joined = tuple[Stack, Peer, hybrid.Queue]


def nothing_to_read(queue: hybrid.Queue) -> bool:
    with pytest.raises(hybrid.TimedOutError):
        queue.recv(0)
    return True


def test_data_is_delivered_and_acknowledged(joined: Joined) -> None:
    _, peer, queue = joined
    (ack,) = peer.send("PA", b"hello")
    assert (ack.flags, ack.ack) == ("A", peer.seq)
    assert queue.recv(0) == b"hello"


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_out_of_order_data_that_overlaps_by_any_amount_is_put_together(joined: Joined, overlap: int) -> None:
    _, peer, queue = joined
    whole = b"abcdefghij"
    (dup,) = peer.send("PA", whole[5 - overlap :], seq=peer.seq + 5 - overlap)
    assert dup.ack == peer.seq
    (ack,) = peer.send("PA", whole[: 5 + overlap], seq=peer.seq)
    assert ack.ack == peer.seq + 10
    got = b""
    while len(got) < 10:
        got += queue.recv(0)
    assert got == whole


def test_what_is_known_already_is_acknowledged_and_not_delivered_again(joined: Joined) -> None:
    _, peer, queue = joined
    peer.send("PA", b"once")
    queue.recv(0)
    (ack,) = peer.send("PA", b"once", seq=peer.seq - 4)
    assert ack.ack == peer.seq
    (ack,) = peer.send("PA", b"ncemore", seq=peer.seq - 3)
    assert queue.recv(0) == b"more"


@pytest.mark.parametrize("beyond", [1 << 24, -(1 << 24)])
def test_a_segment_outside_the_window_is_answered_and_not_taken(joined: Joined, beyond: int) -> None:
    _, peer, queue = joined
    (ack,) = peer.send("PA", b"far", seq=(peer.seq + beyond) % 2**32)
    assert (ack.flags, ack.ack) == ("A", peer.seq)
    assert nothing_to_read(queue)


def test_a_reset_must_hit_the_next_number_exactly(joined: Joined) -> None:
    """RFC 5961 section 3."""
    _, peer, queue = joined
    assert peer.send("R", seq=peer.seq + (1 << 24)) == []
    (challenge,) = peer.send("R", seq=peer.seq + 1)
    assert (challenge.flags, challenge.ack) == ("A", peer.seq)
    assert nothing_to_read(queue)
    assert peer.send("R") == []
    with pytest.raises(hybrid.QueueError):
        queue.recv(0)


def test_a_syn_in_the_middle_is_challenged(joined: Joined) -> None:
    """RFC 5961 section 4."""
    _, peer, queue = joined
    (challenge,) = peer.send("S", seq=peer.seq)
    assert (challenge.flags, challenge.ack) == ("A", peer.seq)
    assert nothing_to_read(queue)


def test_an_acknowledgement_of_what_was_never_sent_is_challenged_and_its_data_dropped(joined: Joined) -> None:
    _, peer, queue = joined
    (challenge,) = peer.send("PA", b"x", seq=peer.seq, ack=peer.ack + 1000)
    assert challenge.ack == peer.seq
    assert nothing_to_read(queue)


def test_a_segment_without_ack_is_dropped(joined: Joined) -> None:
    _, peer, queue = joined
    assert peer.send("P", b"x", seq=peer.seq) == []
    assert nothing_to_read(queue)


@pytest.mark.parametrize("what", ["tcp checksum", "mac", "offset", "short"])
def test_a_damaged_or_misdirected_frame_is_dropped_without_a_word(joined: Joined, what: str) -> None:
    stack, peer, queue = joined
    segment = peer.segment("PA", b"data")
    if what == "tcp checksum":
        segment[TCP].chksum = 0x1234
    elif what == "mac":
        segment.dst = "02:00:00:00:00:99"
    elif what == "offset":
        segment[TCP].dataofs = 15
    raw = bytes(segment)
    assert stack.inject(raw[:-6] if what == "short" else raw) == []
    assert nothing_to_read(queue)


def test_an_ip_header_checksum_that_is_wrong_is_dropped(joined: Joined) -> None:
    stack, peer, queue = joined
    if stack.family == 6:
        pytest.skip("IPv6 has no header checksum")
    segment = peer.segment("PA", b"data")
    segment[IP].chksum = 0x1234
    assert stack.inject(segment) == []
    assert nothing_to_read(queue)


def test_each_push_completes_with_its_own_acknowledgement(joined: Joined) -> None:
    stack, peer, queue = joined
    first, second = queue.push(b"a" * 100), queue.push(b"b" * 100)
    assert peer.take(stack.run()) == b"a" * 100 + b"b" * 100
    end = peer.ack
    peer.send("A", ack=end - 200)  # an old one completes nothing
    peer.send("A", ack=end - 1)
    assert first.wait(0).error is None
    with pytest.raises(hybrid.TimedOutError):
        second.wait(0)
    peer.send("A", ack=end)
    assert second.wait(0).error is None


def test_a_window_that_opens_without_an_acknowledgement_is_used(joined: Joined) -> None:
    stack, peer, queue = joined
    peer.send("A", window=0)
    queue.post(b"w" * 1000)
    assert stack.run() == []
    assert peer.take(peer.send("A", window=8000)) == b"w" * 1000


def test_a_closed_window_is_probed_for_as_long_as_the_peer_answers(joined: Joined) -> None:
    stack, peer, queue = joined
    peer.send("A", window=0)
    queue.post(b"w" * 1000)
    stack.run()
    probes = 0
    for _ in range(30):
        for _, probe in stack.passes(120_000):
            assert len(probe.payload) <= 1
            probes += 1
            peer.send("A", window=0)
    assert probes >= 30
    assert peer.take(peer.send("A", window=8000)) == b"w" * 1000


def test_a_peer_that_never_answers_is_given_up_after_doubling_pauses(joined: Joined) -> None:
    stack, _, queue = joined
    pushed = queue.push(b"lost")
    stack.run()
    said = stack.passes(2_000_000)
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(said)]
    assert len(said) == 15
    assert all(1.9 < b / a < 2.1 for a, b in pairwise(pauses[:8]))
    assert max(pauses) < 121_000
    assert isinstance(pushed.wait(0).error, hybrid.QueueError)


def test_what_we_receive_is_bounded_by_the_window_we_offered(joined: Joined) -> None:
    stack, peer, _ = joined
    window = 65535
    for _ in range(100):
        answers = peer.send("A", b"f" * 1000, seq=peer.seq)
        if answers and answers[-1].ack == peer.seq + 1000:
            peer.seq += 1000
            window = answers[-1].window
        if window == 0:
            break
    assert peer.seq - 1001 <= 1 << 20
    assert stack.stat("drop_checksum") == 0


def test_a_refused_post_gives_its_frames_back(joined: Joined) -> None:
    _, _, queue = joined
    piece = b"p" * 8000
    with pytest.raises(hybrid.WouldBlockError):
        for _ in range(1000):
            queue.post(piece)
    for _ in range(1000):  # were they lost, there would soon be none
        with pytest.raises(hybrid.WouldBlockError):
            queue.post(piece)
