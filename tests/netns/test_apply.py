"""`hybrid apply` is all or nothing and does nothing twice; `hybrid clean` leaves no trace."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.netns.conftest import Cli

pytestmark = pytest.mark.netns
RESERVED = "net.ipv4.ip_local_reserved_ports"


def host_state(cli: Cli) -> dict[str, Any]:
    """What a change of ours could show in, of this namespace."""

    def look() -> dict[str, Any]:
        inode = Path("/proc/thread-self/ns/net").stat().st_ino
        links = json.loads(subprocess.check_output(["ip", "-j", "-d", "link"]))
        pins = Path("/sys/fs/bpf/hybrid")
        applied = Path("/run/hybrid/applied")
        return {
            "links": [(link["ifname"], link["flags"], link.get("xdp")) for link in links],
            "addresses": subprocess.check_output(["ip", "-o", "addr"], text=True),
            "routes": subprocess.check_output(["ip", "route", "show", "table", "all"], text=True),
            "reserved": subprocess.check_output(["sysctl", "-n", RESERVED], text=True).strip(),
            "pins": sorted(p.name for p in pins.glob(f"{inode}-*")),
            "applied": sorted(p.name for p in applied.glob(f"{inode}-*")),
        }

    state: dict[str, Any] = cli.server.call(look)
    return state


def in_the_kernel(kind: str, number: int) -> bool:
    return subprocess.run(["bpftool", kind, "show", "id", str(number)], capture_output=True).returncode == 0


def test_applying_twice_changes_nothing_the_second_time(cli: Cli) -> None:
    policy = cli.policy("redis tcp 6379", "out tcp 40000-40099")
    first = cli.json("apply", policy)
    assert any("attach" in change for change in first["changes"])
    assert first["interfaces"][0]["mode_obtained"] == "native"
    before = cli.json("status")["interfaces"][0]
    assert cli.json("apply", policy)["changes"] == []
    after = cli.json("status")["interfaces"][0]
    assert after["generation"] == before["generation"]
    assert after["obtained"]["program_id"] == before["obtained"]["program_id"]
    assert "nothing to change" in cli("apply", policy).stdout


def test_a_dry_run_says_what_would_change_and_changes_nothing(cli: Cli) -> None:
    before = host_state(cli)
    policy = cli.policy("redis tcp 6379", "out tcp 40000-40099")
    done = cli("apply", "--dry-run", policy, code=3)
    assert "redis: tcp port 6379 -> afxdp" in done.stdout
    assert host_state(cli) == before
    cli("apply", policy)
    cli("apply", "--dry-run", policy, code=0)


def test_a_change_of_rules_keeps_the_program_and_the_counters_of_rules_that_stay(cli: Cli) -> None:
    cli("apply", cli.policy("redis tcp 6379", "echo tcp 7"))
    cli.client.call(lambda: _knock("10.77.0.1", 7))
    before = cli.json("status")["interfaces"][0]
    cli("apply", cli.policy("redis tcp 6380", "echo tcp 7"))
    after = cli.json("status")["interfaces"][0]
    assert after["obtained"]["program_id"] == before["obtained"]["program_id"]
    assert after["generation"] == before["generation"] + 1
    hits = {rule["name"]: rule["packets"] for rule in after["rules"]}
    assert hits == {"redis": 0, "echo": 1}


def _knock(where: str, port: int) -> None:
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect((where, port))


def test_clean_takes_everything_away_and_nothing_else(cli: Cli) -> None:
    cli.server.run(["sysctl", "-qw", f"{RESERVED}=8080,40050-40060"], check=True)
    before = host_state(cli)
    cli("apply", cli.policy("redis tcp 6379", "out tcp 40000-40099"))
    assert host_state(cli)["reserved"] == "8080,40000-40099"
    obtained = cli.json("status")["interfaces"][0]["obtained"]
    assert in_the_kernel("prog", obtained["program_id"])
    cli.server.run(["sysctl", "-qw", f"{RESERVED}=8080,9090,40000-40099"], check=True)
    removed = cli.json("clean")["removed"]
    assert any("steering program of hys0" in line for line in removed)
    after = host_state(cli)
    assert before.pop("reserved") == "8080,40050-40060"
    # What somebody else had reserved, before or meanwhile, stays.
    assert after.pop("reserved") == "8080,9090,40050-40060"
    assert after == before
    assert not in_the_kernel("prog", obtained["program_id"])
    assert not in_the_kernel("link", obtained["link_id"])
    assert cli.json("clean")["removed"] == []


def test_an_interface_that_the_policy_no_longer_names_is_let_go(cli: Cli) -> None:
    cli.server.run(["ip", "link", "add", "w0", "type", "veth", "peer", "name", "w1"], check=True)
    cli("apply", cli.policy("redis tcp 6379", interface="w0"))
    cli("apply", cli.policy("redis tcp 6379"))
    assert [i["name"] for i in cli.json("status")["interfaces"]] == ["hys0"]


def test_a_failure_half_way_puts_everything_back(cli: Cli, tmp_path: Path) -> None:
    cli("apply", cli.policy("redis tcp 6379"))
    before, status = host_state(cli), cli.json("status")["interfaces"][0]
    cli.server.run(["ip", "link", "add", "w0", "type", "veth", "peer", "name", "w1"], check=True)
    # w0 has fewer queues than the policy names: found only after it was attached.
    policy = tmp_path / "two.yaml"
    policy.write_text(
        "version: 1\ninterfaces:\n"
        "  - name: hys0\n    rules:\n"
        '      - {name: other, match: {protocol: tcp, destination_port: "41000-41099"}, to: afxdp}\n'
        "  - name: w0\n    queues: [60]\n    rules:\n"
        "      - {name: other, match: {protocol: tcp, destination_port: 6381}, to: afxdp}\n"
    )
    done = cli("apply", str(policy), code=7)
    assert "no queue 60" in done.stderr
    assert "everything was put back" in done.stderr
    cli.server.run(["ip", "link", "del", "w0"], check=True)
    assert host_state(cli) == before
    after = cli.json("status")["interfaces"][0]
    assert [rule["rule"] for rule in after["rules"]] == [rule["rule"] for rule in status["rules"]]
    assert after["obtained"]["program_id"] == status["obtained"]["program_id"]


def test_an_interface_with_somebody_elses_program_is_left_alone(cli: Cli) -> None:
    from hybrid.bpf import Steering

    def attach_foreign() -> None:
        # Any XDP program will do; it is attached by netlink, as `ip link set ... xdp` does.
        with Steering.attach("hys0") as ours:
            number = ours.obtained.program_id
            pin = f"/sys/fs/bpf/foreign-{os.getpid()}"
            subprocess.run(["bpftool", "prog", "pin", "id", str(number), pin], check=True)
            ours.detach()
        try:
            subprocess.run(["ip", "link", "set", "hys0", "xdp", "pinned", pin], check=True)
        finally:
            Path(pin).unlink()

    cli.server.call(attach_foreign)
    before = host_state(cli)
    done = cli("apply", cli.policy("redis tcp 6379"), code=6)
    assert "XDP program of somebody else's" in done.stderr
    assert "ip link set dev hys0 xdp off" in done.stderr
    assert host_state(cli) == before


def test_an_interface_that_is_not_there_is_named(cli: Cli) -> None:
    done = cli("apply", cli.policy("redis tcp 6379", interface="nope0"), code=1)
    assert "no interface 'nope0'" in done.stderr
    assert "ip link" in done.stderr


def test_a_policy_with_mistakes_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    before = host_state(cli)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\ninterfaces:\n  - name: hys0\n    colour: blue\n    rules: []\n")
    done = cli("apply", str(wrong), code=1)
    assert f"{wrong}:4:5" in done.stderr
    assert host_state(cli) == before


def test_clean_refuses_to_take_a_running_servers_traffic_away_unless_it_is_told_to(cli: Cli) -> None:
    cli("apply", cli.policy("echo tcp 7"))
    serving = cli.start("serve", "echo")
    serving.ready()
    done = cli("clean", code=6)
    assert "hybrid-echo" in done.stderr
    assert cli.json("status")["interfaces"][0]["sockets"] == [0]
    cli("clean", "--force")
    assert cli.json("status")["interfaces"] == []
    assert serving.process.poll() is None
