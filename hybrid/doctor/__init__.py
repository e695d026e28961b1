"""What this host can do. One file per group of probes; a new group is a file and a line in ``GROUPS``.

A group is a function without arguments that gives findings. It works for any user, changes nothing
that outlives it, and never raises: what it can't find out is inconclusive, and says why. The last group,
``stages``, is also told what a person named, and is the one that can mend what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hybrid.doctor import devices, kernel, memory, privileges, software, stages, xdp
from hybrid.doctor.finding import Finding, Outcome, exit_code
from hybrid.doctor.stages import Wanted

__all__ = ["GROUPS", "Finding", "Outcome", "Wanted", "examine", "exit_code"]

GROUPS: Mapping[str, Callable[[], Iterator[Finding]]] = {
    "privileges": privileges.probe,
    "kernel": kernel.probe,
    "xdp": xdp.probe,
    "memory": memory.probe,
    "devices": devices.probe,
    "software": software.probe,
    "stages": lambda: stages.check(Wanted()),
}


def examine(wanted: Wanted | None = None) -> dict[str, list[Finding]]:
    """All findings by group. ``HybridError``: an interface that was named is not there."""
    named = list(stages.check(wanted)) if wanted is not None else None
    found = {name: list(probe()) for name, probe in GROUPS.items() if name != "stages" or named is None}
    return found if named is None else {**found, "stages": named}
