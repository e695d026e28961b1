"""Whatever is closed, freed or forgotten in whatever order: Python never looks at memory that is gone."""

from __future__ import annotations

import gc
import threading

import pytest

import hybrid
from tests.api.conftest import SMALL, Two

# Not what these are about: the shard closes them.
pytestmark = pytest.mark.filterwarnings("ignore:queue .* was never closed:ResourceWarning")


def test_every_use_of_a_closed_shard_says_that_it_is_closed() -> None:
    shard = hybrid.Shard(SMALL)
    queue = shard.socket()
    sga = shard.alloc(10)
    shard.close()
    shard.close()
    for use in (
        shard.poll,
        shard.socket,
        shard.stats,
        queue.pop,
        lambda: queue.bind(":1"),
        lambda: bytes(sga),
        lambda: sga.views,
    ):
        with pytest.raises(hybrid.ShardClosedError, match="closed"):
            use()
    queue.close()
    sga.free()


def test_views_end_with_the_shard() -> None:
    shard = hybrid.Shard(SMALL)
    sga = shard.alloc(10)
    view = sga.views[0]
    shard.close()
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_a_slice_keeps_its_memory_beyond_the_shard_and_everything_else_ends() -> None:
    shard = hybrid.Shard(SMALL)
    sga = shard.alloc(4)
    sga.write(b"kept")
    piece = sga.views[0][1:3]
    shard.close()
    assert bytes(piece) == b"ep"
    with pytest.raises(hybrid.ShardClosedError):
        shard.poll()
    del sga, shard
    gc.collect()
    assert bytes(piece) == b"ep"
    piece.release()


def test_a_slice_keeps_its_frame_from_being_used_again() -> None:
    with hybrid.Shard(SMALL) as shard:
        first = shard.alloc(4)
        first.write(b"mine")
        piece = first.views[0][:]
        first.free()
        others = [shard.alloc(4) for _ in range(100)]
        for other in others:
            other.write(b"else")
        assert bytes(piece) == b"mine"
        piece.release()


def test_a_freed_buffer_has_no_views_and_no_bytes() -> None:
    with hybrid.Shard(SMALL) as shard:
        with shard.alloc(8) as sga:
            view = sga.views[0]
            view[:] = b"12345678"
            assert bytes(sga) == b"12345678"
        with pytest.raises(ValueError, match="released"):
            bytes(view)
        with pytest.raises(ValueError, match="freed or pushed"):
            bytes(sga)
        sga.free()


def test_buffers_that_nobody_holds_any_more_come_back() -> None:
    with hybrid.Shard(SMALL) as shard:
        for _ in range(10 * 2048):
            shard.alloc(1000)


def test_frames_that_the_program_holds_are_bounded() -> None:
    with hybrid.Shard(SMALL) as shard:
        held = []
        with pytest.raises(hybrid.LimitError) as caught:
            for _ in range(2048):
                held.append(shard.alloc(1000))
        assert caught.value.remedy
        assert len(held) == 1024
        held.pop().free()
        shard.alloc(1000).free()


def test_received_bytes_are_seen_without_a_copy_and_read_only(two: Two) -> None:
    near, far = two.connected()
    near.send(b"look")
    event = two.wait(far.pop()).check()
    assert event.sga is not None
    with event.sga as sga:
        assert b"".join(sga.views) == b"look"
        with pytest.raises(TypeError):
            sga.views[0][0] = 1
        with pytest.raises(TypeError, match="read-only"):
            sga.write(b"over")


def test_received_bytes_can_be_sent_on_without_a_copy(two: Two) -> None:
    near, far = two.connected()
    near.send(b"echo")
    sga = two.wait(far.pop()).check().sga
    assert sga is not None
    token = far.push(sga)
    with pytest.raises(ValueError, match="freed or pushed"):
        bytes(sga)
    back = two.wait(near.pop()).check().sga
    assert back is not None
    assert bytes(back) == b"echo"
    assert two.wait(token).status == 0


def test_a_buffer_is_not_pushed_while_somebody_could_still_write_to_it(two: Two) -> None:
    near, far = two.connected()
    sga = two.a.alloc(4)
    piece = sga.views[0][:2]
    with pytest.raises(hybrid.ViewsHeldError):
        near.push(sga)
    piece.release()
    sga.write(b"safe")
    near.push(sga)
    received = two.wait(far.pop()).check().sga
    assert received is not None
    assert bytes(received) == b"safe"


def test_the_same_bytes_can_be_pushed_twice_by_a_second_reference(two: Two) -> None:
    near, far = two.connected()
    first = two.a.buffer(b"twice ")
    second = first.ref()
    near.post(first)
    near.post(second)
    two.run(20)
    sga = two.wait(far.pop()).check().sga
    assert sga is not None
    received = bytes(sga)
    while len(received) < 12:
        sga = two.wait(far.pop()).check().sga
        assert sga is not None
        received += bytes(sga)
    assert received == b"twice twice "


def test_a_push_that_fails_leaves_the_buffer_with_the_program(two: Two) -> None:
    sga = two.a.buffer(b"unsent")
    unconnected = two.a.socket()
    with pytest.raises(hybrid.NotConnectedError):
        unconnected.push(sga)
    assert bytes(sga) == b"unsent"


def test_the_host_table_may_go_before_the_shards_that_follow_it(two: Two) -> None:
    two.connected()
    gc.collect()
    table = hybrid.Host()
    two.a.set_host(table)
    table.close()
    table.close()
    two.run(10)
    with pytest.raises(hybrid.HybridError, match="closed"):
        table.update()


@pytest.mark.parametrize("first", ["a", "b"])
def test_either_end_of_a_link_may_be_closed_first(two: Two, first: str) -> None:
    near, _far = two.connected()
    near.send(b"in flight")
    getattr(two, first).close()
    two.run(20)


def test_a_second_thread_is_turned_away_while_one_waits() -> None:
    config = hybrid.Config(frames=256, sockets=8, connections=8, tokens=8, hugepages=hybrid.Hugepages.NO)
    with hybrid.Shard(config) as shard:
        waiting = threading.Event()
        refused: list[BaseException] = []

        def intrude() -> None:
            waiting.wait(10)
            for _ in range(100_000):
                try:
                    shard.poll()
                except hybrid.ShardBusyError as error:
                    refused.append(error)
                    return

        thread = threading.Thread(target=intrude)
        thread.start()
        waiting.set()
        while thread.is_alive():
            try:
                shard.wait_any(timeout=0.2)
            except hybrid.ShardBusyError:
                continue
        thread.join()
        assert refused


def test_a_token_of_another_shard_is_refused(two: Two) -> None:
    near, _far = two.connected()
    with pytest.raises(ValueError, match="another shard"):
        two.b.wait(near.pop(), 0)
