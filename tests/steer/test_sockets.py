"""AF_XDP sockets in service, and what happens to frames when one is not."""

from __future__ import annotations

import errno
import select
import socket

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from hybrid.bpf import Steering, XdpMode
from hybrid.errors import HybridError
from hybrid.policy.rule import Protocol, Rule, Target

from .lab import Veth, Xsk, run
from .reference import PASS, REDIRECT

ETHER = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
FRAME = bytes(ETHER / IP(dst="10.0.0.1") / TCP(dport=6379))
STEER = Rule("kv", 0, Target.AFXDP, Protocol.TCP, ports=(6379, 6379))


def test_a_match_goes_to_the_socket_of_the_queue_it_arrived_on(veth: Veth) -> None:
    with Steering.attach(veth.near, XdpMode.NATIVE) as steering:
        steering.replace_rules([STEER])
        ifindex = socket.if_nametoindex(veth.near)
        sockets = {queue: Xsk().bind(veth.near, queue) for queue in (0, 2)}
        for queue, xsk in sockets.items():
            steering.enter(queue, xsk.fileno())
        assert steering.sockets() == [0, 2]
        actions = {q: steering.test_run(FRAME, ifindex=ifindex, queue=q)[0] for q in range(4)}
        assert actions == {0: REDIRECT, 1: PASS, 2: REDIRECT, 3: PASS}
        counters = steering.counters()
        assert counters.rule("kv").hit.packets == 4
        assert counters.rule("kv").no_socket.packets == 2
        assert counters.reason("redirected").packets == 2
        assert counters.reason("no-socket").packets == 2
        for xsk in sockets.values():
            xsk.close()


def test_a_closed_socket_leaves_its_queue_to_the_kernel(veth: Veth) -> None:
    with Steering.attach(veth.near, XdpMode.NATIVE) as steering:
        steering.replace_rules([STEER])
        ifindex = socket.if_nametoindex(veth.near)
        xsk = Xsk().bind(veth.near, 1)
        steering.enter(1, xsk.fileno())
        assert steering.test_run(FRAME, ifindex=ifindex, queue=1)[0] == REDIRECT
        xsk.close()
        assert steering.test_run(FRAME, ifindex=ifindex, queue=1)[0] == PASS
        assert steering.sockets() == []


def test_leaving_takes_a_socket_out_of_service(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        xsk = Xsk().bind(veth.near, 3)
        steering.enter(3, xsk.fileno())
        assert steering.sockets() == [3]
        steering.leave(3)
        steering.leave(3)  # once more is no error
        assert steering.sockets() == []
        xsk.close()


def test_only_a_match_goes_to_the_socket(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        steering.replace_rules([STEER])
        xsk = Xsk().bind(veth.near, 0)
        steering.enter(0, xsk.fileno())
        for other in (
            ETHER / IP(dst="10.0.0.1") / TCP(dport=6380),
            ETHER / IP(dst="10.0.0.1") / UDP(dport=6379),
            ETHER / IP(dst="10.0.0.1", flags="MF") / TCP(dport=6379),
        ):
            assert steering.test_run(bytes(other))[0] == PASS
        assert steering.test_run(bytes(ETHER / IPv6(dst="fd00::1") / TCP(dport=6379)))[0] == REDIRECT
        xsk.close()


@pytest.mark.parametrize("mode", [XdpMode.NATIVE, XdpMode.GENERIC])
def test_a_frame_from_the_wire_arrives_at_the_socket(veth: Veth, mode: XdpMode) -> None:
    with Steering.attach(veth.near, mode) as steering:
        steering.replace_rules([STEER])
        sockets = [Xsk().bind(veth.near, queue).fill() for queue in range(veth.queues)]
        for queue, xsk in enumerate(sockets):
            steering.enter(queue, xsk.fileno())
        veth.send(FRAME)
        readable, _, _ = select.select(sockets, [], [], 5)
        assert len(readable) == 1
        assert steering.counters().rule("kv").hit.packets == 1
        for xsk in sockets:
            xsk.close()


def test_an_unbound_socket_is_refused(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        xsk = Xsk()
        with pytest.raises(HybridError) as refused:
            steering.enter(0, xsk.fileno())
        assert refused.value.errno == errno.ENOTCONN
        assert steering.sockets() == []
        xsk.bind(veth.near, 0)
        steering.enter(0, xsk.fileno())
        assert steering.sockets() == [0]
        xsk.close()


def test_a_socket_of_another_queue_is_refused(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        xsk = Xsk().bind(veth.near, 2)
        with pytest.raises(HybridError, match="queue 2"):
            steering.enter(1, xsk.fileno())
        assert steering.sockets() == []
        xsk.close()


def test_what_is_no_af_xdp_socket_is_refused(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering, socket.socket() as tcp:
        for fd in (tcp.fileno(), 0, -1):
            with pytest.raises(HybridError):
                steering.enter(0, fd)
        with pytest.raises(HybridError, match="64"):
            steering.enter(64, tcp.fileno())
        assert steering.sockets() == []


def test_sockets_stay_in_service_over_an_upgrade_and_a_change_of_rules(
    veth: Veth, other_program: object
) -> None:
    with Steering.attach(veth.near) as steering:
        xsk = Xsk().bind(veth.near, 0)
        steering.enter(0, xsk.fileno())
        assert steering.upgrade(other_program)  # type: ignore[arg-type]
        steering.replace_rules([STEER])
        assert steering.sockets() == [0]
        assert steering.test_run(FRAME)[0] == REDIRECT
        xsk.close()


def test_the_socket_of_a_killed_interface_does_no_harm(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        xsk = Xsk().bind(veth.near, 0)
        steering.enter(0, xsk.fileno())
        run("ip", "link", "del", veth.near)
        assert steering.obtained.ifindex == 0
        xsk.close()
        assert steering.sockets() == []
