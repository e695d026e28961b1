"""The frame-level benchmark subject: frames go out, come back, and each round trip is timed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import hybrid

PROGRAM = Path(hybrid.__file__).parent / "bin" / "hybrid-bench-rawxdp"
NETNS = f"afxdp-raw-{os.getpid()}"


@pytest.fixture
def echo_mac() -> Iterator[str]:
    """The address of vb, whose peer va is in the same namespace."""
    if os.geteuid() != 0:
        pytest.skip("makes a network namespace: needs root")
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    try:
        ip = ["ip", "-n", NETNS]
        subprocess.run([*ip, "link", "add", "va", "type", "veth", "peer", "name", "vb"], check=True)
        for name in ("va", "vb"):
            subprocess.run([*ip, "link", "set", name, "up"], check=True)
        shown = subprocess.run([*ip, "-j", "link", "show", "vb"], check=True, capture_output=True)
        yield json.loads(shown.stdout)[0]["address"]
    finally:
        subprocess.run(["ip", "netns", "del", NETNS], check=True)


def start(stack: ExitStack, *arguments: str) -> subprocess.Popen[str]:
    """The program in the namespace, once it has said that rounds may begin."""
    program = stack.enter_context(
        subprocess.Popen(
            ["ip", "netns", "exec", NETNS, str(PROGRAM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(program.kill)
    assert program.stdout is not None
    assert json.loads(program.stdout.readline()) == {"ready": True}
    return program


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_each_round_times_as_many_round_trips_as_were_asked_for(echo_mac: str, mode: str) -> None:
    """Two rounds in one run; both ends stop when their standard input ends, and leave no XDP program."""
    with ExitStack() as stack:
        echo = start(stack, "--echo", "--ifname", "vb", "--mode", mode)
        ping = start(
            stack, "--ping", "--ifname", "va", "--dst-mac", echo_mac, "--mode", mode, "--size", "200"
        )
        assert ping.stdin is not None and ping.stdout is not None
        for count in (300, 50):
            ping.stdin.write(f"{count} 10\n")
            ping.stdin.flush()
            answer = json.loads(ping.stdout.readline())
            assert len(answer["ns"]) == count
            assert all(0 < ns < 1_000_000_000 for ns in answer["ns"])
        for program in (ping, echo):
            assert program.stdin is not None
            program.stdin.close()
            assert program.wait(timeout=10) == 0
    links = subprocess.run(["ip", "-n", NETNS, "-j", "link"], check=True, capture_output=True)
    assert not [link["ifname"] for link in json.loads(links.stdout) if "xdp" in link]


def test_what_makes_no_sense_is_one_sentence() -> None:
    """On standard error, with exit code 1."""
    for arguments, words in (
        ([], "expected --echo or --ping"),
        (["--echo", "--ifname", "no-such-if"], "there is no interface no-such-if"),
        (["--echo", "--ifname", "lo", "--size", "10"], "--size is 64 to 1514"),
        (["--echo", "--ifname", "lo", "--mode", "fast"], '--mode can\'t be "fast"'),
    ):
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr and done.stderr.count("\n") == 1
