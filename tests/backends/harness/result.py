"""What came of a run, cell by cell of the matrix: collected while it runs, written when all of it has run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.backends.harness.rows import GROUPS, Pair, pairs

__all__ = ["Recorder"]


class Recorder:
    """A cell is who was tested, against whom, in what."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cells: dict[str, tuple[str, str, str]] = {}
        self._outcomes: dict[str, str] = {}
        self._left_out = False

    def expect(self, nodeid: str, pair: Pair, group: str) -> None:
        self._cells[nodeid] = (pair.us.name, pair.them.name, group)

    def leave_out(self, nodeids: Sequence[str]) -> None:
        """Tests that were collected and are not to be run."""
        self._left_out = self._left_out or any(nodeid in self._cells for nodeid in nodeids)

    def note(self, nodeid: str, when: str | None, outcome: str) -> None:
        """A test passes when its call did; it fails wherever it fails."""
        ends = when == "call" or outcome != "passed"
        if nodeid in self._cells and ends and self._outcomes.get(nodeid) != "failed":
            self._outcomes[nodeid] = outcome

    @property
    def _planned(self) -> set[tuple[str, str, str]]:
        return {
            (pair.us.name, pair.them.name, group) for pair in pairs() for group in GROUPS if pair.does(group)
        }

    @property
    def complete(self) -> bool:
        """Whether it was a run of everything, and nobody stopped it."""
        return (
            not self._left_out
            and self._planned == set(self._cells.values())
            and self._outcomes.keys() == self._cells.keys()
            and any(outcome != "skipped" for outcome in self._outcomes.values())
        )

    def _count(self, cell: tuple[str, str, str], outcome: str) -> int:
        return sum(self._cells[nodeid] == cell for nodeid, what in self._outcomes.items() if what == outcome)

    @property
    def silent(self) -> list[str]:
        """Cells of which something was skipped."""
        skipped = {self._cells[nodeid] for nodeid, what in self._outcomes.items() if what == "skipped"}
        return sorted(f"{us} against {them}: {group}" for us, them, group in skipped)

    def write(self) -> None:
        """Rows in the order of the table, groups in that of the columns."""
        rows = [
            {
                "backend": pair.us.name,
                "against": pair.them.name,
                "cells": {
                    group: {
                        outcome: self._count((pair.us.name, pair.them.name, group), outcome)
                        for outcome in ("passed", "failed", "skipped")
                    }
                    for group in GROUPS
                    if pair.does(group)
                },
            }
            for pair in pairs()
        ]
        self.path.write_text(json.dumps({"groups": dict(GROUPS), "rows": rows}, indent=1) + "\n")
