"""The host changes under a connection."""

from __future__ import annotations

import pytest

import hybrid
from tests.stack.conftest import Peer, Stack, describe


def test_data_pushed_without_a_route_leaves_when_the_route_is_back(
    joined: tuple[Stack, Peer, hybrid.Queue],
) -> None:
    stack, peer, conn = joined
    assert stack.table is not None
    describe(stack.table, routes=False)
    conn.post(b"x" * 100)
    assert stack.run() == []
    assert stack.passes(500) == []
    describe(stack.table)
    said = [packet for _, packet in stack.passes(3000)]
    assert peer.take(said[:1]) == b"x" * 100


def test_a_connection_without_a_route_waits_for_its_timer_and_does_not_ask_for_every_pass(
    joined: tuple[Stack, Peer, hybrid.Queue],
) -> None:
    stack, _, conn = joined
    assert stack.table is not None
    describe(stack.table, routes=False)
    conn.post(b"x")
    stack.run()
    assert stack.shard.next_deadline_ns is not None
    assert stack.shard.next_deadline_ns > stack.now_ns


def test_connecting_without_a_route_fails_at_once(stack: Stack) -> None:
    assert stack.table is not None
    describe(stack.table, routes=False)
    stack.run()
    with pytest.raises(hybrid.HybridError, match="route"):
        stack.socket().connect(("10.0.0.9" if stack.family == 4 else "fd00::9", 80))
