"""Everything that hybrid has pinned on this host, also for other network namespaces, also what is dead."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hybrid._native import lib
from hybrid.bpf._call import invoke
from hybrid.bpf.bpffs import ROOT
from hybrid.bpf.model import Obtained
from hybrid.bpf.steering import Steering
from hybrid.errors import HybridError, PrivilegeError, from_errno

_STAGING_PREFIX = "new-"


class PinState(StrEnum):
    """What a directory of pins is."""

    ATTACHED = "attached"
    STALE = "stale"  # its interface or namespace is gone; nothing is steered
    LEFTOVER = "leftover"  # of an attach that was killed (or is under way): without rules, every frame passes
    UNREADABLE = "unreadable"  # made by another version, or damaged


@dataclass(frozen=True, slots=True)
class Pinned:
    """One directory of pins. ``obtained`` is there for ATTACHED and STALE, ``problem`` for UNREADABLE."""

    directory: Path
    state: PinState
    obtained: Obtained | None = None
    problem: str = ""

    def open(self) -> Steering:
        """A handle on it, whatever network namespace its interface is in."""
        return Steering.open_pinned(self.directory)

    def remove(self) -> None:
        """Detaches what is attached and removes the pins. No error if somebody else was quicker."""
        try:
            invoke(lib.hy_steer_remove, str(self.directory).encode())
        except HybridError as error:
            if error.errno != errno.ENOENT:
                raise


def attached() -> list[Pinned]:
    """All of them, by name."""
    try:
        directories = sorted(entry for entry in ROOT.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise from_errno(error.errno or 0, f"read {ROOT}") from error
    return [pinned for directory in directories if (pinned := _describe(directory)) is not None]


def _describe(directory: Path) -> Pinned | None:
    if directory.name.startswith(_STAGING_PREFIX):
        return Pinned(directory, PinState.LEFTOVER)
    try:
        with Steering.open_pinned(directory) as steering:
            obtained = steering.obtained
    except PrivilegeError:
        raise
    except HybridError as error:
        if not directory.exists():
            return None  # removed while we looked
        return Pinned(directory, PinState.UNREADABLE, problem=error.message)
    state = PinState.ATTACHED if obtained.ifindex else PinState.STALE
    return Pinned(directory, state, obtained)
