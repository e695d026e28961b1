"""Two network namespaces joined by a veth pair, made for one test and removed after it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

_numbers = itertools.count()


@dataclass(frozen=True)
class Pair:
    """``here`` and ``there`` are namespaces; their interfaces are ``v0`` and ``v1``."""

    here: str
    there: str

    def ip(self, where: str, command: str) -> str:
        done = subprocess.run(
            ["ip", "-n", where, *command.split()], capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture
def pair() -> Iterator[Pair]:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    number = f"{os.getpid()}-{next(_numbers)}"
    made = Pair(f"runtime-a{number}", f"runtime-b{number}")
    try:
        for name in (made.here, made.there):
            subprocess.run(["ip", "netns", "add", name], check=True)
        made.ip(made.here, f"link add v0 type veth peer name v1 netns {made.there}")
        for name, link, last in ((made.here, "v0", 1), (made.there, "v1", 2)):
            made.ip(name, "link set lo up")
            made.ip(name, f"addr add 10.77.0.{last}/24 dev {link}")
            made.ip(name, f"addr add fd77::{last}/64 dev {link} nodad")
            made.ip(name, f"link set {link} up")
        yield made
    finally:
        for name in (made.here, made.there):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
