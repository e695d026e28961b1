"""Takes away what hybrid made: programs, pins, what it remembers, reserved ports, settings. Nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hybrid.agent import ports, veth
from hybrid.agent.changes import Change, Journal, Undone
from hybrid.agent.state import LOCK, RUN, Namespace, Stored, locked, stored_files
from hybrid.bpf import PinState, attached
from hybrid.bpf.bpffs import ROOT
from hybrid.errors import BusyError, HybridError
from hybrid.lab import netns
from hybrid.launch.record import records
from hybrid.ranges import format_ranges

_NAMES = Path("/run/netns")


@dataclass
class Cleaned:
    """What was removed, put back, left alone although it had been ours, and what could not be, in words."""

    removed: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def clean(*, everything: bool = False, force: bool = False) -> Cleaned:
    """Of this network namespace, and what killed commands left anywhere; ``everything``: of all namespaces.

    ``BusyError``: a program is in service there; with ``force`` its ports go back to the kernel under it.
    """
    here = Namespace.current()
    done = Cleaned()
    with locked():
        if not force:
            _check_idle(here, everything)
        _pins(here, everything, done)
        for name, _near in veth.all_of_them():
            _try(done, f"the veth of the DPDK port of {name}", partial(veth.remove, name))
        _files(here, everything, done)
        _changes(here, everything, done)
        _records(done)
        _folders()
    return done


def _check_idle(here: Namespace, everything: bool) -> None:
    for record in records():
        if record.alive and (everything or record.about.get("netns") == here.inode):
            command = Path(str((record.about.get("command") or ["a program"])[0])).name
            raise BusyError(
                f"{command} (pid {record.about.get('pid')}) is in service here",
                "end it first, or take its traffic away under it: hybrid clean --force",
            )


def _pins(here: Namespace, everything: bool, done: Cleaned) -> None:
    for pinned in attached():
        there = pinned.obtained
        if pinned.state is PinState.ATTACHED and there is not None:
            if not everything and there.netns != here.inode:
                continue
            what = f"the steering program of {there.ifname}"
        elif pinned.state is PinState.UNREADABLE:
            if not everything and not pinned.directory.name.startswith(f"{here.inode}-"):
                continue
            what = f"pins in {pinned.directory} ({pinned.problem})"
        else:
            what = f"pins left in {pinned.directory}"
        _try(done, what, pinned.remove)


def _files(here: Namespace, everything: bool, done: Cleaned) -> None:
    for stored in stored_files():
        stale = stored.namespace.boot != here.boot
        if stored.namespace == here and not stale:
            if stored.ports:
                said = format_ranges(stored.ports)
                _try(done, f"reserved local ports {said}", partial(_release, stored))
        elif not stale and not everything:
            continue
        elif not stale and stored.ports:
            _release_elsewhere(stored, done)
        if stored.applied is not None:
            _try(done, f"what was remembered of {stored.applied.ifname}", stored.path.unlink)
        else:
            stored.path.unlink(missing_ok=True)


def _release(stored: Stored) -> None:
    ports.write(ports.read() - stored.ports)


def _release_elsewhere(stored: Stored, done: Cleaned) -> None:
    """In a namespace that has a name. One without processes or a name is gone, and its settings with it."""
    name = _name_of(stored.namespace)
    if name is not None:
        said = format_ranges(stored.ports)
        release = partial(netns.run_in, name, partial(_release, stored))
        _try(done, f"reserved local ports {said} in {name}", release)


def _name_of(namespace: Namespace) -> str | None:
    for name in sorted(path.name for path in _NAMES.glob("*")):
        with contextlib.suppress(HybridError, OSError):
            if netns.run_in(name, Namespace.current) == namespace:
                return name
    return None


def _changes(here: Namespace, everything: bool, done: Cleaned) -> None:
    """Settings that `hybrid doctor --fix` changed from here, or from where nothing is any more."""
    journal = Journal()
    for change in reversed(journal.changes()):
        namespace = change.namespace
        if namespace.boot != here.boot:  # the machine began anew, with settings of its own
            change.path.unlink(missing_ok=True)
        elif namespace == here or not change.setting.local:
            if namespace == here or everything or not _is_alive(namespace):
                _undo(done, change, partial(journal.undo, change))
        elif everything and (name := _name_of(namespace)) is not None:
            _undo(done, change, partial(netns.run_in, name, partial(journal.undo, change)))
        elif not _is_alive(namespace):
            done.left.append(f"{change} (its network namespace is gone)")
            change.path.unlink(missing_ok=True)


def _undo(done: Cleaned, change: Change, undo: Callable[[], Undone]) -> None:
    try:
        match undo():
            case Undone.RESTORED:
                done.restored.append(f"{change.setting}: {change.before}")
            case Undone.THEIRS:
                done.left.append(f"{change} (somebody else has changed it since)")
            case Undone.GONE:
                done.left.append(f"{change} (there is no such setting any more)")
    except HybridError as error:
        done.failed.append(f"{change.setting}: {error.message}")


def _is_alive(namespace: Namespace) -> bool:
    """Whether a process is in it, or a name keeps it; another may have got its number since."""
    for path in (*_NAMES.glob("*"), *Path("/proc").glob("[0-9]*/ns/net")):
        with contextlib.suppress(OSError):
            if path.stat().st_ino == namespace.inode and netns.is_at(path, namespace.cookie):
                return True
    return False


def _records(done: Cleaned) -> None:
    for record in records():
        if not record.alive:
            for path in record.remove():
                done.removed.append(str(path))
    for stray in sorted((RUN / "shards").glob("*.json*")):
        if not stray.with_suffix("").with_suffix(".stats").exists():
            _try(done, str(stray), stray.unlink)


def _folders() -> None:
    """Our own folders, where nothing is left in them."""
    for folder in (ROOT, RUN / "applied", RUN / "changes", RUN / "shards"):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        if [path.name for path in RUN.iterdir()] == [LOCK]:
            (RUN / LOCK).unlink()
            RUN.rmdir()


def _try(done: Cleaned, what: str, remove: Callable[[], object]) -> None:
    try:
        remove()
    except HybridError as error:
        done.failed.append(f"{what}: {error.message}")
    except FileNotFoundError:
        return
    except OSError as error:
        done.failed.append(f"{what}: {error.strerror}")
    else:
        done.removed.append(what)
