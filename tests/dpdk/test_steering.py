"""How XDP steers into DPDK: by a devmap into a veth that a port owns, and by our program in DPDK's own driver.

In both, rules name what is DPDK's, and the kernel has the rest of one and the same address.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from hybrid.bpf import Steering, dpdk_object
from hybrid.lab import Lab
from hybrid.policy.rule import Protocol, Rule, Target
from tests.dpdk.ports import DpdkApp
from tests.netns.peers import KERNEL_PORT, MIB, PORT, Listener, Peer, Received, random_bytes

pytestmark = pytest.mark.netns

AF_XDP = 44
ADDRESS = "10.77.0.1"
RULES = [Rule("served", 0, Target.DPDK, Protocol.TCP, ports=(PORT, PORT))]
NEAR, FAR = "hyd0", "hyd1"


@pytest.fixture
def driver(lab: Lab, dpdk_app_for: Callable[..., DpdkApp]) -> Iterator[tuple[DpdkApp, Steering]]:
    """DPDK's net_af_xdp loads our program, and its rules are filled in afterwards."""
    app = dpdk_app_for(lab, "af_xdp", shared=True, devargs=f"net_af_xdp0,iface=hys0,xdp_prog={dpdk_object()}")
    with lab.server.call(lambda: Steering.adopt("hys0")) as steering:
        yield app, steering


@pytest.fixture
def devmap(lab: Lab, dpdk_app_for: Callable[..., DpdkApp]) -> Iterator[tuple[DpdkApp, Steering]]:
    """Our program owns the interface and redirects into a veth whose far end a DPDK port owns."""
    for command in (
        ["ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR],
        ["ip", "link", "set", NEAR, "addrgenmode", "none", "up"],
        ["ip", "link", "set", FAR, "addrgenmode", "none", "up"],
    ):
        lab.server.run(command)
    app = dpdk_app_for(lab, "af_xdp", shared=True, devargs=f"net_af_xdp0,iface={FAR}")
    with (
        lab.server.call(lambda: Steering.attach("hys0")) as steering,
        socket.socket(AF_XDP, socket.SOCK_RAW) as lease,
    ):
        lab.server.call(lambda: steering.set_port(NEAR))
        steering.lease(lease.fileno())
        yield app, steering
        lab.server.call(steering.detach)


@pytest.mark.parametrize("way", ["driver", "devmap"])
def test_rules_name_what_is_dpdks(lab: Lab, way: str, request: pytest.FixtureRequest) -> None:
    app, steering = request.getfixturevalue(way)
    lab.client.run(["ping", "-c", "1", "-W", "5", ADDRESS])
    steering.replace_rules(RULES)
    lab.client.run(["ping", "-c", "1", "-W", "5", ADDRESS])
    data = random_bytes(4 * MIB)
    with app.dial("take") as peer:
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
        name = str(peer.port)
    assert app.result(name)["status"] == 0
    with (
        Listener(lab.server, KERNEL_PORT) as listener,
        Peer.dial(lab.client, ADDRESS, port=KERNEL_PORT) as near,
        listener.accept() as far,
    ):
        near.send_all(data[: 64 << 10])  # as much as the kernel's buffers hold
        near.end()
        assert far.read_all() == Received.of(data[: 64 << 10])
    counters = steering.counters()
    assert counters.rule("served").hit.packets > 100
    assert counters.rule("served").no_socket.packets == 0
    assert counters.reason("no-match").packets > 0


def test_a_foreign_program_is_not_adopted(lab: Lab, dpdk_app_for: Callable[..., DpdkApp]) -> None:
    dpdk_app_for(lab, "af_xdp")
    with pytest.raises(Exception, match="is not hybrid's"):
        lab.server.call(lambda: Steering.adopt("hys0"))
