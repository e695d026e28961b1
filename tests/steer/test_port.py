"""The DPDK port of an interface: redirected into a veth while a program has it, the kernel's otherwise."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from hybrid.bpf import Steering, XdpMode
from hybrid.errors import HybridError, UnsupportedError
from hybrid.policy.rule import Fallback, Protocol, Rule, Target

from .lab import AF_XDP, Veth, run
from .reference import PASS, REDIRECT

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FRAME = bytes(ETHER / IP(src="10.0.0.9", dst="10.0.0.1") / TCP(sport=5000, dport=7) / bytes(10))
ECHO = Rule("echo", 0, Target.DPDK, Protocol.TCP, ports=(7, 7), fallback=Fallback.KERNEL)
NEAR, FAR = "dp0", "dp1"


def lease() -> socket.socket:
    return socket.socket(AF_XDP, socket.SOCK_RAW)


@pytest.fixture
def port(veth: Veth, foreign_program: Path) -> str:
    """The near end of a second veth. Its far end has an XDP program, as a DPDK af_xdp port's has."""
    run("ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR)
    for name in (NEAR, FAR):
        run("ip", "link", "set", name, "addrgenmode", "none", "up")
    run("ip", "link", "set", FAR, "xdpdrv", "object", str(foreign_program), "section", "xdp")
    return NEAR


def listen(name: str) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((name, 3))
    return tap


def received(tap: socket.socket) -> bytes:
    assert select.select([tap], [], [], 5)[0], "nothing has arrived"
    return tap.recv(2048)


@pytest.mark.parametrize("mode", [XdpMode.NATIVE, XdpMode.GENERIC])
def test_a_match_comes_out_of_the_far_end_and_answers_leave_by_the_interface(
    veth: Veth, port: str, mode: XdpMode
) -> None:
    with Steering.attach(veth.near, mode) as steering, lease() as held:
        steering.replace_rules([ECHO])
        steering.set_port(port)
        steering.lease(held.fileno())
        with listen(FAR) as far, listen(veth.far) as wire:
            veth.send(FRAME)
            assert received(far) == FRAME
            assert received(wire) == FRAME  # the packet socket sees its own host's sending, too
            answer = bytes(ETHER / IP(dst="10.0.0.9") / UDP(sport=7, dport=9))
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as dpdk:
                dpdk.bind((FAR, 0))
                dpdk.send(answer)
            assert received(wire) == answer
        assert steering.counters().reason("dpdk").packets == 1
        assert steering.counters().rule("echo").no_socket.packets == 0


def test_without_a_program_that_has_it_the_port_is_the_kernels(veth: Veth, port: str) -> None:
    ifindex = socket.if_nametoindex(veth.near)
    with Steering.attach(veth.near) as steering:
        steering.replace_rules([ECHO])
        steering.set_port(port)
        assert steering.port() == socket.if_nametoindex(NEAR)
        assert not steering.leased()
        assert steering.test_run(FRAME, ifindex=ifindex)[0] == PASS
        with lease() as held:
            steering.lease(held.fileno())
            assert steering.leased()
            assert steering.test_run(FRAME, ifindex=ifindex)[0] == REDIRECT
        assert not steering.leased()
        assert steering.test_run(FRAME, ifindex=ifindex)[0] == PASS
        counters = steering.counters()
        assert counters.reason("no-port").packets == 2
        assert counters.rule("echo").no_socket.packets == 2


def test_a_lease_ends_with_the_process_that_holds_it(veth: Veth, port: str) -> None:
    with Steering.attach(veth.near) as steering:
        steering.set_port(port)
        with lease() as held:
            holder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[held.fileno()])
            steering.lease(held.fileno())
        assert steering.leased()
        holder.kill()
        holder.communicate()
        assert not steering.leased()


def test_a_port_whose_veth_is_deleted_is_the_kernels(veth: Veth, port: str) -> None:
    ifindex = socket.if_nametoindex(veth.near)
    with Steering.attach(veth.near) as steering, lease() as held:
        steering.replace_rules([ECHO])
        steering.set_port(port)
        steering.lease(held.fileno())
        run("ip", "link", "del", NEAR)
        assert steering.port() == 0
        assert steering.test_run(FRAME, ifindex=ifindex)[0] == PASS
        run("ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR)
        steering.set_port(NEAR)
        assert steering.test_run(FRAME, ifindex=ifindex)[0] == REDIRECT


def test_detaching_lets_go_of_the_veth(veth: Veth, port: str) -> None:
    with Steering.attach(veth.near) as steering:
        steering.set_port(port)
        steering.detach()
    assert "xdp" not in run("ip", "link", "show", NEAR)


def test_the_loader_keeps_what_a_rule_says_of_uring_and_of_its_fallback(steering: Steering) -> None:
    rules = [ECHO, Rule("web", -1, Target.URING, Protocol.TCP, ports=(80, 80))]
    steering.replace_rules(rules)
    assert steering.rules() == rules
    web = bytes(ETHER / IP(dst="10.0.0.1") / TCP(dport=80))
    before = steering.counters().reason("rule-kernel").packets
    assert steering.test_run(web)[0] == PASS
    assert steering.counters().reason("rule-kernel").packets == before + 1


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_that_the_kernel_has_stays_its_own(veth: Veth, port: str, family: int) -> None:
    run("ip", "link", "set", "lo", "up")
    local = "127.0.0.1" if family == socket.AF_INET else "::1"
    lo = socket.if_nametoindex("lo")
    with (
        Steering.attach(veth.near) as steering,
        lease() as held,
        socket.create_server((local, 7), family=family) as listener,
        socket.create_connection((local, 7)) as client,
        listener.accept()[0],
    ):
        steering.replace_rules([ECHO])
        steering.set_port(port)
        steering.lease(held.fileno())
        sport = client.getsockname()[1]
        network = IP(src=local, dst=local) if family == socket.AF_INET else IPv6(src=local, dst=local)
        theirs = bytes(ETHER / network / TCP(sport=sport, dport=7, flags="A"))
        others = bytes(ETHER / network / TCP(sport=sport - 1, dport=7, flags="S"))
        assert steering.test_run(theirs, ifindex=lo)[0] == REDIRECT
        steering.look_for_kernel_flows(True)
        assert steering.test_run(theirs, ifindex=lo)[0] == PASS
        assert steering.test_run(others, ifindex=lo)[0] == REDIRECT
        assert steering.counters().reason("kernel-flow").packets == 1
        steering.look_for_kernel_flows(False)
        assert steering.test_run(theirs, ifindex=lo)[0] == REDIRECT


def test_what_an_older_build_pinned_works_on_and_gets_ports_by_an_upgrade(
    veth: Veth, port: str, other_program: Path
) -> None:
    with Steering.attach(veth.near) as steering:
        steering.replace_rules([Rule("kv", 0, Target.AFXDP, Protocol.TCP, ports=(6379, 6379))])
        assert steering.directory is not None
        directory = steering.directory
    _make_it_layout_1_0(directory)
    with Steering.open(veth.near) as steering:
        assert steering.obtained.layout == (1, 0)
        assert [rule.name for rule in steering.rules()] == ["kv"]
        assert steering.port() == 0
        with pytest.raises(UnsupportedError, match="older build"):
            steering.set_port(port)
        assert steering.upgrade(other_program)
        steering.set_port(port)
    with Steering.open(veth.near) as steering:
        assert steering.obtained.layout == (1, 1)
        assert [rule.name for rule in steering.rules()] == ["kv"]


def _make_it_layout_1_0(directory: Path) -> None:
    for name in ("ports", "leases", "state", "return"):
        (directory / name).unlink()
    where = ("pinned", str(directory / "meta"))
    dump = run("bpftool", "map", "lookup", *where, "key", "0", "0", "0", "0", "--json")
    import json

    value = json.loads(dump)["value"]
    value[6:8] = ["0x00", "0x00"]  # struct steer_meta: magic, major, minor
    run("bpftool", "map", "update", *where, "key", "0", "0", "0", "0", "value", *value)


def test_what_is_no_af_xdp_socket_is_no_lease(veth: Veth, port: str) -> None:
    with Steering.attach(veth.near) as steering, socket.socket() as other:
        with pytest.raises(HybridError) as caught:
            steering.lease(other.fileno())
        assert caught.value.errno in (errno.EOPNOTSUPP, errno.ENOTSOCK)
        assert os.fstat(other.fileno())
