"""Other ways into the kernel: TUN/TAP and io_uring."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from hybrid.doctor.finding import Finding, Outcome

__all__ = ["probe"]

_SYS_IO_URING_SETUP = 425  # on every architecture
_PARAMS_BYTES = 120


def probe() -> Iterator[Finding]:
    """Neither is needed for AF_XDP."""
    tun = Path("/dev/net/tun")
    if not tun.exists():
        yield Finding("TUN/TAP", Outcome.NO, "there is no /dev/net/tun", remedy="modprobe tun")
    elif os.access(tun, os.R_OK | os.W_OK):
        yield Finding("TUN/TAP", Outcome.YES, "/dev/net/tun")
    else:
        yield Finding(
            "TUN/TAP", Outcome.INCONCLUSIVE, "/dev/net/tun is not ours to open", remedy="sudo hybrid doctor"
        )

    libc = ctypes.CDLL(None, use_errno=True)
    ring: int = libc.syscall(_SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(_PARAMS_BYTES))
    if ring >= 0:
        os.close(ring)
        yield Finding("io_uring", Outcome.YES, "a ring opens")
    else:
        reason = os.strerror(ctypes.get_errno()).lower()
        yield Finding(
            "io_uring",
            Outcome.NO,
            f"a ring was refused: {reason}",
            remedy="sysctl -w kernel.io_uring_disabled=0",
        )
