"""What this host can do. One file per group of probes; a new group is a file and a line in ``GROUPS``.

A group is a function without arguments that gives findings. It works for any user, changes nothing
that outlives it, and never raises: what it can't find out is inconclusive, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hybrid.doctor import devices, kernel, memory, privileges, software, xdp
from hybrid.doctor.finding import Finding, Outcome, exit_code

__all__ = ["GROUPS", "Finding", "Outcome", "examine", "exit_code"]

GROUPS: Mapping[str, Callable[[], Iterator[Finding]]] = {
    "privileges": privileges.probe,
    "kernel": kernel.probe,
    "xdp": xdp.probe,
    "memory": memory.probe,
    "devices": devices.probe,
    "software": software.probe,
}


def examine() -> dict[str, list[Finding]]:
    """All findings by group."""
    return {name: list(probe()) for name, probe in GROUPS.items()}
