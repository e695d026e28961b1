"""The lab: what it makes, what it mends, and what it leaves alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hybrid.errors import BusyError, UsageError
from hybrid.lab import Lab, Phase, netns
from hybrid.lab.state import STATE_DIR, State

pytestmark = pytest.mark.netns

SUPER_PACKETS = ("generic-segmentation-offload", "tcp-segmentation-offload", "generic-receive-offload")

MakeLab = Callable[..., Lab]


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name that nobody uses, cleared away whatever the test did."""
    chosen = f"t{os.getpid()}-own"
    yield chosen
    with suppress(BusyError):
        Lab(chosen).down(kill=True)
    for side in ("server", "client"):
        netns.remove(f"{chosen}-{side}")
    (STATE_DIR / f"{chosen}.json").unlink(missing_ok=True)


def killed_while_making(name: str, at: str) -> None:
    """Runs `up` in a process that kills itself with SIGKILL when it comes to the function ``at``."""
    script = f"""
import os, signal
from hybrid.lab import Lab, lab, link, netns, state
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
{at} = die
Lab({name!r}).up()
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL


def test_both_sides_reach_each_other_over_v4_and_v6_at_once(lab: Lab) -> None:
    # Half a second is less than the second after which an unanswered solicitation is sent again.
    lab.client.run(["ping", "-c1", "-W0.5", str(lab.server.ipv6)])
    lab.server.run(["ping", "-c1", "-W0.5", str(lab.client.ipv6)])
    lab.client.run(["ping", "-c1", "-W0.5", str(lab.server.ipv4)])


def test_frames_carry_whole_checksums_and_no_super_packets(lab: Lab) -> None:
    for side in lab.sides.values():
        assert side.end.offloads_on == ()
        shown = side.run(["ethtool", "-k", side.interface]).stdout
        for feature in ("tx-checksumming", "rx-checksumming", "tx-vlan-offload", *SUPER_PACKETS):
            assert f"{feature}: off" in shown


def test_each_end_has_as_many_queues_as_asked_for(make_lab: MakeLab) -> None:
    lab = make_lab(queues=3, mtu=3000)
    for side in lab.sides.values():
        assert (side.end.queues, side.end.mtu) == (3, 3000)
        shown = side.run(["ethtool", "-l", side.interface]).stdout
        assert shown.count("RX:\t\t3") == 2, "at most and now"


def test_up_twice_changes_nothing_the_second_time(lab: Lab) -> None:
    mac = lab.server.mac
    assert Lab(lab.name).up() == []
    assert lab.server.mac == mac


def test_changed_parameters_are_brought_about(lab: Lab) -> None:
    assert Lab(lab.name, queues=2, mtu=2000).up() != []
    assert (lab.client.end.queues, lab.client.end.mtu) == (2, 2000)
    lab.client.run(["ping", "-c1", "-W2", str(lab.server.ipv4)])


def test_what_somebody_spoiled_is_mended(lab: Lab) -> None:
    lab.server.run(["ip", "addr", "flush", "dev", "hys0"])
    lab.client.run(["ethtool", "-K", "hyc0", "tx", "on"])
    done = Lab(lab.name).up()
    assert done == [
        "hys0: address 10.77.0.1/24",
        "hys0: address fd77::1/64",
        "hyc0: offloads off",
    ]


def test_a_pair_that_was_removed_by_hand_is_made_again(lab: Lab) -> None:
    lab.server.run(["ip", "link", "del", "hys0"])
    assert lab.status().phase is Phase.PARTIAL
    Lab(lab.name).up()
    assert lab.status().phase is Phase.UP


def test_down_twice_is_fine_and_leaves_nothing(name: str) -> None:
    Lab(name).up()
    assert Lab(name).down() == [f"removed {name}-server", f"removed {name}-client"]
    assert Lab(name).down() == []
    assert Lab(name).status().phase is Phase.DOWN
    assert not (STATE_DIR / f"{name}.json").exists()


@pytest.mark.parametrize(
    "at",
    [
        "netns.create",
        "netns._call",
        "netns.os.open",
        "link.make_pair",
        "link.set_up",
        "link.prepare_namespace",
    ],
)
@pytest.mark.parametrize("then", ["up", "down"])
def test_a_run_killed_half_way_is_repaired_by_the_next(name: str, at: str, then: str) -> None:
    killed_while_making(name, at)
    if then == "up":
        Lab(name).up()
        assert Lab(name).status().phase is Phase.UP
    else:
        Lab(name).down()
        assert Lab(name).status().phase is Phase.DOWN
        assert not netns.exists(f"{name}-server")


def test_a_killed_removal_is_finished_by_the_next(name: str) -> None:
    Lab(name).up()
    netns.remove(f"{name}-server")
    assert Lab(name).status().phase is Phase.PARTIAL
    Lab(name).down()
    assert Lab(name).status().phase is Phase.DOWN


def test_a_namespace_that_somebody_else_made_is_left_alone(name: str) -> None:
    cookie = netns.create(f"{name}-client")
    for attempt in (Lab(name).up, Lab(name).down):
        with pytest.raises(BusyError) as refused:
            attempt()
        assert refused.value.exit_code == 6
        assert f"{name}-client" in refused.value.message
    assert Lab(name).status().phase is Phase.FOREIGN
    assert netns.cookie_of(f"{name}-client") == cookie
    assert not netns.exists(f"{name}-server"), "nothing was made before the refusal"


def test_a_namespace_that_took_the_place_of_ours_is_left_alone(name: str) -> None:
    Lab(name).up()
    netns.remove(f"{name}-client")
    cookie = netns.create(f"{name}-client")
    with pytest.raises(BusyError):
        Lab(name).down()
    assert netns.cookie_of(f"{name}-client") == cookie


def test_what_an_earlier_boot_left_written_down_claims_nothing(name: str) -> None:
    cookie = netns.create(f"{name}-client")
    State(name, 1, 1500, {"client": cookie}, boot="another").save()
    with pytest.raises(BusyError):
        Lab(name).up()


def test_down_names_the_processes_inside_unless_told_to_end_them(name: str) -> None:
    lab = Lab(name)
    lab.up()
    process = lab.server.popen(["sleep", "60"])
    with pytest.raises(BusyError, match=rf"sleep \({process.pid}\) still running in {name}-server"):
        lab.down()
    lab.down(kill=True)
    assert process.wait(5) == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_ended_too(name: str) -> None:
    lab = Lab(name)
    lab.up()
    process = lab.server.popen(
        ["sh", "-c", "trap '' TERM; echo ready; sleep 60 & wait; wait"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    netns.end_processes(lab.server.namespace, patience_s=0.2)
    assert process.wait(5) == -signal.SIGKILL
    process.stdout.close()


def test_leaving_the_block_ends_what_was_started_in_it(name: str) -> None:
    with Lab(name) as lab:
        process = lab.client.popen(["sleep", "60"])
    assert process.poll() is not None
    assert Lab(name).status().phase is Phase.DOWN


def test_a_lab_that_was_up_before_the_block_stays_up_after_it(lab: Lab) -> None:
    with Lab(lab.name):
        pass
    assert lab.status().phase is Phase.UP


def test_commands_inside_see_the_callers_file_systems(lab: Lab) -> None:
    mine = {kind: str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "net")}
    inside = {kind: lab.server.run(["readlink", f"/proc/self/ns/{kind}"]).stdout.strip() for kind in mine}
    assert inside["mnt"] == mine["mnt"]
    assert inside["net"] != mine["net"]


def test_a_socket_made_inside_works_from_outside(lab: Lab) -> None:
    listener = lab.server.call(lambda: socket.create_server((str(lab.server.ipv4), 0)))
    address = listener.getsockname()
    with listener, lab.client.call(lambda: socket.create_connection(address, timeout=5)) as near:
        far, _ = listener.accept()
        with far:
            near.sendall(b"hello")
            assert far.recv(5) == b"hello"


def test_nothing_of_a_lab_is_seen_in_the_callers_namespace(lab: Lab) -> None:
    assert "hys0" not in dict(map(reversed, socket.if_nameindex()))
    assert lab.server.ifindex > 0


@pytest.mark.parametrize("parameters", [{"queues": 0}, {"queues": 65}, {"mtu": 1279}, {"mtu": 65536}])
def test_parameters_out_of_range_are_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Lab("t", **parameters)


@pytest.mark.parametrize("bad", ["", "../x", "a b", "UP", "x" * 40])
def test_names_that_lead_elsewhere_are_refused(bad: str) -> None:
    with pytest.raises(UsageError):
        Lab(bad)


def test_commands_can_be_sent_into_a_side_by_option(lab: Lab) -> None:
    command = [
        str(Path(sys.executable).with_name("hybrid")),
        "lab",
        "status",
        "--netns",
        lab.server.namespace,
    ]
    done = subprocess.run([*command, "--name", lab.name], capture_output=True, text=True, check=True)
    assert f"lab {lab.name}: up" in done.stdout


def test_what_runs_inside_sees_only_its_side(lab: Lab) -> None:
    assert "hys0" in lab.server.run(["ip", "-br", "link"]).stdout
    assert "hys0" not in lab.client.run(["ip", "-br", "link"]).stdout
