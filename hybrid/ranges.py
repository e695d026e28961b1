"""Sets of numbers as the kernel writes them, ``0-3,8``: ports, cores, nodes."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["format_ranges", "parse_ranges"]


def parse_ranges(text: str) -> frozenset[int]:
    """``8080,40000-40095`` as single numbers. ``ValueError``: it is not of that form."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        if part:
            low, _, high = part.partition("-")
            numbers.update(range(int(low), int(high or low) + 1))
    return frozenset(numbers)


def format_ranges(numbers: Iterable[int]) -> str:
    """The kernel's own form."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
