"""A journal of the host's settings that we changed, below /run/hybrid/changes, so that they can be put back.

A change is written down before it is made, and what was obtained after it: a kill in between leaves a
record that says so. The last one is put back first, and only where the value is still the one that we
obtained: what somebody else has changed since is theirs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

from hybrid.agent.settings import Setting, as_dict, from_dict
from hybrid.agent.state import RUN, Namespace
from hybrid.errors import HybridError, from_errno

__all__ = ["Change", "Journal", "Undone"]

_VERSION = 1
_FILE_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Change:
    """One setting, changed. ``obtained`` None: the command that changed it was killed while it did."""

    path: Path
    namespace: Namespace
    setting: Setting
    before: str
    requested: str
    obtained: str | None

    def __str__(self) -> str:
        return f"{self.setting}: {self.before} -> {self.obtained or self.requested}"

    def as_dict(self) -> dict[str, Any]:
        """For ``--output json``."""
        return {
            "setting": str(self.setting),
            "before": self.before,
            "requested": self.requested,
            "obtained": self.obtained,
        }


class Undone(Enum):
    """What became of a change that was to be put back."""

    RESTORED = auto()
    THEIRS = auto()  # somebody else has changed it since
    GONE = auto()  # there is no such setting any more


class Journal:
    """The changes of every namespace. Whoever writes holds ``state.locked()``."""

    def __init__(self, run: Path = RUN, root: Path = Path("/")) -> None:
        self.folder = run / "changes"
        self.root = root

    def make(self, setting: Setting, requested: str, namespace: Namespace | None = None) -> Change | None:
        """Changes a setting, and reads what was obtained. None: it had that value already."""
        before = setting.read(self.root)
        if before is None:
            raise HybridError(
                f"{setting}: there is no such setting here", "hybrid devices shows what there is"
            )
        if before == requested:
            return None
        path = self.folder / f"{self._next():06}.json"
        change = Change(path, namespace or Namespace.current(), setting, before, requested, None)
        self._write(change)
        try:
            setting.write(requested, self.root)
        finally:
            now = setting.read(self.root)
            if now == before:
                path.unlink()
            else:
                change = replace(change, obtained=now)
                self._write(change)
        return change

    def changes(self) -> list[Change]:
        """In the order in which they were made. What cannot be read as ours is skipped."""
        try:
            paths = sorted(self.folder.glob("*.json"))
        except OSError:
            return []
        return [change for path in paths if (change := _read(path)) is not None]

    def undo(self, change: Change) -> Undone:
        """Puts one back, where it is still ours, and forgets it. In its namespace, if it is a local one."""
        ours = change.obtained or change.requested
        now = change.setting.read(self.root)
        if now is None:
            result = Undone.GONE
        elif now == change.before:
            result = Undone.RESTORED
        elif now != ours:
            result = Undone.THEIRS
        else:
            change.setting.write(change.before, self.root)
            result = Undone.RESTORED
        change.path.unlink(missing_ok=True)
        return result

    def _next(self) -> int:
        numbers = [int(path.stem) for path in self.folder.glob("[0-9]*.json")]
        return max(numbers, default=0) + 1

    def _write(self, change: Change) -> None:
        draft = change.path.with_suffix(".new")
        row = {
            "version": _VERSION,
            "namespace": asdict(change.namespace),
            "setting": as_dict(change.setting),
            "before": change.before,
            "requested": change.requested,
            "obtained": change.obtained,
        }
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft.write_text(json.dumps(row) + "\n")
            draft.replace(change.path)
        except OSError as error:
            raise from_errno(error.errno or 0, f"write {change.path}") from None


def _read(path: Path) -> Change | None:
    try:
        with path.open("rb") as file:
            row = json.loads(file.read(_FILE_MAX_BYTES))
        if row["version"] != _VERSION:
            return None
        return Change(
            path,
            Namespace(**row["namespace"]),
            from_dict(row["setting"]),
            str(row["before"]),
            str(row["requested"]),
            row["obtained"],
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
