"""What a lab remembers of itself: /run/hybrid/lab/NAME.json, written before anything is made.

The file is how a later run knows what is its own. It holds the cookie of each namespace, which the
kernel never gives to another before the next boot; a namespace of the right name and another
cookie was made by somebody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hybrid.errors import from_errno

__all__ = ["STATE_DIR", "State", "locked"]

STATE_DIR = Path("/run/hybrid/lab")


@dataclass
class State:
    """The parameters of a lab, and the namespaces that were made for it (side: cookie)."""

    name: str
    queues: int
    mtu: int
    cookies: dict[str, int] = field(default_factory=dict)
    boot: str = field(default_factory=lambda: _boot_id())

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return STATE_DIR / f"{self.name}.json"

    @staticmethod
    def load(name: str) -> State | None:
        """None: no such lab was begun since the machine was started, or its file is not one of ours."""
        try:
            made = State(**json.loads((STATE_DIR / f"{name}.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        except OSError as error:
            raise from_errno(error.errno or 0, f"read the state of lab {name}") from None
        return made if made.boot == _boot_id() else None

    def save(self) -> None:
        """Replaces the file at once."""
        new = self.path.with_suffix(".new")
        try:
            STATE_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
            new.write_text(json.dumps(asdict(self)) + "\n")
            new.replace(self.path)
        except OSError as error:
            raise from_errno(error.errno or 0, f"write {self.path}") from None

    def forget(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One process changes labs at a time; the kernel lets go of the lock if that process dies."""
    try:
        STATE_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(STATE_DIR / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise from_errno(error.errno or 0, f"lock {STATE_DIR}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
