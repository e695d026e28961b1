"""The host table follows the kernel of its namespace, and the kernel resolves what shards miss."""

from __future__ import annotations

import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from hybrid.api.address import Address
from hybrid.host.follower import Follower
from hybrid.host.notice import Notice, NoticeKind
from hybrid.host.table import Rows
from hybrid.host.thread import HostThread
from hybrid.lab import netns

WITHIN_S = 10


class Recorder:
    """What the follower publishes, with a wait for the moment when it looks as it should."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.rows = Rows()

    def __call__(self, rows: Rows) -> None:
        with self._changed:
            self.rows = rows
            self._changed.notify_all()

    def until(self, looks_right: Callable[[Rows], bool]) -> Rows:
        with self._changed:
            assert self._changed.wait_for(lambda: looks_right(self.rows), WITHIN_S), self.rows
            return self.rows


@pytest.fixture
def table() -> Recorder:
    return Recorder()


@pytest.fixture
def follower(pair, table: Recorder) -> Iterator[HostThread]:
    with HostThread(["v0"], prepare=lambda: netns.enter(pair.here), publish=table) as running:
        yield running


def report_missing(follower: HostThread, rows: Rows, ip: str) -> None:
    notice = Notice(NoticeKind.NEIGH_MISSING, rows.links[0].ifindex, Address(ip_address(ip)))
    with socket.socket(fileno=socket.dup(follower.notice_fd)) as sender:
        sender.send(notice.pack())


def neighbours(rows: Rows) -> dict[str, str]:
    return {str(n.ip): n.mac for n in rows.neighbours}


def test_the_first_table_has_the_link_its_addresses_and_on_link_routes(pair, follower, table) -> None:
    rows = table.until(lambda rows: len(rows.routes) >= 2)
    assert [link.mtu_bytes for link in rows.links] == [1500]
    assert rows.links[0].mac in pair.ip(pair.here, "link show v0")
    ifindex = rows.links[0].ifindex
    assert (ip_address("10.77.0.1"), 24, ifindex) in [(a.ip, a.prefix_len, a.ifindex) for a in rows.addresses]
    assert (ip_address("fd77::1"), 64, ifindex) in [(a.ip, a.prefix_len, a.ifindex) for a in rows.addresses]
    routes = {r.dst: r for r in rows.routes}
    assert routes[ip_network("10.77.0.0/24")].gateway is None
    assert routes[ip_network("10.77.0.0/24")].source == ip_address("10.77.0.1")
    assert routes[ip_network("fd77::/64")].ifindex == ifindex
    assert not any(r.dst.is_multicast for r in rows.routes)


def test_an_address_that_is_added_and_removed_comes_and_goes(pair, follower, table) -> None:
    added = ip_address("192.0.2.9")
    pair.ip(pair.here, "addr add 192.0.2.9/28 dev v0")
    table.until(lambda rows: added in [a.ip for a in rows.addresses])
    table.until(lambda rows: ip_network("192.0.2.0/28") in [r.dst for r in rows.routes])
    pair.ip(pair.here, "addr del 192.0.2.9/28 dev v0")
    table.until(lambda rows: added not in [a.ip for a in rows.addresses])
    table.until(lambda rows: ip_network("192.0.2.0/28") not in [r.dst for r in rows.routes])


def test_an_ipv6_address_is_not_used_before_duplicate_detection_has_passed(pair, follower, table) -> None:
    seen: list[Rows] = []
    pair.ip(pair.here, "addr add fd77::99/64 dev v0")
    shown = pair.ip(pair.here, "-6 addr show dev v0 tentative")
    if "fd77::99" in shown:
        seen.append(table.rows)
    table.until(lambda rows: ip_address("fd77::99") in [a.ip for a in rows.addresses])
    assert "fd77::99" not in pair.ip(pair.here, "-6 addr show dev v0 tentative")
    assert all(ip_address("fd77::99") not in [a.ip for a in rows.addresses] for rows in seen)


@pytest.mark.parametrize(
    ("command", "dst", "gateway"),
    [
        ("route add default via 10.77.0.2", "0.0.0.0/0", "10.77.0.2"),
        ("route add 198.51.100.0/24 via 10.77.0.2 metric 7 mtu 1400", "198.51.100.0/24", "10.77.0.2"),
        ("route add 203.0.113.0/24 dev v0", "203.0.113.0/24", None),
        ("route add 203.0.113.0/24 via inet6 fd77::2", "203.0.113.0/24", "fd77::2"),
        ("-6 route add default via fd77::2", "::/0", "fd77::2"),
        ("-6 route add 2001:db8::/32 dev v0", "2001:db8::/32", None),
        (
            "route add 198.51.100.0/24 nexthop via 10.77.0.2 nexthop via 10.77.0.3",
            "198.51.100.0/24",
            "10.77.0.2",
        ),
    ],
)
def test_a_route_that_is_added_and_removed_comes_and_goes(
    pair, follower, table, command: str, dst: str, gateway: str | None
) -> None:
    pair.ip(pair.here, command)
    rows = table.until(lambda rows: ip_network(dst) in [r.dst for r in rows.routes])
    route = next(r for r in rows.routes if r.dst == ip_network(dst))
    assert route.gateway == (ip_address(gateway) if gateway else None)
    assert route.ifindex == rows.links[0].ifindex
    if "metric" in command:
        assert (route.metric, route.mtu_bytes) == (7, 1400)
    pair.ip(pair.here, command.replace(" add ", " del "))
    table.until(lambda rows: ip_network(dst) not in [r.dst for r in rows.routes])


def test_a_route_that_refuses_packets_has_no_interface(pair, follower, table) -> None:
    pair.ip(pair.here, "route add unreachable 198.51.100.0/24")
    rows = table.until(lambda rows: ip_network("198.51.100.0/24") in [r.dst for r in rows.routes])
    assert next(r for r in rows.routes if r.dst == ip_network("198.51.100.0/24")).ifindex == 0


def test_a_links_mtu_and_ethernet_address_are_followed(pair, follower, table) -> None:
    pair.ip(pair.here, "link set v0 mtu 1280")
    table.until(lambda rows: [link.mtu_bytes for link in rows.links] == [1280])
    pair.ip(pair.here, "link set v0 address 02:00:00:00:00:42")
    table.until(lambda rows: [link.mac for link in rows.links] == ["02:00:00:00:00:42"])


def test_a_link_that_is_taken_down_leaves_with_its_routes_and_comes_back(pair, follower, table) -> None:
    table.until(lambda rows: ip_network("10.77.0.0/24") in [r.dst for r in rows.routes])
    pair.ip(pair.here, "link set v0 down")
    table.until(
        lambda rows: not rows.links and ip_network("10.77.0.0/24") not in [r.dst for r in rows.routes]
    )
    pair.ip(pair.here, "link set v0 up")
    table.until(lambda rows: bool(rows.links) and ip_network("10.77.0.0/24") in [r.dst for r in rows.routes])


def test_a_link_of_which_no_shard_has_a_queue_is_not_handed_on(pair, follower, table) -> None:
    pair.ip(pair.here, "link add w0 type veth peer name w1")
    pair.ip(pair.here, "addr add 192.0.2.1/32 dev w0")
    rows = table.until(lambda rows: ip_address("192.0.2.1") in [a.ip for a in rows.addresses])
    assert len(rows.links) == 1


@pytest.mark.parametrize("ip", ["10.77.0.2", "fd77::2"])
def test_a_neighbour_that_a_shard_misses_is_resolved_by_the_kernel(pair, follower, table, ip: str) -> None:
    rows = table.until(lambda rows: bool(rows.links))
    assert ip not in neighbours(rows)
    report_missing(follower, rows, ip)
    rows = table.until(lambda rows: ip in neighbours(rows))
    assert neighbours(rows)[ip] in pair.ip(pair.there, "link show v1")


def test_a_neighbour_whose_resolution_failed_is_not_handed_on(pair, follower, table) -> None:
    rows = table.until(lambda rows: bool(rows.links))
    report_missing(follower, rows, "10.77.0.66")
    report_missing(follower, rows, "10.77.0.2")
    rows = table.until(lambda rows: "10.77.0.2" in neighbours(rows))
    assert "10.77.0.66" not in neighbours(rows)
    assert "10.77.0.66" in pair.ip(pair.here, "neigh show nud all dev v0"), "the kernel was not asked"


def test_a_neighbour_set_by_hand_follows_each_change(pair, follower, table) -> None:
    pair.ip(pair.here, "neigh add 10.77.0.50 lladdr 02:00:00:00:00:50 dev v0")
    table.until(lambda rows: neighbours(rows).get("10.77.0.50") == "02:00:00:00:00:50")
    pair.ip(pair.here, "neigh replace 10.77.0.50 lladdr 02:00:00:00:00:51 dev v0")
    table.until(lambda rows: neighbours(rows).get("10.77.0.50") == "02:00:00:00:00:51")
    pair.ip(pair.here, "neigh del 10.77.0.50 dev v0")
    table.until(lambda rows: "10.77.0.50" not in neighbours(rows))


def test_a_neighbour_in_use_that_goes_stale_is_confirmed_and_leaves_when_it_is_silent(
    pair, follower, table
) -> None:
    for knob, value in (("delay_first_probe_time", "1"), ("retrans_time_ms", "100")):
        setting = f"net.ipv4.neigh.v0.{knob}={value}"
        subprocess.run(["ip", "netns", "exec", pair.here, "sysctl", "-qw", setting], check=True)
    report_missing(follower, table.until(lambda rows: bool(rows.links)), "10.77.0.2")
    mac = neighbours(table.until(lambda rows: "10.77.0.2" in neighbours(rows)))["10.77.0.2"]
    pair.ip(pair.there, "link set v1 address 02:00:00:00:00:77")
    # The kernel sends nothing there of itself: only because it is asked to does it notice the silence.
    pair.ip(pair.here, f"neigh replace 10.77.0.2 lladdr {mac} nud stale dev v0")
    rows = table.until(lambda rows: "10.77.0.2" not in neighbours(rows))
    assert rows.links


def test_changes_that_the_kernel_had_to_throw_away_are_read_anew(pair, table) -> None:
    def overrun() -> int:
        with Follower(table, ["v0"], rcvbuf_bytes=2048) as follower:
            lines = [f"neigh add 10.77.0.{n} lladdr 02:00:00:00:01:{n:02x} dev v0" for n in range(10, 200)]
            subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
            follower.on_readable()
            while (deadline := follower.deadline) is not None:
                select.select([], [], [], max(0.0, deadline - time.monotonic()))
                follower.on_timer()
            return follower.overruns

    assert netns.run_in(pair.here, overrun) >= 1
    assert neighbours(table.rows)["10.77.0.199"] == "02:00:00:00:01:c7"
    assert len(neighbours(table.rows)) == 190
