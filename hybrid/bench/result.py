"""What a benchmark found: samples by case and subject, and the rows and ratios made of them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

TIME_UNITS = ("ns", "us")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that ``percent`` per cent do not exceed.

    ``ordered`` is sorted ascending and not empty. The answer is always a sample that was seen.
    """
    if not ordered:
        raise ValueError("no samples")
    if not 0 < percent <= 100:
        raise ValueError(f"{percent} is not a percentage above 0")
    # A product such as 0.999 * 1000 may land just above the rank it means.
    rank = math.ceil(percent * len(ordered) / 100 - 1e-9)
    return ordered[max(rank, 1) - 1]


@dataclass(frozen=True, slots=True)
class Row:
    """One subject in one case. ``p50`` to ``p999`` are in ``unit``; ``n`` is how many samples."""

    case: str
    subject: str
    unit: str
    p50: float
    p99: float
    p999: float
    n: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """``value`` is the subject's p50 over that of ``versus``: lower is better of times, higher of rates."""

    case: str
    subject: str
    versus: str
    value: float


@dataclass(frozen=True, slots=True)
class Aim:
    """A ratio to make and what it is held to, if anything. Said beside the figure, never an error."""

    case: str
    subject: str
    versus: str
    at_most: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        bounds = (("<=", self.at_most), (">=", self.at_least))
        return " ".join(f"{sign} {bound:.2f}" for sign, bound in bounds if bound is not None)

    def verdict(self, value: float) -> str:
        """ "met", "not met", or "" where nothing is aimed at."""
        if self.at_most is None and self.at_least is None:
            return ""
        missed = (self.at_most is not None and value > self.at_most) or (
            self.at_least is not None and value < self.at_least
        )
        return "not met" if missed else "met"


@dataclass(frozen=True, slots=True)
class Samples:
    """Every sample of one subject in one case, sorted, all in ``unit``."""

    case: str
    subject: str
    unit: str
    ordered: array[float]

    @classmethod
    def of(cls, case: str, subject: str, unit: str, values: Iterable[float]) -> Samples:
        """From samples in any order."""
        return cls(case, subject, unit, array("d", sorted(values)))

    def row(self) -> Row:
        """What the table says of them."""
        p50, p99, p999 = (round(percentile(self.ordered, p), 3) for p in (50, 99, 99.9))
        return Row(self.case, self.subject, self.unit, p50, p99, p999, len(self.ordered))


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run. ``notes`` are sentences for a person: how the peers were set, what is missing.

    ``headline`` are the units that ratios and the picture are of.
    """

    bench: str
    machine: dict[str, str | int]
    samples: list[Samples]
    aims: list[Aim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    headline: tuple[str, ...] = TIME_UNITS

    def rows(self) -> list[Row]:
        """One for each subject, case and unit, in the order measured."""
        return [s.row() for s in self.samples]

    def ratios(self) -> list[Ratio]:
        """One for each aim whose two subjects were measured."""
        p50 = {(row.case, row.subject): row.p50 for row in self.rows() if row.unit in self.headline}
        found = []
        for aim in self.aims:
            ours, theirs = p50.get((aim.case, aim.subject)), p50.get((aim.case, aim.versus))
            if ours is not None and theirs:
                found.append(Ratio(aim.case, aim.subject, aim.versus, round(ours / theirs, 3)))
        return found

    def as_json(self) -> dict[str, Any]:
        """The object that ``--output json`` prints; its members are part of the interface."""
        return {
            "bench": self.bench,
            "machine": self.machine,
            "rows": [asdict(row) for row in self.rows()],
            "ratios": [asdict(ratio) for ratio in self.ratios()],
        }
