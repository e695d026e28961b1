"""What is kept of a running shard below /run/hybrid/shards, for whoever wants to look.

``<launcher's pid>-<n>.stats`` is the page that the shard writes its counters to
(hybrid/core/control.h), ``.json`` beside it says what the shard is. Launcher and program
hold flock(2) on the page together, so a record whose lock is free is a leftover.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybrid._native import ffi, lib
from hybrid.api.shard import stat_names
from hybrid.errors import from_errno

RUN = Path("/run/hybrid")
_PAGE_BYTES = ffi.sizeof("hy_stats_page")
_JSON_MAX_BYTES = 1 << 20


class Record:
    """The two files of one shard, made by its launcher and removed by it.

    Whoever may not write there (a launcher without privileges) has a page that no file names.
    """

    def __init__(self, run: Path = RUN) -> None:
        folder = run / "shards"
        self.path: Path | None = None
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            for number in itertools.count():
                path = folder / f"{os.getpid()}-{number}.stats"
                try:
                    self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                    self.path = path
                    break
                except FileExistsError:
                    continue
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            os.ftruncate(self.fd, _PAGE_BYTES)
        except PermissionError:
            self.fd = os.memfd_create("hybrid-stats")
            os.ftruncate(self.fd, _PAGE_BYTES)
        except OSError as error:
            raise from_errno(error.errno or 0, f"make a file below {folder}") from None

    def describe(self, what: dict[str, Any]) -> None:
        """Writes the description anew, whole or not at all."""
        if self.path is None:
            return
        final = self.path.with_suffix(".json")
        draft = final.with_suffix(".json.new")
        draft.write_text(json.dumps(what, indent=1) + "\n")
        draft.rename(final)

    def close(self) -> None:
        """Removes both."""
        for path in _files(self.path) if self.path is not None else ():
            path.unlink(missing_ok=True)
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A record as found. ``alive`` False: a leftover of a launcher that was killed."""

    path: Path
    alive: bool
    about: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)

    def remove(self) -> list[Path]:
        """Takes a leftover away; returns what was removed."""
        removed = [path for path in _files(self.path) if path.exists()]
        for path in removed:
            path.unlink(missing_ok=True)
        return removed


def records(run: Path = RUN) -> Iterator[ShardRecord]:
    """Every record on this host, by name. One that goes while it is read is left out."""
    try:
        paths = sorted((run / "shards").glob("*.stats"))
    except OSError:
        return
    for path in paths:
        try:
            with path.open("rb") as file:
                alive = not _lockable(file.fileno())
                stats = read_page(file.read(_PAGE_BYTES))
        except OSError:
            continue
        yield ShardRecord(path, alive, _about(path.with_suffix(".json")), stats)


def read_page(page: bytes) -> dict[str, int]:
    """The counters of a statistics page by name; none where it has not been written yet."""
    if len(page) < _PAGE_BYTES:
        return {}
    c = ffi.new("hy_stats_page *")
    ffi.memmove(c, page, _PAGE_BYTES)
    names = stat_names()
    if c.magic != lib.HY_CONTROL_MAGIC or c.count > lib.HY_STATS_MAX:
        return {}
    return {name: int(c.values[i]) for i, name in enumerate(names[: c.count])}


def _about(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_JSON_MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lockable(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _files(path: Path) -> tuple[Path, Path, Path]:
    about = path.with_suffix(".json")
    return path, about, about.with_suffix(".json.new")
