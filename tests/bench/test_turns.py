"""Subjects take turns, and programs are conversed with and always ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybrid.bench.stack import without_generator
from hybrid.bench.turns import Program, Rests, take_turns
from hybrid.errors import HybridError

ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    count, warmup = map(int, line.split())
    print(json.dumps({"ns": [float(warmup)] * count}), flush=True)
"""


class Fake:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log
        self._values: Iterator[int] = iter(range(100))

    def round(self) -> list[float]:
        self._log.append(self.name)
        return [float(next(self._values))]


def python(source: str, **options: float) -> Program:
    return Program([sys.executable, "-c", source], **options)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_round_has_a_turn_of_every_subject_and_the_order_alternates() -> None:
    log: list[str] = []
    samples = take_turns([Fake("a", log), Fake("b", log)], rounds=4)
    assert log == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert samples == {"a": [0.0, 1.0, 2.0, 3.0], "b": [0.0, 1.0, 2.0, 3.0]}


def test_a_program_is_asked_for_rounds_and_answers_each() -> None:
    with python(ECHO) as program:
        assert program.round(count=3, warmup=7) == {"ns": [7.0, 7.0, 7.0]}
        assert program.round(count=1, warmup=2) == {"ns": [2.0]}


def test_a_program_is_ended_when_its_user_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt), python(ECHO) as program:
        pid = program.pid
        assert alive(pid)
        raise KeyboardInterrupt
    assert not alive(pid)


def test_a_program_that_fails_is_quoted() -> None:
    source = "import sys; sys.exit('no such core')"
    with pytest.raises(HybridError, match="ended early: no such core"), python(source):
        pass


def test_a_program_that_fails_in_a_round_is_quoted() -> None:
    source = "import sys; print('{}', flush=True); sys.stdin.readline(); sys.exit('the stack fell silent')"
    with python(source) as program, pytest.raises(HybridError, match="the stack fell silent"):
        program.round(1, 0)


def test_a_program_that_says_nothing_is_given_up() -> None:
    silent = python("import time; time.sleep(60)", timeout_s=0.2)
    with pytest.raises(HybridError, match="gave no answer"), silent:
        pass


def test_a_program_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(HybridError, match="cannot be started"), Program(["/nonexistent/program"]):
        pass


def test_the_generators_cost_is_taken_off_every_sample_and_none_becomes_negative() -> None:
    assert without_generator([10.0, 12.0, 1.0], [2.0, 2.0, 900.0]) == [8.0, 10.0, 0.0]


def state(pid: int) -> str:
    """As /proc has it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stops(pid: int, within_s: float = 10.0) -> bool:
    """A signal to stop is sent at once and obeyed when the process is next looked at."""
    deadline = time.monotonic() + within_s
    while state(pid) != "T" and time.monotonic() < deadline:
        time.sleep(0.001)
    return state(pid) == "T"


def test_a_process_that_polls_for_ever_is_stopped_but_for_its_turns_and_ends_all_the_same() -> None:
    with python(ECHO) as program:
        rests = Rests(program.pid)
        rests.stop()
        assert stops(program.pid)
        with rests:
            assert program.round(count=1, warmup=2) == {"ns": [2.0]}
        assert stops(program.pid)
        pid = program.pid
    assert not alive(pid)


def test_a_process_that_sleeps_by_itself_is_left_alone() -> None:
    with python(ECHO) as program, Rests(None):
        assert program.round(count=1, warmup=0) == {"ns": [0.0]}


def test_a_program_may_say_that_it_is_ready_in_words() -> None:
    source = "import sys; print('{}'); print('server: listening', flush=True); sys.stdin.read()"
    with Program([sys.executable, "-c", source], ready="server:") as program:
        assert program.announced == {}
