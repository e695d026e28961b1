"""DPDK ports from Python."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_network

import pytest

import hybrid

CONFIG = hybrid.Config(frames=4096, frame_prefix_bytes=hybrid.DPDK_PREFIX_BYTES)


def join(number: int) -> tuple[hybrid.Shard, hybrid.Host]:
    shard, host = hybrid.Shard(CONFIG), hybrid.Host()
    got = shard.attach_dpdk(hybrid.DpdkPort(port="ring:api"))
    assert (got.driver, got.running, got.answers_arp) == ("net_ring", True, True)
    host.update(
        [hybrid.Link(1, got.mac, answers_arp=got.answers_arp)],
        [hybrid.LocalAddress(ip_address(f"10.9.0.{number}"), 24, 1)],
        [hybrid.Route(ip_network("10.9.0.0/24"), 1)],
    )
    shard.set_host(host)
    return shard, host


def test_two_shards_talk_over_rings() -> None:
    (a, _), (b, _) = join(1), join(2)
    with a, b, a.socket() as listener, b.socket() as caller:
        listener.bind("10.9.0.1:7").listen()
        accepting, calling = listener.accept(), caller.connect("10.9.0.1:7")
        events: list[hybrid.Event] = []
        while len(events) < 2:
            events += a.wait_any(timeout=0) + b.wait_any(timeout=0)
        assert {event.token for event in events} == {accepting, calling}
        assert all(event.status == 0 for event in events)
        hybrid.stop_dpdk("ring:api/0")
        while a.stats()["devices_lost"] == 0:
            a.poll()


def test_what_cannot_be_had_says_what_to_do() -> None:
    with hybrid.Shard() as shard, pytest.raises(hybrid.AttachError, match="frame_prefix_bytes") as raised:
        shard.attach_dpdk(hybrid.DpdkPort(port="ring:x"))
    assert raised.value.errno == errno.EINVAL
    with hybrid.Shard(CONFIG) as shard, pytest.raises(hybrid.AttachError, match="net_nothing0") as raised:
        shard.attach_dpdk(hybrid.DpdkPort(port="net_nothing0"))
    assert raised.value.errno == errno.ENODEV


def test_a_port_that_nobody_has_is_not_stopped() -> None:
    with pytest.raises(hybrid.QueueError):
        hybrid.stop_dpdk("net_nothing0")
