"""What `hybrid apply` remembers below /run/hybrid/applied, one file per interface and one per namespace.

The kernel holds the truth about programs and rules (hybrid.bpf reads it back). Kept here is only what
the kernel has no place for: what the policy asks of AF_XDP sockets, where it came from, and
which reserved ports are ours. Names begin with the inode number of the network namespace;
since the kernel gives such numbers out again, each file also holds the namespace's cookie,
which it never does before the next boot, and the boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from hybrid.bpf.bpffs import netns_inode
from hybrid.errors import BusyError, from_errno
from hybrid.policy import CompiledInterface

RUN = Path("/run/hybrid")
LOCK = ".lock"
LOCK_WAIT_S = 15.0
_SO_NETNS_COOKIE = 71
_VERSION = 2
_FILE_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace: a number that names it now, and one that no other will have."""

    inode: int
    cookie: int
    boot: str

    @classmethod
    def current(cls) -> Self:
        """The calling thread's."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            raw = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(netns_inode(), int.from_bytes(raw, "little"), boot)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a policy asked of one interface, whole, so that it can be asked again of one that comes back.

    ``obtained`` is the XDP mode; empty where no program is attached, and ``note`` says why.
    """

    desired: CompiledInterface
    policy: str
    obtained: str = ""
    note: str = ""

    @property
    def ifname(self) -> str:
        """Of the interface."""
        return self.desired.name

    def as_dict(self) -> dict[str, Any]:
        """Everything but the rules, which the kernel holds."""
        asked = _INTERFACE.dump_python(self.desired, mode="json")
        asked.pop("rules")
        return {"ifname": asked.pop("name"), "policy": self.policy, **asked}


_INTERFACE = TypeAdapter(CompiledInterface)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as found, of whatever namespace."""

    path: Path
    namespace: Namespace
    applied: Applied | None = None
    ports: frozenset[int] = field(default_factory=frozenset)


class Store:
    """The files of one namespace."""

    def __init__(self, namespace: Namespace, run: Path = RUN) -> None:
        self.namespace = namespace
        self.folder = run / "applied"

    def path(self, ifname: str) -> Path:
        """Where an interface is remembered."""
        return self.folder / f"{self.namespace.inode}-{ifname}.json"

    @property
    def ports_path(self) -> Path:
        """Where the reserved ports are. No interface has a slash in its name, nor an empty one."""
        return self.folder / f"{self.namespace.inode}-.json"

    def load(self) -> dict[str, Applied]:
        """By interface; what another namespace of the same number left is not ours."""
        return {
            stored.applied.ifname: stored.applied
            for stored in stored_files(self.folder.parent)
            if stored.namespace == self.namespace and stored.applied is not None
        }

    def ports(self) -> frozenset[int]:
        """Reserved ports that we added."""
        for stored in stored_files(self.folder.parent):
            if stored.namespace == self.namespace and stored.path == self.ports_path:
                return stored.ports
        return frozenset()

    def save(self, applied: Applied) -> None:
        """Remembers an interface."""
        desired = _INTERFACE.dump_python(applied.desired, mode="json")
        row = {"policy": applied.policy, "obtained": applied.obtained, "note": applied.note}
        self._write(self.path(applied.ifname), {"applied": {**row, "desired": desired}})

    def save_ports(self, ports: frozenset[int]) -> None:
        """Remembers the reserved ports; none forgets them."""
        if ports:
            self._write(self.ports_path, {"ports": sorted(ports)})
        else:
            self.ports_path.unlink(missing_ok=True)

    def forget(self, ifname: str) -> None:
        """Removes an interface's file."""
        self.path(ifname).unlink(missing_ok=True)

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        draft = path.with_suffix(".new")
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            whole = {"version": _VERSION, "namespace": asdict(self.namespace), **content}
            draft.write_text(json.dumps(whole) + "\n")
            draft.replace(path)
        except OSError as error:
            raise from_errno(error.errno or 0, f"write {path}") from None


def stored_files(run: Path = RUN) -> list[Stored]:
    """Every file of every namespace, by name. What cannot be read as ours is skipped."""
    try:
        paths = sorted((run / "applied").glob("*.json"))
    except OSError:
        return []
    return [stored for path in paths if (stored := _read(path)) is not None]


def _read(path: Path) -> Stored | None:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_FILE_MAX_BYTES))
        if found["version"] != _VERSION:
            return None
        applied = None
        if "applied" in found:
            row = found["applied"]
            applied = Applied(_INTERFACE.validate_python(row.pop("desired")), **row)
        return Stored(path, Namespace(**found["namespace"]), applied, frozenset(found.get("ports", ())))
    except (OSError, ValidationError, ValueError, TypeError, KeyError, AttributeError):
        return None


@contextlib.contextmanager
def locked(run: Path = RUN) -> Iterator[None]:
    """One process changes the host at a time; the lock goes with the process that holds it."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while (fd := _lock(run)) is None:
        if time.monotonic() > deadline:
            raise BusyError("another hybrid command is changing this host", "wait for it to end")
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(fd)


def _lock(run: Path) -> int | None:
    """The locked descriptor; ``None``: somebody else has it, or `hybrid clean` has just removed the file."""
    try:
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_errno(error.errno or 0, f"lock {run}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is(fd, run / LOCK):
            return fd
    except BlockingIOError:
        pass
    except OSError as error:
        os.close(fd)
        raise from_errno(error.errno or 0, f"lock {run}") from None
    os.close(fd)
    return None


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
