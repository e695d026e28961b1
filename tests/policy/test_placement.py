"""A port is placed by the rules of every interface together; what no rule names is the kernel's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hybrid.policy import (
    Backend,
    Fallback,
    FrameDevice,
    Placement,
    Protocol,
    Rule,
    Target,
    Via,
    compile_policy,
    loads,
    placements,
)
from hybrid.policy.placement import placed, without_bypass

TCP, UDP = Protocol.TCP, Protocol.UDP
BYPASS, KERNEL = Backend.BYPASS, Backend.KERNEL


def rule(to: Target, ports: tuple[int, int] | None, protocol: Protocol | None = TCP, **more: object) -> Rule:
    return Rule("r", 1000, to, protocol, ports=ports, **more)  # type: ignore[arg-type]


def test_a_policy_without_the_kernels_sockets_names_its_bypass_alone() -> None:
    assert placements([[rule(Target.AFXDP, (6379, 6379))]]) == (Placement(TCP, (6379, 6379), BYPASS),)


def test_a_fallback_puts_a_listener_on_both_and_all_other_ports_on_the_kernel() -> None:
    rows = placements([[rule(Target.AFXDP, (6379, 6380), fallback=Fallback.KERNEL)]])
    assert rows == (
        Placement(TCP, (1, 6378), KERNEL),
        Placement(TCP, (6379, 6380), BYPASS, KERNEL),
        Placement(TCP, (6381, 65535), KERNEL),
        Placement(UDP, (1, 65535), KERNEL),
    )


def test_the_first_rule_decides() -> None:
    rows = placements([[rule(Target.URING, (80, 80)), rule(Target.DPDK, (79, 81))]])
    found = [placed(rows, TCP, port) for port in (79, 80, 81)]
    assert [row.to if row else None for row in found] == [BYPASS, KERNEL, BYPASS]


def test_an_exception_for_some_peers_does_not_move_the_listener() -> None:
    from ipaddress import ip_network

    exception = rule(Target.KERNEL, (80, 80), source=ip_network("10.0.0.0/8"))
    rows = placements([[exception, rule(Target.AFXDP, (80, 80))]])
    assert rows == (Placement(TCP, (80, 80), BYPASS),)


def test_a_port_that_one_interface_bypasses_and_another_does_not_is_served_on_both() -> None:
    rows = placements([[rule(Target.AFXDP, (80, 80))], [rule(Target.KERNEL, (80, 80))]])
    assert placed(rows, TCP, 80) == Placement(TCP, (80, 80), BYPASS, KERNEL)


def test_without_a_bypass_a_port_is_where_its_fallback_says() -> None:
    rows = placements(
        [[rule(Target.AFXDP, (80, 80), fallback=Fallback.KERNEL), rule(Target.AFXDP, (81, 81))]]
    )
    left = without_bypass(rows)
    assert placed(left, TCP, 80) == Placement(TCP, (80, 80), KERNEL)
    assert placed(left, TCP, 81) == Placement(TCP, (81, 81), BYPASS)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Target),
            st.tuples(st.integers(1, 40), st.integers(0, 20)),
            st.sampled_from([TCP, UDP, None]),
            st.sampled_from(Fallback),
        ),
        max_size=8,
    )
)
def test_rows_never_overlap_and_agree_with_the_rules_port_by_port(
    drawn: list[tuple[Target, tuple[int, int], Protocol | None, Fallback]],
) -> None:
    rules = [
        rule(to, (low, low + span), protocol, fallback=fallback if to.bypasses else Fallback.NONE)
        for to, (low, span), protocol, fallback in drawn
    ]
    rows = placements([rules])
    for protocol in Protocol:
        for port in range(1, 70):
            covering = [r for r in rows if r.protocol is protocol and r.ports[0] <= port <= r.ports[1]]
            assert len(covering) <= 1
            first = next(
                (r for r in rules if r.protocol in (None, protocol) and r.ports[0] <= port <= r.ports[1]),  # type: ignore[index]
                None,
            )
            if first is not None and first.to.bypasses:
                assert covering[0].to is BYPASS
                assert (covering[0].fallback is KERNEL) == (first.fallback is Fallback.KERNEL)
            elif covering:
                assert covering[0].to is KERNEL


DPDK = b"""
version: 1
dpdk: {eal: ["--no-pci"]}
uring: {sqpoll: true}
interfaces:
  - name: a
    rules: [{name: r, match: {protocol: tcp, destination_port: 7}, to: dpdk, fallback: kernel}]
  - name: b
    device: dpdk
    dpdk: {via: whole, port: "0000:01:00.0", queues: 2}
    rules: [{name: r, match: {protocol: tcp, destination_port: 7}, to: bypass}]
"""


def test_sections_reach_the_interfaces_that_they_are_about() -> None:
    a, b = compile_policy(loads(DPDK)).interfaces
    assert (a.device, a.dpdk and a.dpdk.via, a.dpdk and a.dpdk.eal) == (
        FrameDevice.AFXDP,
        Via.DEVMAP,
        ("--no-pci",),
    )
    assert a.steered
    assert not b.steered
    assert a.uring.sqpoll
    assert b.dpdk is not None
    assert (b.dpdk.port, b.dpdk.queues) == ("0000:01:00.0", 2)
    assert b.rules[0].to is Target.DPDK
