"""Queues over two shards joined by the memory device: what is pushed at one end is popped at the other."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest

import hybrid
from tests.api.conftest import Two

# Not what these are about: the shard closes them.
pytestmark = pytest.mark.filterwarnings("ignore:queue .* was never closed:ResourceWarning")


@pytest.mark.parametrize("ip", ["10.0.0.2", "fd00::2"])
def test_what_one_end_sends_the_other_receives(two: Two, ip: str) -> None:
    near, far = two.connected(ip=ip)
    assert far.peer == near.local
    assert near.peer == hybrid.Address(ip_address(ip), 80)
    near.send(b"ping")
    assert two.wait(far.pop()).check().sga is not None
    far.send(b"pong")
    event = two.wait(near.pop()).check()
    assert event.sga is not None
    with event.sga as sga:
        assert bytes(sga) == b"pong"


def test_a_push_completes_when_the_peer_has_acknowledged_it(two: Two) -> None:
    near, _far = two.connected()
    token = near.push(b"x" * 1000)
    with pytest.raises(hybrid.TimedOutError):
        token.wait(0)
    assert two.wait(token).status == 0


def test_a_large_transfer_arrives_whole_and_in_order(two: Two) -> None:
    near, far = two.connected()
    sent = bytes(range(256)) * 2000
    received = b""
    pop = far.pop()
    at = 0
    while len(received) < len(sent):
        while at < len(sent):
            try:
                near.post(sent[at : at + two.a.sga_max])
            except (hybrid.WouldBlockError, hybrid.LimitError):
                break
            at += two.a.sga_max
        with two.wait(pop).check().sga as sga:
            received += bytes(sga)
        pop = far.pop()
    assert received == sent


def test_the_end_of_a_stream_is_an_event_without_bytes(two: Two) -> None:
    near, far = two.connected()
    near.send(b"last words")
    near.shutdown()
    first = two.wait(far.pop()).check()
    assert first.sga is not None
    assert bytes(first.sga) == b"last words"
    first.sga.free()
    assert two.wait(far.pop()).check().sga is None


def test_a_port_where_nobody_listens_refuses(two: Two) -> None:
    near = two.a.socket()
    event = two.wait(near.connect("10.0.0.2:81"))
    assert isinstance(event.error, ConnectionRefusedError)
    with pytest.raises(hybrid.RefusedError, match="connect"):
        event.check()


def test_an_abort_reaches_the_peer_as_a_reset(two: Two) -> None:
    near, far = two.connected()
    pop = far.pop()
    near.abort()
    assert isinstance(two.wait(pop).error, ConnectionResetError)


def test_closing_a_queue_cancels_what_it_was_doing(two: Two) -> None:
    near, _far = two.connected()
    pop = near.pop()
    near.close()
    assert isinstance(two.wait(pop).error, hybrid.CancelledError)
    with pytest.raises(hybrid.QueueError) as caught:
        near.pop()
    assert caught.value.errno == errno.EBADF


def test_a_cancelled_operation_says_so_and_cannot_be_cancelled_twice(two: Two) -> None:
    near, _far = two.connected()
    pop = near.pop()
    assert pop.cancel()
    assert isinstance(pop.wait(0).error, hybrid.CancelledError)
    assert not pop.cancel()
    with pytest.raises(hybrid.StaleTokenError):
        pop.wait(0)


def test_many_completions_come_from_one_wait(two: Two) -> None:
    near, _far = two.connected()
    tokens = {near.push(bytes([n])) for n in range(10)}
    two.run(100)
    events = two.a.wait_any(64, 0)
    assert {event.token for event in events} == tokens
    assert all(event.op is hybrid.Op.PUSH and event.queue is near for event in events)
    assert two.a.wait_any(64, 0) == []


def test_a_datagram_arrives_with_its_sender(two: Two) -> None:
    sender = two.a.socket(hybrid.Kind.DGRAM).bind(":5000")
    receiver = two.b.socket(hybrid.Kind.DGRAM).bind(":53")
    sender.sendto(b"question", ("10.0.0.2", 53))
    event = two.wait(receiver.pop()).check()
    assert event.address == hybrid.Address(ip_address("10.0.0.1"), 5000)
    assert event.sga is not None
    assert bytes(event.sga) == b"question"


def test_a_port_cannot_be_bound_twice(two: Two) -> None:
    first = two.a.socket().bind(":80").listen()
    assert first.local.port == 80
    with pytest.raises(hybrid.AddressInUseError) as caught:
        two.a.socket().bind(":80").listen()
    assert caught.value.remedy


def test_an_address_of_somebody_else_cannot_be_bound(two: Two) -> None:
    with pytest.raises(hybrid.AddressNotAvailableError):
        two.a.socket().bind("10.0.0.9:80")


def test_only_so_many_queues_can_be_open(shard: hybrid.Shard) -> None:
    queues = [shard.socket() for _ in range(64)]
    with pytest.raises(hybrid.LimitError):
        shard.socket()
    queues[0].close()
    shard.socket().close()


def test_a_queue_that_nobody_holds_any_more_is_closed_and_complained_of(shard: hybrid.Shard) -> None:
    for _ in range(200):
        with pytest.warns(ResourceWarning, match="never closed"):
            shard.socket()
        shard.poll()


def test_waiting_with_the_virtual_clock_makes_one_pass(shard: hybrid.Shard) -> None:
    assert shard.wait_any(timeout=None) == []


def test_statistics_are_numbers_by_name(two: Two) -> None:
    two.connected()
    stats = two.b.stats()
    assert set(stats) == set(hybrid.stat_names())
    assert stats["device_rx_frames"] >= 2
    assert all(hybrid.stat_help()[name] for name in stats)
