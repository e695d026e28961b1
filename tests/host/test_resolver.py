"""What shards report missing is asked for at a bounded rate, and failures are remembered for a while."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

from hybrid.host.kernel import NUD_FAILED, NUD_REACHABLE, NUD_STALE, KernelNeighbour, Key
from hybrid.host.resolver import BURST, FAILED_S, IN_USE_MAX, PENDING_MAX, RATE_PER_S, RETRY_S, Resolver


def key(number: int) -> Key:
    return (1, IPv4Address(0x0A000000 + number))


def state(number: int, nud: int) -> KernelNeighbour:
    return KernelNeighbour(key(number)[1], 1, nud, None if nud == NUD_FAILED else "02:00:00:00:00:01")


def test_one_neighbour_is_asked_for_once_a_second_however_often_it_is_missed() -> None:
    resolver = Resolver()
    asked = []
    for tenth in range(31):
        resolver.missing(key(1), tenth / 10)
        asked += resolver.requests(tenth / 10)
    assert len(asked) == 1 + int(3 / RETRY_S)


def test_many_neighbours_at_once_are_asked_for_at_a_bounded_rate() -> None:
    resolver = Resolver()
    for number in range(500):
        resolver.missing(key(number), 0.0)
    assert len(resolver.requests(0.0)) == BURST
    assert resolver.requests(0.0) == []
    deadline = resolver.next_deadline(0.0)
    assert deadline is not None
    assert 0 < deadline <= 1 / RATE_PER_S
    assert len(resolver.requests(1.0)) == RATE_PER_S


def test_a_flood_of_different_addresses_takes_bounded_memory() -> None:
    resolver = Resolver()
    for number in range(100_000):
        resolver.missing(key(number), 0.0)
    asked = 0
    for second in range(1, 2 + PENDING_MAX // int(RATE_PER_S)):
        asked += len(resolver.requests(float(second)))
    assert asked <= PENDING_MAX
    assert resolver.refused >= 100_000 - PENDING_MAX
    assert len(resolver.in_use) == IN_USE_MAX


def test_a_failed_neighbour_is_left_alone_for_a_while_and_then_tried_again() -> None:
    resolver = Resolver()
    resolver.missing(key(1), 0.0)
    resolver.requests(0.0)
    resolver.changed(state(1, NUD_FAILED), (), 1.0)
    resolver.missing(key(1), 1.0 + FAILED_S - 0.01)
    assert resolver.requests(1.0 + FAILED_S) == []
    assert resolver.refused == 1
    resolver.missing(key(1), 1.0 + FAILED_S + 0.01)
    assert resolver.requests(1.0 + FAILED_S + 0.01) == [key(1)]


def test_a_neighbour_that_answers_after_all_is_forgiven_at_once() -> None:
    resolver = Resolver()
    resolver.changed(state(1, NUD_FAILED), (), 0.0)
    resolver.changed(state(1, NUD_REACHABLE), (), 0.1)
    resolver.missing(key(1), 0.2)
    assert resolver.requests(0.2) == [key(1)]


def test_only_neighbours_in_use_and_gateways_are_confirmed_when_they_go_stale() -> None:
    resolver = Resolver()
    resolver.missing(key(1), 0.0)
    resolver.requests(0.0)
    gateway = (1, ip_address("10.0.0.2"))
    for number in (1, 2, 3):
        resolver.changed(state(number, NUD_STALE), {gateway}, 60.0)
    assert sorted(resolver.requests(60.0)) == [key(1), key(2)]


def test_a_neighbour_that_goes_stale_right_after_it_was_asked_for_is_confirmed_a_second_later() -> None:
    resolver = Resolver()
    resolver.missing(key(1), 0.0)
    resolver.requests(0.0)
    resolver.changed(state(1, NUD_STALE), (), 0.1)
    assert resolver.requests(0.2) == []
    assert resolver.next_deadline(0.2) == RETRY_S
    assert resolver.requests(RETRY_S) == [key(1)]


def test_a_neighbour_in_use_that_fails_is_in_use_no_longer() -> None:
    resolver = Resolver()
    resolver.missing(key(1), 0.0)
    resolver.changed(state(1, NUD_FAILED), (), 1.0)
    assert key(1) not in resolver.in_use
