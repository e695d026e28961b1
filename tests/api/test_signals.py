"""A program that waits in the library for ever still answers Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import hybrid
with hybrid.Shard(hybrid.Config(frames=256, sockets=8, connections=8, tokens=8, spin_ns={spin})) as shard:
    try:
        print("waiting", flush=True)
        shard.wait_any()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def interrupt(spin_ns: int) -> str:
    program = PROGRAM.format(spin=spin_ns)
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        return output


def test_ctrl_c_ends_a_wait_that_sleeps() -> None:
    assert interrupt(1) == "interrupted\n"


def test_ctrl_c_ends_a_wait_that_never_sleeps() -> None:
    assert interrupt(2**64 - 1) == "interrupted\n"
