"""Settings of the host that `hybrid doctor --fix` changes: each can be read, written and named again later.

A value is text, so that a record of it can be kept and compared. ``local`` settings belong to an interface
and so to its network namespace; the others are the whole host's.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from hybrid.devices import ethtool, hugepages, interrupts
from hybrid.errors import HybridError
from hybrid.ranges import format_ranges, parse_ranges

__all__ = ["Affinity", "Channels", "Hugepages", "Offload", "Setting", "as_dict", "from_dict"]

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Hugepages:
    """How many pages of one size are reserved on a node."""

    kind: ClassVar[str] = "hugepages"
    local: ClassVar[bool] = False
    size_kib: int
    node: int | None

    def read(self, root: Path = _ROOT) -> str | None:
        """The value now; None: there is no such setting any more."""
        pages = hugepages.reserved(self.size_kib, self.node, root)
        return None if pages is None else str(pages)

    def write(self, value: str, root: Path = _ROOT) -> None:
        """Sets it; what was obtained is read afterwards."""
        hugepages.reserve(self.size_kib, self.node, int(value), root)

    def __str__(self) -> str:
        where = "" if self.node is None else f" on node {self.node}"
        return f"hugepages of {self.size_kib} KiB{where}"


class _OfInterface:
    """An interface is known by its number, which is not given again, and may have been renamed since."""

    __slots__ = ()
    local: ClassVar[bool] = True
    interface: str
    ifindex: int

    @property
    def name(self) -> str | None:
        """What it is called now; None: it is gone."""
        with suppress(OSError):
            return socket.if_indextoname(self.ifindex)
        return None

    def _present(self) -> str:
        name = self.name
        if name is None:
            raise HybridError(f"{self.interface} is gone")
        return name


@dataclass(frozen=True, slots=True)
class Channels(_OfInterface):
    """How many queues an interface uses, as ``combined 2, rx 0, tx 0``."""

    kind: ClassVar[str] = "channels"
    interface: str
    ifindex: int

    @staticmethod
    def value(combined: int, rx: int, tx: int) -> str:
        """As it is kept."""
        return f"combined {combined}, rx {rx}, tx {tx}"

    def read(self, root: Path = _ROOT) -> str | None:
        """The value now; None: there is no such setting any more."""
        now = ethtool.channels(self.name) if self.name else None
        return None if now is None else self.value(now.combined, now.rx, now.tx)

    def write(self, value: str, root: Path = _ROOT) -> None:
        """Sets it."""
        combined, rx, tx = (int(number) for number in re.findall(r"\d+", value))
        ethtool.set_channels(self._present(), combined, rx, tx)

    def __str__(self) -> str:
        return f"queues of {self.interface}"


@dataclass(frozen=True, slots=True)
class Offload(_OfInterface):
    """One offload of an interface, ``on`` or ``off``."""

    kind: ClassVar[str] = "offload"
    interface: str
    ifindex: int
    feature: str

    def read(self, root: Path = _ROOT) -> str | None:
        """The value now; None: there is no such setting any more."""
        if (name := self.name) is None:
            return None
        return "on" if ethtool.offloads_on(name, (self.feature,)) else "off"

    def write(self, value: str, root: Path = _ROOT) -> None:
        """Sets it."""
        ethtool.set_offloads(self._present(), (self.feature,), value == "on")

    def __str__(self) -> str:
        return f"{self.feature} of {self.interface}"


@dataclass(frozen=True, slots=True)
class Affinity:
    """The cores that an interrupt goes to. Numbers are given again: ``action`` says whose it is."""

    kind: ClassVar[str] = "affinity"
    local: ClassVar[bool] = False
    irq: int
    action: str

    def read(self, root: Path = _ROOT) -> str | None:
        """The value now; None: there is no such setting any more."""
        if interrupts.actions(self.irq, root) != self.action:
            return None
        cores = interrupts.cores_of(self.irq, root)
        return None if cores is None else format_ranges(cores)

    def write(self, value: str, root: Path = _ROOT) -> None:
        """Sets it."""
        interrupts.set_cores(self.irq, parse_ranges(value), root)

    def __str__(self) -> str:
        return f"cores of interrupt {self.irq} ({self.action})"


Setting = Hugepages | Channels | Offload | Affinity
_KINDS: Mapping[str, type[Setting]] = {kind.kind: kind for kind in (Hugepages, Channels, Offload, Affinity)}


def as_dict(setting: Setting) -> dict[str, Any]:
    """For a record of it."""
    return {"kind": setting.kind, **asdict(setting)}


def from_dict(row: dict[str, Any]) -> Setting:
    """From its record. ``KeyError``, ``TypeError``: it is not one."""
    return _KINDS[row["kind"]](**{key: value for key, value in row.items() if key != "kind"})
