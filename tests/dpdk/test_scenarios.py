"""DPDK ports seen from inside: ``scenarios.c``, each scenario named after the behaviour that it checks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.dpdk.ports import PLUGIN
from tests.netns.peers import BUILD

pytestmark = pytest.mark.netns

PROGRAM = BUILD / "tests" / "dpdk" / "dpdk-scenarios"
NETNS = f"dpdk-test-{os.getpid()}"

SCENARIOS = (
    "two_shards_are_joined_by_rings",
    "frames_come_back_from_another_thread",
    "queues_of_one_port_belong_to_shards_in_threads",
    "a_stopped_port_is_lost_and_can_be_had_again",
    "frames_of_a_port_that_forgets_them_come_back",
    "a_port_whose_netdev_is_deleted_is_lost",
    "a_tap_wakes_a_sleeper_and_raises_no_signal",
    "eal_starts_once_and_with_one_set_of_arguments",
    "a_failed_start_can_be_mended",
    "a_memif_peer_that_is_killed_takes_nobody_with_it",
)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture
def netns() -> Iterator[str]:
    """A namespace with the pair va-vb; the kernel has 10.88.0.1 on vb."""
    if os.geteuid() != 0:
        pytest.skip("makes a network namespace: needs root")
    run("ip", "netns", "add", NETNS)
    try:
        run("ip", "-n", NETNS, "link", "add", "va", "type", "veth", "peer", "name", "vb")
        for name in ("lo", "va", "vb"):
            run("ip", "-n", NETNS, "link", "set", name, "up")
        for name in ("va", "vb"):
            run("ip", "netns", "exec", NETNS, "ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off")
        run("ip", "-n", NETNS, "addr", "add", "10.88.0.1/24", "dev", "vb")
        yield NETNS
    finally:
        run("ip", "netns", "del", NETNS)


def test_every_scenario_is_run_here() -> None:
    listed = subprocess.run([PROGRAM, "--list"], check=True, capture_output=True, text=True)
    assert tuple(listed.stdout.split()) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(netns: str, scenario: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", netns, PROGRAM, scenario],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HYBRID_DPDK_PLUGIN": str(PLUGIN)},
    )
    assert done.returncode == 0, done.stderr
