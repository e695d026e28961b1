"""What is sent arrives: from one byte to 64 MiB, in one piece and in many, both ways, both families."""

from __future__ import annotations

import pytest

from tests.backends.harness.meeting import Meet

KIB, MIB = 1 << 10, 1 << 20
SIZES = [1, 2, 1447, 1448, 1449, 64 * KIB, MIB, 64 * MIB]


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("size", SIZES)
def test_what_we_send_arrives(meet: Meet, size: int) -> None:
    ours, theirs = meet()
    taken = theirs.pop()
    pushed = ours.push(size).result()
    ours.shutdown()
    got = taken.result()
    assert got.moved == pushed.moved
    assert got.bytes == size


@pytest.mark.parametrize("size", SIZES)
def test_what_they_send_arrives(meet: Meet, size: int) -> None:
    ours, theirs = meet()
    taken = ours.pop()
    pushed = theirs.push(size).result()
    theirs.shutdown()
    got = taken.result()
    assert got.moved == pushed.moved
    assert got.bytes == size
    assert got.ended


@pytest.mark.parametrize("piece", [1, 100, 1500, 5000])
def test_pieces_of_any_size_are_one_stream(meet: Meet, piece: int) -> None:
    ours, theirs = meet()
    taken = theirs.pop()
    pushed = ours.push(2000 * min(piece, 100), piece).result()
    ours.shutdown()
    assert taken.result().moved == pushed.moved


def test_both_ways_at_once(meet: Meet, family: int) -> None:
    ours, theirs = meet(family)
    came, went = ours.pop(), theirs.pop()
    pushing = ours.push(8 * MIB), theirs.push(8 * MIB)
    for sock, pushed, taken in zip((ours, theirs), pushing, (went, came), strict=True):
        sent = pushed.result()
        sock.shutdown()
        assert taken.result().moved == sent.moved


def test_what_they_send_comes_back(meet: Meet, family: int) -> None:
    ours, theirs = meet(family)
    echoed = ours.echo()
    back = theirs.pop()
    pushed = theirs.push(4 * MIB).result()
    theirs.shutdown()
    assert echoed.result().moved == pushed.moved
    assert back.result().moved == pushed.moved
