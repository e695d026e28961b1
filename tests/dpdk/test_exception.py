"""The NIC is DPDK's whole: what no rule names goes to the kernel and back through net_tap."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hybrid.lab import Lab
from tests.dpdk.ports import DpdkApp
from tests.netns.peers import KERNEL_PORT, MIB, Listener, Peer, Received, random_bytes

pytestmark = pytest.mark.netns

TAP = "hyx0"
ADDRESS = "10.77.0.1"


@pytest.fixture
def app(lab: Lab, dpdk_app_for: Callable[..., DpdkApp]) -> DpdkApp:
    """The namespace's addresses move from the NIC, whose frames no kernel sees any more, to the tap."""
    made = dpdk_app_for(
        lab,
        "af_xdp",
        shared=True,
        DPDK_EXCEPTION=f"net_tap0,iface={TAP}",
    )
    for command in (
        ["ip", "addr", "flush", "dev", lab.server.interface],
        ["ip", "addr", "add", f"{ADDRESS}/24", "dev", TAP],
        ["ip", "link", "set", TAP, "up"],
    ):
        lab.server.run(command)
    return made


def test_the_kernel_and_the_stack_share_one_address(lab: Lab, app: DpdkApp) -> None:
    assert app.obtained["answers_arp"] == 0
    lab.client.run(["ping", "-c", "2", "-W", "5", ADDRESS])  # ARP and ICMP are the kernel's
    data = random_bytes(MIB)
    with app.dial("take") as peer:  # a rule's port
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
        name = str(peer.port)
    assert app.result(name)["status"] == 0
    assert app.stats()["device_passed"] > 4


def test_other_ports_are_the_kernels(lab: Lab, app: DpdkApp) -> None:
    data = random_bytes(64 << 10)  # as much as the kernel's buffers hold
    with (
        Listener(lab.server, KERNEL_PORT) as listener,
        Peer.dial(lab.client, ADDRESS, port=listener.port) as near,
        listener.accept() as far,
    ):
        near.send_all(data)
        near.end()
        assert far.read_all() == Received.of(data)
    assert app.stats()["tcp_in"] == 0
