"""Memory that may be locked, and hugepages."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from hybrid.doctor.finding import Finding, Outcome
from hybrid.doctor.privileges import has

__all__ = ["probe"]

# The default arena of a shard, 16384 frames of 2048 bytes, which a UMEM pins.
_ARENA_BYTES = 16384 * 2048


def probe() -> Iterator[Finding]:
    """RLIMIT_MEMLOCK (which CAP_IPC_LOCK lifts) and free hugepages."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    shown = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit // 1024} KiB"
    if has("CAP_IPC_LOCK"):
        yield Finding("locked memory", Outcome.YES, f"CAP_IPC_LOCK lifts the limit of {shown}", needed=True)
    elif limit == resource.RLIM_INFINITY or limit >= _ARENA_BYTES:
        yield Finding("locked memory", Outcome.YES, f"limit {shown}", needed=True)
    else:
        yield Finding(
            "locked memory",
            Outcome.INCONCLUSIVE,
            f"limit {shown}, and a shard pins {_ARENA_BYTES // 1024} KiB",
            True,
            "sudo hybrid doctor, or LimitMEMLOCK=infinity in the service's unit",
        )

    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free, total = (int(rows.get(f"HugePages_{what}", "0")) for what in ("Free", "Total"))
    if free:
        yield Finding("hugepages", Outcome.YES, f"{free} of {total} free")
    else:
        yield Finding(
            "hugepages",
            Outcome.NO,
            f"none of {total} free; small pages are used",
            remedy="sysctl -w vm.nr_hugepages=64",
        )
