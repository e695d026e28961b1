"""`hybrid doctor --fix` on real interfaces, and `hybrid clean` after it: all as it was, and nobody else's touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybrid.devices import hugepages
from hybrid.lab import netns
from tests.netns.conftest import Cli

pytestmark = pytest.mark.netns


def ethtool(cli: Cli, *arguments: str) -> str:
    done: subprocess.CompletedProcess[str] = cli.server.run(
        ["ethtool", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def state(cli: Cli, interface: str = "w0") -> tuple[str, str]:
    """Offloads and channels, as ethtool shows them."""
    return ethtool(cli, "-k", interface), ethtool(cli, "-l", interface)


@pytest.fixture
def pair(cli: Cli) -> Cli:
    """A pair that no lab made, with four queues and all offloads, in the server's namespace."""
    queues = ["numrxqueues", "4", "numtxqueues", "4"]
    cli.server.run(
        ["ip", "link", "add", "w0", *queues, "type", "veth", "peer", "name", "w1", *queues], check=True
    )
    for end in ("w0", "w1"):
        cli.server.run(["ip", "link", "set", end, "up"], check=True)
    return cli


def changes(found: dict[str, Any]) -> set[str]:
    return {row["setting"] for row in found["changes"]}


def test_offloads_and_channels_are_fixed_and_clean_puts_them_back(pair: Cli) -> None:
    before = state(pair)
    arguments = ("doctor", "--fix", "channels,offloads", "--interface", "w0", "--queues", "2")
    done = pair.json(*arguments)
    assert {"queues of w0", "tx-checksum-ip-generic of w0", "tx-tcp-segmentation of w0"} <= changes(done)
    assert all(row["requested"] == row["obtained"] for row in done["changes"])
    assert [finding["outcome"] for finding in done["findings"]] == ["yes", "yes"]
    features, channels = state(pair)
    for feature in ("tcp-segmentation-offload", "generic-segmentation-offload", "tx-checksumming"):
        assert f"{feature}: off" in features
    assert "RX:\t\t2" in channels.partition("Current")[2]

    shown = {row["setting"] for row in pair.json("status")["changes"]}
    assert shown == changes(done)
    cleaned = pair.json("clean")
    assert (len(cleaned["restored"]), cleaned["left"], cleaned["failed"]) == (len(done["changes"]), [], [])
    assert state(pair) == before
    assert pair.json("status")["changes"] == []


def test_fixing_twice_changes_nothing_the_second_time(pair: Cli) -> None:
    arguments = ("doctor", "--fix", "channels,offloads", "--interface", "w0", "--queues", "2")
    assert pair.json(*arguments)["changes"]
    assert pair.json(*arguments)["changes"] == []
    assert "nothing was changed" in pair(*arguments).stdout


def test_nothing_that_was_not_named_is_touched(pair: Cli) -> None:
    before = state(pair, "w1")
    pair("doctor", "--fix", "offloads", "--interface", "w0")
    assert state(pair, "w1") == before


def test_what_somebody_else_changed_since_is_left_alone_and_said(pair: Cli) -> None:
    before = state(pair)[0]
    pair("doctor", "--fix", "channels,offloads", "--interface", "w0", "--queues", "2")
    ethtool(pair, "-L", "w0", "rx", "3", "tx", "2")
    done = pair("clean")
    assert "left alone: queues of w0" in done.stdout
    assert "somebody else has changed it since" in done.stdout
    features, channels = state(pair)
    assert features == before
    assert "RX:\t\t3" in channels.partition("Current")[2]
    assert "nothing to remove" in pair("clean").stdout


def test_an_interface_that_has_gone_or_been_renamed_is_told_apart(pair: Cli) -> None:
    before = state(pair, "w1")[0]
    pair("doctor", "--fix", "offloads", "--interface", "w1")
    pair.server.run(["ip", "link", "set", "w1", "name", "other"], check=True)
    pair("clean")
    assert state(pair, "other")[0].replace("other", "w1") == before
    pair("doctor", "--fix", "offloads", "--interface", "other")
    pair.server.run(["ip", "link", "del", "w0"], check=True)
    assert all("no such setting any more" in line for line in pair.json("clean")["left"])


def test_without_a_name_what_is_steered_is_looked_at(pair: Cli) -> None:
    findings = pair.json("doctor")["findings"]["stages"]
    assert {row["name"]: row["remedy"] for row in findings}["offloads"] == "hybrid doctor --interface NAME"
    pair("apply", pair.policy("echo tcp 7", interface="w0"))
    findings = pair.json("doctor")["findings"]["stages"]
    (offloads,) = [row for row in findings if row["name"] == "offloads"]
    assert offloads["outcome"] == "no"
    assert offloads["remedy"] == "sudo hybrid doctor --fix offloads --interface w0"
    assert pair.json("doctor", "--fix", "offloads")["changes"]


def test_the_policys_queues_are_how_many_are_wanted(pair: Cli) -> None:
    pair("apply", pair.policy("echo tcp 7", interface="w0", queues="[0, 1, 2]"))
    done = pair("doctor", "--fix", "channels", code=None)
    assert "3 wanted, those of the policy" in done.stdout


def test_queues_are_not_changed_under_a_program_in_service(pair: Cli) -> None:
    before = state(pair)
    pair("apply", pair.policy("echo tcp 7", interface="w0"))
    serving = pair.start("serve", "echo")
    serving.ready()
    done = pair("doctor", "--fix", "channels", "--queues", "2", code=1)
    assert "w0: a program is in service on it" in done.stderr
    assert state(pair) == before
    serving.end()
    # The kernel itself wants the far end of a pair to have no more queues than the near one.
    refused = pair("doctor", "--fix", "channels", "--queues", "2", code=1)
    assert "give its far end that many first" in refused.stderr
    for end in ("w1", "w0"):
        assert pair.json("doctor", "--fix", "channels", "--queues", "2", "--interface", end)["changes"]
    pair("clean")
    assert state(pair) == before


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--fix", "everything"), 2, "no stage 'everything'"),
        (("--fix", ","), 2, "no stage"),
        (("--fix", "irq", "--cores", "some"), 2, "no list of cores"),
        (("--fix", "irq", "--cores", "4000"), 2, "no core 4000"),
        (("--fix", "offloads", "--interface", "nope0"), 1, "no interface 'nope0'"),
        (("--interface", "nope0"), 1, "no interface 'nope0'"),
        (("--fix", "channels", "--interface", "hys0", "--queues", "500"), 1, "not everything"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    cli: Cli, arguments: tuple[str, ...], code: int, word: str
) -> None:
    before = state(cli, "hys0")
    assert word in cli("doctor", *arguments, code=code).stderr
    assert state(cli, "hys0") == before
    assert cli.json("status")["changes"] == []


def test_without_privilege_it_is_refused_with_the_code_for_that() -> None:
    script = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\nfrom hybrid.cli import main\nmain()"
    )
    command = [sys.executable, "-P", "-c", script, "doctor", "--fix", "hugepages"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "takes root" in done.stderr


# -- hugepages are the whole host's: what these tests take is given back whatever happens ------------------


@pytest.fixture
def reserved() -> Iterator[dict[int | None, int]]:
    size = hugepages.default_kib()
    if size is None:
        pytest.skip("this kernel has no hugepages")
    before = {pool.node: pool.total for pool in hugepages.pools() if pool.size_kib == size}
    yield before
    for node, total in before.items():
        if hugepages.reserved(size, node) != total:
            hugepages.reserve(size, node, total)


def total() -> dict[int | None, int]:
    size = hugepages.default_kib()
    return {pool.node: pool.total for pool in hugepages.pools() if pool.size_kib == size}


def test_hugepages_are_reserved_and_given_back(cli: Cli, reserved: dict[int | None, int]) -> None:
    free = max(pool.free for pool in hugepages.pools() if pool.size_kib == hugepages.default_kib())
    wanted = str((free + 3) * len(reserved))
    done = cli.json("doctor", "--fix", "hugepages", "--hugepages", wanted)
    assert [finding["outcome"] for finding in done["findings"]] == ["yes"] * len(reserved)
    assert [row["obtained"] for row in done["changes"]] == [row["requested"] for row in done["changes"]]
    assert cli.json("doctor", "--fix", "hugepages", "--hugepages", wanted)["changes"] == []
    assert sum(total().values()) > sum(reserved.values())
    assert len(cli.json("clean")["restored"]) == len(done["changes"])
    assert total() == reserved


def test_a_clean_in_another_namespace_does_not_take_them_away(
    cli: Cli, reserved: dict[int | None, int]
) -> None:
    free = max(pool.free for pool in hugepages.pools() if pool.size_kib == hugepages.default_kib())
    cli("doctor", "--fix", "hugepages", "--hugepages", str((free + 3) * len(reserved)))
    assert (
        cli.client.run(
            [sys.executable, "-P", "-c", "from hybrid.cli import main; main()", "clean"]
        ).returncode
        == 0
    )
    assert total() != reserved
    cli("clean")
    assert total() == reserved


def test_a_namespace_is_known_by_its_cookie_and_not_by_its_number() -> None:
    mine = Path("/proc/self/ns/net")
    assert netns.is_at(mine, netns.own_cookie())
    assert not netns.is_at(mine, netns.own_cookie() + 1)
    assert not netns.is_at(Path("/proc/0/ns/net"), netns.own_cookie())


def test_a_namespace_that_is_gone_has_its_hugepages_given_back_by_the_next_clean(
    cli: Cli, reserved: dict[int | None, int]
) -> None:
    name = f"fix{os.getpid()}"
    netns.create(name)
    try:
        hybrid = str(Path(sys.executable).with_name("hybrid"))
        free = max(pool.free for pool in hugepages.pools() if pool.size_kib == hugepages.default_kib())
        wanted = str((free + 3) * len(reserved))
        command = [hybrid, "--output", "json", "--netns", name, "doctor", "--fix", "hugepages", "--hugepages"]
        done = subprocess.run([*command, wanted], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["changes"]
    finally:
        netns.remove(name)
    cli("clean")
    assert total() == reserved
