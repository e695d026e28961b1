"""Memory that may be locked."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from hybrid.doctor.finding import Finding, Outcome
from hybrid.doctor.privileges import has

__all__ = ["ARENA_BYTES", "probe"]

# The default arena of a shard, 16384 frames of 2048 bytes, which a UMEM pins.
ARENA_BYTES = 16384 * 2048


def probe() -> Iterator[Finding]:
    """RLIMIT_MEMLOCK (which CAP_IPC_LOCK lifts)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    shown = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit // 1024} KiB"
    if has("CAP_IPC_LOCK"):
        yield Finding("locked memory", Outcome.YES, f"CAP_IPC_LOCK lifts the limit of {shown}", needed=True)
    elif limit == resource.RLIM_INFINITY or limit >= ARENA_BYTES:
        yield Finding("locked memory", Outcome.YES, f"limit {shown}", needed=True)
    else:
        yield Finding(
            "locked memory",
            Outcome.INCONCLUSIVE,
            f"limit {shown}, and a shard pins {ARENA_BYTES // 1024} KiB",
            True,
            "sudo hybrid doctor, or LimitMEMLOCK=infinity in the service's unit",
        )
