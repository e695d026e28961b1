"""Hugepages: free ones, on the node of the interface, for the packet memory of a shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybrid.agent.settings import Hugepages
from hybrid.devices import hugepages
from hybrid.devices.interfaces import interfaces
from hybrid.doctor.finding import Finding, Outcome
from hybrid.doctor.memory import ARENA_BYTES
from hybrid.doctor.stages.stage import Checked, Wanted

__all__ = ["check"]

_NAME = "hugepages"


def check(wanted: Wanted, root: Path) -> Iterator[Checked]:
    """One finding for each node that should have some: those of the interfaces named, or else all."""
    size = hugepages.default_kib(root)
    pools = [pool for pool in hugepages.pools(root) if pool.size_kib == size]
    if size is None or not pools:
        yield Checked(
            Finding(
                _NAME,
                Outcome.NO,
                "this kernel has none; small pages are used",
                remedy="apt-get install -y linux-image-amd64, and restart the machine",
            )
        )
        return
    named = [found.numa_node for found in interfaces(root) if found.name in wanted.interfaces]
    chosen = [pool for pool in pools if pool.node in named] or pools
    # For one shard, unless somebody said how many; spread where no node is nearer than another.
    pages = wanted.hugepages if wanted.hugepages is not None else -(-ARENA_BYTES // (size * 1024))
    each = -(-pages // len(chosen))
    for pool in chosen:
        where = "" if pool.node is None else f" on node {pool.node}"
        detail = f"{pool.free} of {pool.total} free{where}, of {size} KiB; {each} are wanted"
        if pool.free >= each:
            yield Checked(Finding(_NAME, Outcome.YES, detail))
            continue
        asked = f" --hugepages {wanted.hugepages}" if wanted.hugepages is not None else ""
        yield Checked(
            Finding(_NAME, Outcome.NO, detail, remedy=f"sudo hybrid doctor --fix hugepages{asked}"),
            ((Hugepages(size, pool.node), str(pool.total + each - pool.free)),),
        )
