"""What is wrong with a policy, where, and how it is shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hybrid.errors import PolicyError

__all__ = ["PolicyFileError", "Position", "Problem", "did_you_mean"]

_SHOWN_MAX = 50
_LINE_MAX = 120


@dataclass(frozen=True, order=True)
class Position:
    """A place in the file; both counted from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One mistake. ``message`` says what is wrong, ``expected`` what would be right."""

    position: Position
    message: str
    expected: str


class PolicyFileError(PolicyError):
    """A policy file cannot be used. Holds every problem that was found in it; nothing was applied."""

    def __init__(self, file: str, problems: Sequence[Problem], lines: Sequence[str]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda problem: problem.position))
        count = len(self.problems)
        self.headline = f"{file} is not a valid policy: {count} problem{'s' if count != 1 else ''}"
        shown = [_render(file, problem, lines) for problem in self.problems[:_SHOWN_MAX]]
        if count > _SHOWN_MAX:
            shown.append(f"and {count - _SHOWN_MAX} more")
        super().__init__(
            "\n".join([self.headline, *shown]), "correct the file; docs/policy.md describes every key"
        )

    def as_dict(self) -> dict[str, Any]:
        """As for every error, with the problems one by one."""
        return {
            **super().as_dict(),
            "message": self.headline,
            "file": self.file,
            "problems": [
                {
                    "line": problem.position.line,
                    "column": problem.position.column,
                    "message": problem.message,
                    "expected": problem.expected,
                }
                for problem in self.problems
            ],
        }


def did_you_mean(word: object, choices: Sequence[str]) -> str:
    """ "; did you mean 'protocol'?", or nothing where no choice is near."""
    near = get_close_matches(str(word)[:64].lower(), choices, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _render(file: str, problem: Problem, lines: Sequence[str]) -> str:
    """``file:line:col: message``, the line, a caret below the place, and what was expected."""
    where = problem.position
    text = lines[where.line - 1] if where.line <= len(lines) else ""
    # A long line is cut to a window around the place, so that the caret stays in view.
    start = max(0, where.column - 1 - _LINE_MAX // 2) if len(text) > _LINE_MAX else 0
    window = "".join(c if c.isprintable() else " " for c in text[start : start + _LINE_MAX])
    caret = " " * min(where.column - 1 - start, len(window)) + "^"
    return (
        f"{file}:{where.line}:{where.column}: {problem.message}\n"
        f"    {window}\n    {caret}\n"
        f"    expected: {problem.expected}"
    )
