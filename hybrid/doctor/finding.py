"""What a probe says, and what the findings together mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hybrid.errors import ExitCode

__all__ = ["Finding", "Outcome", "exit_code"]


class Outcome(StrEnum):
    """A probe answers yes or no only where it has seen it; everything else is inconclusive."""

    YES = "yes"
    NO = "no"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Finding:
    """One thing that this host can do, or can't.

    ``needed``: the main job (steering a port to AF_XDP and serving it) can't run without it.
    ``remedy``: the command that mends it, where the outcome is not yes and there is one.
    """

    name: str
    outcome: Outcome
    detail: str
    needed: bool = False
    remedy: str | None = None


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """0: the main job can run; 4: it can't; 5: more privilege is needed to tell."""
    needed: Sequence[Outcome] = [found.outcome for found in findings if found.needed]
    if Outcome.NO in needed:
        return ExitCode.UNSUPPORTED
    return ExitCode.PERMISSION if Outcome.INCONCLUSIVE in needed else ExitCode.OK
