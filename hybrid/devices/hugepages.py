"""Hugepages, by size and NUMA node (Documentation/admin-guide/mm/hugetlbpage.rst)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hybrid.errors import from_errno

__all__ = ["Pool", "default_kib", "pools", "reserve", "reserved"]


@dataclass(frozen=True, slots=True)
class Pool:
    """``total`` were reserved, ``free`` are in nobody's hands. ``node`` None: a kernel without NUMA."""

    size_kib: int
    node: int | None
    total: int
    free: int


def pools(root: Path = Path("/")) -> list[Pool]:
    """By node and size."""
    folders: list[tuple[int | None, Path]] = [
        (int(path.parent.name.removeprefix("node")), path)
        for path in (root / "sys/devices/system/node").glob("node[0-9]*/hugepages")
    ]
    if not folders:
        folders = [(None, root / "sys/kernel/mm/hugepages")]
    found = []
    for node, folder in folders:
        for path in folder.glob("hugepages-*kB"):
            with suppress(OSError, ValueError):
                size = int(path.name.removeprefix("hugepages-").removesuffix("kB"))
                found.append(Pool(size, node, _persistent(path), _read(path / "free_hugepages")))
    return sorted(found, key=lambda pool: (pool.node or 0, pool.size_kib))


def default_kib(root: Path = Path("/")) -> int | None:
    """The size that a program gets which names none; None: this kernel has no hugepages."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("Hugepagesize:"):
                return int(line.split()[1])
    return None


def reserved(size_kib: int, node: int | None, root: Path = Path("/")) -> int | None:
    """How many were reserved; None: there is no such pool."""
    with suppress(OSError, ValueError):
        return _persistent(_folder(size_kib, node, root))
    return None


def reserve(size_kib: int, node: int | None, total: int, root: Path = Path("/")) -> None:
    """Asks for so many in all. The kernel takes what it finds: read afterwards how many those are."""
    path = _folder(size_kib, node, root) / "nr_hugepages"
    try:
        path.write_text(f"{total}\n")
    except OSError as error:
        raise from_errno(error.errno or 0, f"write {path}") from None


def _folder(size_kib: int, node: int | None, root: Path) -> Path:
    above = "sys/kernel/mm" if node is None else f"sys/devices/system/node/node{node}"
    return root / above / "hugepages" / f"hugepages-{size_kib}kB"


def _persistent(path: Path) -> int:
    """Pages beyond what was asked for (overcommitted, or given back while in use) go by themselves."""
    return _read(path / "nr_hugepages") - _read(path / "surplus_hugepages")


def _read(path: Path) -> int:
    return int(path.read_text())
