"""``hybrid bench stack``: our stack and lwIP alone, fed crafted segments, no kernel and no wire."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hybrid.bench.machine import machine
from hybrid.bench.result import Aim, Result, Samples
from hybrid.bench.turns import Program, take_turns
from hybrid.errors import HybridError, UnsupportedError

PROGRAMS = Path(__file__).resolve().parent.parent / "bin"
SUBJECTS = {"hybrid": "hybrid-bench-stack", "lwip": "hybrid-bench-stack-lwip"}
AIM = 0.25
_INSTRUCTION_OPS = 6400
NOTES = (
    "ns per segment; each sample is the mean of 64 segments, less an empty loop over the same frames",
    "64 B of payload, IPv4, no TCP timestamps (this lwIP has none); both do their checksums in software",
    "burst-32: 32 connections with one segment each per burst; else one connection, a segment at a time",
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: with ``echo`` each segment is answered; ``burst`` segments come at a time,
    each on a connection of its own."""

    name: str
    echo: bool
    burst: int

    def arguments(self) -> list[str]:
        """For the subject's program."""
        return [*(["--echo"] if self.echo else []), "--burst", str(self.burst)]


CASES = (
    Case("rx-64", echo=False, burst=1),
    Case("echo-64", echo=True, burst=1),
    Case("rx-64-burst-32", echo=False, burst=32),
    Case("echo-64-burst-32", echo=True, burst=32),
)


@dataclass(frozen=True, slots=True)
class Options:
    """``batches`` samples a round, each the mean of 64 segments.

    Rounds are short (milliseconds), so that a slow spell of the machine falls on every subject alike.
    """

    rounds: int = 100
    batches: int = 100
    warmup: int = 20
    core: int | None = None
    instructions: bool = False


class StackSubject:
    """One stack in one case. Its samples are ns per segment, less the cost of an empty loop."""

    def __init__(self, name: str, program: Program, options: Options) -> None:
        self._name = name
        self._program = program
        self._options = options
        self.frames_out: list[float] = []

    @property
    def name(self) -> str:
        """As in the table."""
        return self._name

    def round(self) -> list[float]:
        """One turn."""
        answer = self._program.round(self._options.batches, self._options.warmup)
        self.frames_out.append(float(answer["frames_out_per_op"]))
        return without_generator(answer["ns"], answer["empty_ns"])


def without_generator(ns: list[float], empty_ns: list[float]) -> list[float]:
    """Samples less what the loop costs with the stack left out (its median: its own spikes are not ours)."""
    generator = statistics.median(empty_ns)
    return [max(0.0, sample - generator) for sample in ns]


def find_programs(folder: Path = PROGRAMS) -> dict[str, Path]:
    """Each subject's program. Both must be there: a figure with nothing beside it says nothing."""
    if not (folder / SUBJECTS["lwip"]).exists():
        raise UnsupportedError(
            "the peer of this benchmark, lwIP, was not there when hybrid was built",
            remedy="apt-get install liblwip-dev, then build again: tools/setup",
        )
    return {name: folder / program for name, program in SUBJECTS.items()}


def instructions_per_op(program: Path, case: Case) -> float:
    """Instructions per segment, counted by callgrind; exact, and the same on every machine."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise UnsupportedError(
            "--instructions counts with valgrind, which is not installed", "apt-get install valgrind"
        )

    def collected(function: str) -> int:
        command = [
            *(valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--toggle-collect={function}"),
            *(str(program), *case.arguments(), "--ops", str(_INSTRUCTION_OPS)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or not found:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise HybridError(f"valgrind could not run {program.name}: {last}")
        return int(found[1])

    return (collected("stack_timed_run") - collected("stack_timed_empty")) / _INSTRUCTION_OPS


def run(options: Options, progress: Callable[[str], None] = lambda _: None) -> Result:
    """All cases, subjects in turns within each."""
    programs = find_programs()
    result = Result("stack", machine(), [], aims=[Aim(case.name, "hybrid", "lwip", AIM) for case in CASES])
    pin = [] if options.core is None else ["--core", str(options.core)]
    for case in CASES:
        progress(f"{case.name}: {' and '.join(programs)} in turns, {options.rounds} rounds")
        with ExitStack() as stack:
            subjects = [
                StackSubject(name, stack.enter_context(Program([path, *case.arguments(), *pin])), options)
                for name, path in programs.items()
            ]
            samples = take_turns(subjects, options.rounds)
        result.samples.extend(Samples.of(case.name, name, "ns", values) for name, values in samples.items())
        sent = ", ".join(f"{s.name} {statistics.mean(s.frames_out):.2f}" for s in subjects)
        result.notes.append(f"{case.name}: frames sent per segment received: {sent}")
    if options.instructions:
        for case in CASES:
            for name, path in programs.items():
                progress(f"{case.name}: counting instructions of {name}")
                count = instructions_per_op(path, case)
                result.samples.append(Samples.of(case.name, name, "instructions", [count]))
    result.notes.extend(NOTES)
    return result
