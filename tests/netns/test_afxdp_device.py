"""The AF_XDP device on a real kernel: frames over a veth pair, in native and in generic mode.

What is tested is C, so the scenarios are C: ``afxdp_scenarios.c``, ``offload_scenarios.c`` and
``served_scenarios.c``, each named after the behaviour that it checks. This file makes a network namespace with both
ends of the pair in it and runs them there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("HYBRID_BUILD", Path(__file__).resolve().parents[2] / "build"))
PROGRAM = BUILD / "tests" / "netns" / "afxdp-scenarios"
OFFLOAD_PROGRAM = BUILD / "tests" / "netns" / "offload-scenarios"
SERVED_PROGRAM = BUILD / "tests" / "netns" / "served-scenarios"
NETNS = f"afxdp-test-{os.getpid()}"
QUEUES = 4

SCENARIOS = (
    "frames_cross_both_ways_on_every_queue",
    "the_longest_frame_fits_and_a_received_one_has_room_for_headers",
    "a_frame_is_marked_until_it_has_left",
    "a_burst_beyond_the_kernels_budget_arrives_whole",
    "a_full_ring_takes_no_more_and_a_lost_kick_is_made_up_for",
    "closing_returns_every_frame_wherever_it_is",
    "what_was_queued_last_leaves_before_the_queue_closes",
    "what_is_sent_is_received_or_counted_as_dropped",
    "a_frame_goes_out_by_another_queue_than_it_came_by",
    "a_queue_leaves_frames_to_the_stack_but_never_starves_itself",
    "an_arrival_wakes_a_sleeper",
    "what_cannot_be_had_is_refused_if_strict_and_reported_if_not",
    "what_makes_no_sense_is_refused_and_leaks_nothing",
    "a_handed_socket_serves_a_process_without_privileges",
    "an_arena_beyond_the_lock_limit_is_refused_by_name",
    "the_lock_limit_counts_the_arena_once_for_every_socket",
)

OFFLOAD_SCENARIOS = (
    "packets_of_several_frames_cross_whole",
    "a_burst_that_ends_within_a_packet_keeps_what_it_has",
    "a_ring_without_room_for_all_of_a_packet_takes_none_of_it",
    "without_several_buffers_a_packet_is_one_frame",
    "queues_share_one_registration",
    "shared_memory_is_counted_against_the_lock_limit_once",
    "a_checksum_that_was_left_is_right_on_the_wire",
    "an_arena_of_hugepages_is_registered_as_any",
    "a_link_that_was_down_goes_on_and_is_not_lost",
    "an_interface_that_was_deleted_is_told_for_good",
)

SERVED_SCENARIOS = (
    "a_process_without_privileges_serves_by_what_it_was_handed",
    "an_arena_that_may_not_be_locked_has_an_error_of_its_own",
)


def run(*command: str | Path) -> None:
    """Runs a set-up command that must succeed."""
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def netns() -> Iterator[str]:
    """A namespace with the pair va-vb, four queues each, up and without addresses."""
    if os.geteuid() != 0:
        pytest.skip("makes a network namespace: needs root")
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built (ninja -C build)")
    run("ip", "netns", "add", NETNS)
    try:
        queues = ("numtxqueues", str(QUEUES), "numrxqueues", str(QUEUES))
        pair = ("va", *queues, "type", "veth", "peer", "name", "vb", *queues)
        run("ip", "-n", NETNS, "link", "add", *pair)
        for name in ("va", "vb"):
            run("ip", "-n", NETNS, "link", "set", name, "up")
        yield NETNS
    finally:
        run("ip", "netns", "del", NETNS)


@pytest.mark.parametrize(
    ("program", "scenarios"),
    [(PROGRAM, SCENARIOS), (OFFLOAD_PROGRAM, OFFLOAD_SCENARIOS), (SERVED_PROGRAM, SERVED_SCENARIOS)],
)
def test_every_scenario_of_the_programs_is_run_here(program: Path, scenarios: tuple[str, ...]) -> None:
    """A scenario that is added to a program and forgotten here would never fail."""
    if not program.exists():
        pytest.skip(f"{program} is not built (ninja -C build)")
    listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    assert tuple(listed.stdout.split()) == scenarios


@pytest.fixture
def hugepages() -> Iterator[None]:
    """Enough reserved for two arenas; given back afterwards."""
    knob = Path("/proc/sys/vm/nr_hugepages")
    before = int(knob.read_text())
    try:
        knob.write_text(str(before + 8))
    except OSError as error:
        pytest.skip(f"no hugepages can be reserved: {error}")
    try:
        if int(knob.read_text()) < before + 4:
            pytest.skip("the memory is too fragmented for hugepages")
        yield
    finally:
        knob.write_text(str(before))


def run_scenario(netns: str, program: Path, scenario: str, mode: str) -> None:
    """Fails with what the program said."""
    done = subprocess.run(
        ["ip", "netns", "exec", netns, program, scenario, mode],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr or f"ended by {done.returncode}"


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_device(netns: str, scenario: str, mode: str) -> None:
    """One behaviour in one mode."""
    run_scenario(netns, PROGRAM, scenario, mode)


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("scenario", OFFLOAD_SCENARIOS)
def test_offload(netns: str, scenario: str, mode: str, request: pytest.FixtureRequest) -> None:
    """What later kernels can do."""
    if "hugepages" in scenario:
        request.getfixturevalue("hugepages")
    run_scenario(netns, OFFLOAD_PROGRAM, scenario, mode)


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("scenario", SERVED_SCENARIOS)
def test_handover(netns: str, scenario: str, mode: str) -> None:
    """What a launcher hands over works in a process that has no privilege left."""
    run_scenario(netns, SERVED_PROGRAM, scenario, mode)
