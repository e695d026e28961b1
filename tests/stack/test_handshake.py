"""Opening: options as Linux lays them out, refusals, lost and repeated segments, floods."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import TCP

import hybrid
from tests.stack.conftest import CONFIG, LINUX, OURS, PEERS, Peer, Stack, host_table

MSS, SACK, TS, WS = ("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)
NOP = ("NOP", None)


def names(packet: TCP) -> list[str]:
    return [name for name, _ in packet.options]


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ([], ["MSS"]),
        ([MSS], ["MSS"]),
        ([MSS, SACK, TS, NOP, WS], ["MSS", "SAckOK", "Timestamp", "NOP", "WScale"]),
        ([MSS, NOP, NOP, SACK, NOP, WS], ["MSS", "NOP", "NOP", "SAckOK", "NOP", "WScale"]),
        ([MSS, NOP, WS], ["MSS", "NOP", "WScale"]),
        ([MSS, NOP, NOP, SACK], ["MSS", "NOP", "NOP", "SAckOK"]),
        ([MSS, SACK, TS], ["MSS", "SAckOK", "Timestamp"]),
        ([MSS, NOP, NOP, TS], ["MSS", "NOP", "NOP", "Timestamp"]),
    ],
)
def test_a_syn_ack_offers_what_the_syn_offered_in_the_order_of_linux(
    stack: Stack, offered: list[tuple[str, object]], answered: list[str]
) -> None:
    stack.listen()
    (synack,) = Peer(stack).send("S", options=offered)
    assert synack.flags == "SA"
    assert names(synack) == answered
    assert dict(synack.options)["MSS"] == (1460 if stack.family == 4 else 1440)


def test_a_timestamp_is_echoed(stack: Stack) -> None:
    stack.listen()
    (synack,) = Peer(stack).send("S", options=list(LINUX))
    assert dict(synack.options)["Timestamp"][1] == 1000


def test_our_syn_offers_all_in_the_order_of_linux_and_has_the_window_unscaled(stack: Stack) -> None:
    stack.socket().connect((PEERS[stack.family], 80))
    (syn,) = stack.run()
    assert syn.flags == "S"
    assert names(syn) == ["MSS", "SAckOK", "Timestamp", "NOP", "WScale"]
    assert syn.window == 65535


def test_an_option_that_nobody_knows_is_skipped(stack: Stack) -> None:
    stack.listen()
    (synack,) = Peer(stack).send("S", options=[(200, b"xyz"), *LINUX[:1]])
    assert synack.flags == "SA"


@pytest.mark.parametrize(
    "raw", [b"\x02\x00\x05\xb4", b"\x02\x01\x05\xb4", b"\x08\x28\x00\x00", b"\x02\x03\x05\x00"]
)
def test_an_option_with_an_impossible_length_ends_the_options_and_not_the_connection(
    stack: Stack, raw: bytes
) -> None:
    stack.listen()
    segment = Peer(stack).segment("S")
    segment[TCP].dataofs = 6
    segment[TCP].chksum = None
    segment = segment / raw
    (synack,) = stack.inject(segment)
    assert synack.flags == "SA"


def test_a_port_where_nobody_listens_refuses(stack: Stack) -> None:
    (rst,) = Peer(stack, seq=77).send("S")
    assert (rst.flags, rst.seq, rst.ack) == ("RA", 0, 78)


def test_a_segment_of_no_connection_is_reset_with_its_own_number(stack: Stack) -> None:
    stack.listen()
    (rst,) = Peer(stack).send("A", ack=5555)
    assert (rst.flags, rst.seq) == ("R", 5555)


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_a_reset_is_never_answered(stack: Stack, flags: str) -> None:
    stack.listen()
    assert Peer(stack).send(flags, ack=1) == []
    assert Peer(stack, dport=81).send(flags, ack=1) == []


def test_a_lost_syn_ack_is_sent_again_with_doubling_pauses_and_then_given_up(stack: Stack) -> None:
    listener = stack.listen()
    Peer(stack).send("S")
    said = stack.passes(200_000)
    at = [round(ms / 1000) for ms, p in said if p.flags == "SA"]
    assert at == [1, 3, 7, 15, 31]
    assert stack.shard.next_deadline_ns is None
    assert stack.shard.wait_any(timeout=0) == []
    listener.close()


def test_a_lost_syn_is_sent_again_with_doubling_pauses_and_then_times_out(stack: Stack) -> None:
    token = stack.socket().connect((PEERS[stack.family], 80))
    (first,) = stack.run()
    said = stack.passes(200_000)
    assert [round(ms / 1000) for ms, _ in said] == [1, 3, 7, 15, 31, 63]
    assert {p.seq for _, p in said} == {first.seq}
    assert isinstance(token.wait(0).error, hybrid.QueueError)


def test_a_repeated_syn_is_answered_with_the_same_syn_ack(stack: Stack) -> None:
    stack.listen()
    peer = Peer(stack)
    (first,) = peer.send("S", seq=1000)
    (second,) = peer.send("S", seq=1000)
    assert (second.flags, second.seq, second.ack) == ("SA", first.seq, first.ack)


def test_a_wrong_acknowledgement_of_the_syn_ack_is_reset_and_the_right_one_is_still_good(
    stack: Stack,
) -> None:
    listener = stack.listen()
    peer = Peer(stack)
    (synack,) = peer.send("S")
    (rst,) = peer.send("A", ack=synack.seq + 2)
    assert (rst.flags, rst.seq) == ("R", synack.seq + 2)
    assert peer.send("A", ack=synack.seq + 1) == []
    stack.accepted(listener)


def test_a_connect_is_refused_by_a_reset_that_acknowledges_it_and_by_no_other(stack: Stack) -> None:
    token = stack.socket().connect((PEERS[stack.family], 80))
    (syn,) = stack.run()
    peer = Peer(stack, sport=80, dport=syn.sport)
    peer.send("R")
    peer.send("RA", ack=syn.seq)
    with pytest.raises(hybrid.TimedOutError):
        token.wait(0)
    peer.send("RA", ack=syn.seq + 1)
    assert isinstance(token.wait(0).error, hybrid.QueueError)


def test_a_syn_ack_that_acknowledges_something_else_is_reset(stack: Stack) -> None:
    stack.socket().connect((PEERS[stack.family], 80))
    (syn,) = stack.run()
    (rst,) = Peer(stack, sport=80, dport=syn.sport).send("SA", ack=syn.seq + 9)
    assert (rst.flags, rst.seq) == ("R", syn.seq + 9)


def test_two_that_open_at_once_are_one_connection(stack: Stack) -> None:
    """RFC 9293 figure 8."""
    queue = stack.socket()
    token = queue.connect((PEERS[stack.family], 80))
    (syn,) = stack.run()
    peer = Peer(stack, sport=80, dport=syn.sport)
    (synack,) = peer.send("S")
    assert (synack.flags, synack.seq, synack.ack) == ("SA", syn.seq, peer.seq)
    peer.send("SA", seq=peer.seq - 1, ack=syn.seq + 1)
    assert token.wait(0).error is None
    peer.ack = syn.seq + 1
    peer.send("PA", b"both")
    assert queue.recv(0) == b"both"


def test_spoofed_syns_do_not_keep_others_out(stack: Stack) -> None:
    listener = stack.listen(backlog=4)
    for port in range(100, 200):
        Peer(stack, sport=port).send("S")
    peer = Peer(stack, sport=5000)
    peer.open()
    stack.accepted(listener)


def test_half_open_connections_expire(stack: Stack) -> None:
    stack.listen(backlog=4)
    for port in range(100, 104):
        Peer(stack, sport=port).send("S")
    stack.passes(200_000)
    (answer,) = Peer(stack, sport=100).send("A", ack=1)
    assert answer.flags == "R"


def test_an_unaccepted_backlog_that_is_full_takes_no_more_and_loses_none(stack: Stack) -> None:
    listener = stack.listen(backlog=2)
    for port in (100, 101):
        Peer(stack, sport=port).open()
    assert Peer(stack, sport=102).send("S") == []
    stack.accepted(listener)
    stack.accepted(listener)
    Peer(stack, sport=102).open()
    stack.accepted(listener)


def test_sequence_numbers_and_ports_of_two_runs_differ(stack: Stack) -> None:
    seen = set()
    for seed in (b"a" * 32, b"b" * 32):
        with hybrid.Shard(replace(CONFIG, seed=seed)) as shard, host_table() as table:
            shard.set_host(table)
            other = Stack(shard, shard.attach_wire(1), family=stack.family)
            for _ in range(3):
                other.socket().connect((PEERS[stack.family], 80))
            syns = other.run()
            assert len({p.seq for p in syns}) == len({p.sport for p in syns}) == 3
            seen |= {(p.seq, p.sport) for p in syns}
            for queue in other.kept:
                queue.close()
    assert len(seen) == 6


def test_data_before_accept_is_kept(stack: Stack) -> None:
    listener = stack.listen()
    peer = Peer(stack)
    peer.open()
    peer.send("PA", b"early")
    assert stack.accepted(listener).recv(0) == b"early"


def test_a_connection_reset_before_accept_tells_its_reader(stack: Stack) -> None:
    listener = stack.listen()
    peer = Peer(stack)
    peer.open()
    peer.send("R")
    queue = stack.accepted(listener)
    with pytest.raises(hybrid.QueueError):
        queue.recv(0)


def test_local_and_peer_addresses_are_told(stack: Stack) -> None:
    listener = stack.listen()
    Peer(stack).open()
    queue = stack.accepted(listener)
    assert (str(queue.local.ip), queue.local.port) == (OURS[stack.family], 80)
    assert (str(queue.peer.ip), queue.peer.port) == (PEERS[stack.family], 4321)
