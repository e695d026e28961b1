"""io_uring, and why there is none where there is none."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hybrid._native import ffi, lib

__all__ = ["Uring", "look"]

_SETTING = "proc/sys/kernel/io_uring_disabled"


@dataclass(frozen=True, slots=True)
class Uring:
    """``problem`` empty: a ring opens; ``features``: what the kernel has of what the transport uses."""

    problem: str = ""
    remedy: str | None = None
    sysctl: int | None = None
    opcodes: int = 0
    features: dict[str, bool] = field(default_factory=dict)


def look(root: Path = Path("/")) -> Uring:
    """Opens rings, and closes them."""
    setting = None
    with suppress(OSError, ValueError):
        setting = int((root / _SETTING).read_text())
    found = ffi.new("hy_uring_features *")
    found.struct_size = ffi.sizeof("hy_uring_features")
    status = int(lib.hy_uring_probe(found))
    if status < 0:
        return Uring(*_why(-status, setting), sysctl=setting)
    names = [name for name in dir(found) if name not in ("struct_size", "opcodes")]
    return Uring(
        sysctl=setting,
        opcodes=int(found.opcodes),
        features={name: bool(getattr(found, name)) for name in names},
    )


def _why(number: int, setting: int | None) -> tuple[str, str]:
    if number in (errno.EPERM, errno.EACCES):
        enable = "sysctl -w kernel.io_uring_disabled=0"
        if setting == 2:
            return "disabled for everybody: kernel.io_uring_disabled=2", enable
        if setting == 1:
            return "disabled for whoever is not in kernel.io_uring_group and not privileged", enable
        return (
            "a seccomp filter or security module forbids it",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile",
        )
    if number == errno.ENOSYS:
        return "the kernel has none", "apt-get install -y linux-image-amd64, and restart the machine"
    if number == errno.ENOMEM:
        return "no memory may be locked for a ring", "raise RLIMIT_MEMLOCK: ulimit -l unlimited"
    return ffi.string(lib.hy_strerror(-number)).decode(), "hybrid doctor as root says more"
