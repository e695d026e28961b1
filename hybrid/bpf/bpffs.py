"""Where pins live: ``/sys/fs/bpf/hybrid``, one directory for each interface of each network namespace."""

from __future__ import annotations

from pathlib import Path

from hybrid._native import lib
from hybrid.bpf._call import invoke
from hybrid.errors import from_errno

BPFFS = Path("/sys/fs/bpf")
ROOT = BPFFS / "hybrid"


def ensure_bpffs() -> bool:
    """Mounts a bpffs at /sys/fs/bpf where there is none, and makes our directory. True: mounted now."""
    mounted = bool(invoke(lib.hy_steer_bpffs, str(BPFFS).encode()))
    try:
        ROOT.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise from_errno(error.errno or 0, f"make {ROOT}") from error
    return mounted


def netns_inode() -> int:
    """Of the calling thread's network namespace."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def pin_directory(ifname: str, netns: int | None = None) -> Path:
    """Where the steering of an interface is pinned; its namespace is the calling thread's unless given.

    bpffs takes no dots in names, and an interface may have some (a VLAN's): they are written %2E.
    """
    escaped = ifname.replace("%", "%25").replace(".", "%2E")
    return ROOT / f"{netns_inode() if netns is None else netns}-{escaped}"
