"""Attaching, pinning, upgrading, detaching: and what others have on the interface stays theirs."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from hybrid.bpf import PinState, Steering, XdpMode, attached, inspect
from hybrid.bpf.bpffs import ROOT, pin_directory
from hybrid.errors import BusyError, HybridError
from hybrid.policy.rule import Protocol, Rule, Target

from .lab import Veth, inside, run
from .reference import DROP, PASS
from .test_flip import running

FRAME = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(dst="10.0.0.1") / TCP(dport=80))
DROP_80 = Rule("drop-80", 0, Target.DROP, Protocol.TCP, ports=(80, 80))


def state_of(directory: Path) -> PinState | None:
    return next((pinned.state for pinned in attached() if pinned.directory == directory), None)


def leftovers() -> list[str]:
    return [p.directory.name for p in attached() if p.state is PinState.LEFTOVER]


@pytest.mark.parametrize("mode", [XdpMode.NATIVE, XdpMode.GENERIC])
def test_the_mode_asked_for_is_obtained(veth: Veth, mode: XdpMode) -> None:
    with Steering.attach(veth.near, mode) as steering:
        obtained = steering.obtained
        assert (obtained.requested, obtained.mode, obtained.note) == (mode, mode, "")
        assert (obtained.ifname, obtained.queues) == (veth.near, veth.queues)
        program = inspect(veth.near)
        assert program is not None
        assert (program.mode, program.name) == (mode, "hybrid_steer")
        assert (program.link_id, program.tag) == (obtained.link_id, obtained.tag)


def test_auto_is_native_where_the_driver_can(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        assert (steering.obtained.requested, steering.obtained.mode) == (XdpMode.AUTO, XdpMode.NATIVE)


def test_auto_is_generic_where_the_driver_cannot_and_says_why(veth: Veth) -> None:
    with Steering.attach("lo", XdpMode.AUTO) as steering:
        obtained = steering.obtained
        assert (obtained.requested, obtained.mode) == (XdpMode.AUTO, XdpMode.GENERIC)
        assert "native" in obtained.note
        assert "not supported" in obtained.note  # what the driver says, not what came of trying otherwise
        assert obtained.fragments  # asked for again in the other mode
        steering.detach()


def test_native_where_the_driver_cannot_is_refused(veth: Veth) -> None:
    with pytest.raises(HybridError) as refused:
        Steering.attach("lo", XdpMode.NATIVE)
    assert "lo" in refused.value.message
    assert refused.value.errno == errno.EOPNOTSUPP
    assert refused.value.remedy
    assert inspect("lo") is None
    assert not pin_directory("lo").exists()
    assert leftovers() == []


def test_an_interface_that_is_not_there_is_named(veth: Veth) -> None:
    with pytest.raises(HybridError, match="nosuch"):
        Steering.attach("nosuch")


def test_what_is_attached_outlives_the_handle_and_is_opened_again(veth: Veth) -> None:
    with Steering.attach(veth.near) as first:
        first.replace_rules([DROP_80])
        first.test_run(FRAME, repeat=3)
        link = first.obtained.link_id
    with Steering.open(veth.near) as again:
        assert again.obtained.link_id == link
        assert again.counters().rule("drop-80").hit.packets == 3
    with Steering.attach(veth.near) as once_more:
        assert once_more.obtained.link_id == link
        assert once_more.rules() == [DROP_80]


def test_asking_for_another_mode_than_the_one_attached_is_refused(veth: Veth) -> None:
    with Steering.attach(veth.near, XdpMode.GENERIC), pytest.raises(BusyError, match="generic"):
        Steering.attach(veth.near, XdpMode.NATIVE)


def test_detach_gives_the_interface_back_and_leaves_no_pins(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        directory = steering.directory
        steering.detach()
        assert inspect(veth.near) is None
        assert directory is not None
        assert not directory.exists()
        steering.detach()  # once more is no error
    with pytest.raises(HybridError) as missing:
        Steering.open(veth.near)
    assert missing.value.errno == errno.ENOENT


def test_a_late_detach_does_not_take_down_a_newer_attach(veth: Veth) -> None:
    with Steering.attach(veth.near) as old:
        old.detach()
        with Steering.attach(veth.near) as new:
            old.detach()
            assert inspect(veth.near) is not None
            assert new.obtained.ifindex != 0


def test_an_interface_name_with_a_dot_can_be_pinned(veth: Veth) -> None:
    run("ip", "link", "set", veth.near, "name", "near.100")
    with Steering.attach("near.100") as steering:
        assert steering.obtained.ifname == "near.100"
    assert [
        p.obtained.ifname for p in attached() if p.obtained and p.directory == pin_directory("near.100")
    ] == ["near.100"]


@pytest.mark.parametrize("mode", ["xdpdrv", "xdpgeneric"])
def test_a_foreign_program_is_named_and_left_alone(veth: Veth, foreign_program: Path, mode: str) -> None:
    run("ip", "link", "set", "dev", veth.near, mode, "obj", str(foreign_program), "sec", "xdp")
    before = inspect(veth.near)
    assert before is not None
    for wanted in XdpMode:
        with pytest.raises(BusyError) as refused:
            Steering.attach(veth.near, wanted)
        assert "'somebody'" in refused.value.message
        assert f"id {before.program_id}" in refused.value.message
        assert "native" in refused.value.message if mode == "xdpdrv" else "generic" in refused.value.message
        assert refused.value.remedy
        assert f"ip link set dev {veth.near}" in refused.value.remedy
    assert inspect(veth.near) == before
    assert not pin_directory(veth.near).exists()
    assert leftovers() == []


def test_our_program_is_foreign_to_somebody_elses_netlink_attach(veth: Veth, foreign_program: Path) -> None:
    with Steering.attach(veth.near, XdpMode.NATIVE) as steering:
        run(
            "ip",
            "link",
            "set",
            "dev",
            veth.near,
            "xdpdrv",
            "obj",
            str(foreign_program),
            "sec",
            "xdp",
            check=False,
        )
        program = inspect(veth.near)
        assert program is not None
        assert program.program_id == steering.obtained.program_id


def test_a_directory_with_somebody_elses_files_is_left_alone(veth: Veth) -> None:
    directory = pin_directory(veth.near)
    directory.mkdir()
    (directory / "theirs").mkdir()
    try:
        with pytest.raises(HybridError, match="did not make"):
            Steering.attach(veth.near)
        assert (directory / "theirs").exists()
        assert inspect(veth.near) is None
    finally:
        (directory / "theirs").rmdir()
        directory.rmdir()


def test_upgrade_exchanges_the_program_and_keeps_everything_else(veth: Veth, other_program: Path) -> None:
    with Steering.attach(veth.near) as steering:
        steering.replace_rules([DROP_80])
        steering.test_run(FRAME, repeat=4)
        before = steering.obtained
        assert steering.upgrade(other_program)
        after = steering.obtained
        assert after.tag != before.tag
        assert after.link_id == before.link_id
        program = inspect(veth.near)
        assert program is not None
        assert (program.program_id, program.tag) == (after.program_id, after.tag)
        steering.test_run(FRAME, repeat=4)
        assert steering.counters().rule("drop-80").hit.packets == 8
        assert not steering.upgrade(other_program)  # it is current now
    with Steering.attach(veth.near) as again:  # an attach brings the shipped one back
        assert again.obtained.tag == before.tag
        assert again.obtained.link_id == before.link_id
        assert again.sockets() == []


def test_upgrade_lets_no_frame_go_unsteered(veth: Veth, other_program: Path) -> None:
    with Steering.attach(veth.near, XdpMode.NATIVE) as steering, veth.listen() as past:
        steering.replace_rules([DROP_80])
        with veth.sending(FRAME):
            for _ in range(10):
                assert steering.upgrade(other_program)
                assert steering.upgrade()
        assert steering.counters().rule("drop-80").hit.packets > 0
        with pytest.raises(BlockingIOError):
            past.recv(2048)


def test_frames_on_the_wire_are_steered_and_after_detach_they_are_the_kernels(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering, veth.listen() as past:
        steering.replace_rules([DROP_80])
        veth.send(FRAME, 100)
        steering.detach()  # by its end, what was under way has been judged
        with pytest.raises(BlockingIOError):
            past.recv(2048)
        veth.send(FRAME)
        assert select.select([past], [], [], 5)[0]
        assert past.recv(2048) == FRAME


def test_a_steering_is_found_from_another_namespace(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        directory, obtained = steering.directory, steering.obtained
    other = f"{veth.namespace}-b"
    run("ip", "netns", "add", other)
    try:
        with inside(other):
            (found,) = [pinned for pinned in attached() if pinned.directory == directory]
            assert (found.state, found.obtained) == (PinState.ATTACHED, obtained)
            with found.open() as opened:
                opened.replace_rules([DROP_80])
            found.remove()
            found.remove()  # somebody was quicker: no error
    finally:
        run("ip", "netns", "del", other)
    assert inspect(veth.near) is None


def test_pins_of_an_interface_that_is_gone_are_stale_and_make_room(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        directory = steering.directory
        assert directory is not None
        run("ip", "link", "del", veth.near)
        assert steering.obtained.ifindex == 0
    assert state_of(directory) is PinState.STALE
    run("ip", "link", "add", veth.near, "type", "veth", "peer", "name", veth.far)
    with Steering.attach(veth.near) as again:
        assert again.obtained.ifindex != 0
    assert state_of(directory) is PinState.ATTACHED


def test_what_a_kill_before_the_rename_leaves_passes_frames_and_is_cleared(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        directory, link = steering.directory, steering.obtained.link_id
        assert directory is not None
    staging = directory.with_name(f"new-{directory.name}")
    directory.rename(staging)
    assert state_of(staging) is PinState.LEFTOVER
    with Steering.open_pinned(staging) as left:
        assert left.test_run(FRAME)[0] == PASS
        assert left.rules() == []
    with Steering.attach(veth.near) as again:
        assert again.obtained.link_id != link
    assert not staging.exists()
    assert state_of(directory) is PinState.ATTACHED


def test_half_pinned_leftovers_are_cleared(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        directory = steering.directory
        assert directory is not None
    staging = directory.with_name(f"new-{directory.name}")
    directory.rename(staging)
    (staging / "link").unlink()
    (staging / "xsks").unlink()
    (found,) = [pinned for pinned in attached() if pinned.directory == staging]
    assert found.state is PinState.LEFTOVER
    found.remove()
    assert not staging.exists()


CHILD = """
from hybrid.bpf import Steering
from hybrid.policy.rule import Rule, Target
print("ready", flush=True)
while True:
    with Steering.attach("{ifname}") as steering:
        steering.replace_rules([Rule("r", 0, Target.KERNEL)])
        steering.detach()
"""


def test_killed_at_any_moment_it_leaves_an_interface_that_passes_and_can_be_steered(veth: Veth) -> None:
    for delay_ms in range(0, 60, 4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(ifname=veth.near)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            child.wait(delay_ms / 1000)  # the moment of the kill is what varies
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
        child.stdout.close()
        child.wait()
        directory = pin_directory(veth.near)
        assert state_of(directory) in (None, PinState.ATTACHED, PinState.STALE, PinState.UNREADABLE)
        with Steering.attach(veth.near) as steering:
            steering.replace_rules([DROP_80])
            assert steering.test_run(FRAME)[0] == DROP
            steering.detach()
        assert inspect(veth.near) is None
        assert not directory.exists()
        assert leftovers() == []


def test_rules_change_while_frames_run_through_an_attached_program(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        steering.replace_rules([DROP_80])
        with running(steering) as seen:
            for turn in range(50):
                steering.replace_rules([DROP_80, Rule(f"r{turn}", -1, Target.KERNEL)])
        assert seen["other"] == 0
        assert steering.counters().rule("drop-80").hit.packets == seen["runs"] > 0


def test_two_processes_that_attach_at_once_get_one_program(veth: Veth) -> None:
    script = f'from hybrid.bpf import Steering; print(Steering.attach("{veth.near}").obtained.link_id)'
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    links = {child.communicate()[0].strip() for child in children}
    assert len(links) == 1
    assert links != {""}


def test_pins_live_where_every_process_of_the_host_sees_them(veth: Veth) -> None:
    with Steering.attach(veth.near) as steering:
        assert steering.directory is not None
        names = {entry.name for entry in steering.directory.iterdir()}
    maps = {"meta", "generations", "counters", "xsks", "ports", "leases", "state"}
    assert names == {"link", "program", "queues", "return"} | maps
    assert steering.directory.parent == ROOT
