"""The kernel's version and what it exports."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hybrid.doctor.finding import Finding, Outcome

__all__ = ["probe"]

# Namespace cookies came with 5.14; 5.15 is the first long-term kernel after it.
_OLDEST = (5, 15)

_NEWER = "apt-get install -y linux-image-amd64, and restart the machine"


def probe() -> Iterator[Finding]:
    """Version, BTF, bpffs."""
    release = os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None:
        yield Finding(
            "version", Outcome.INCONCLUSIVE, f"Linux {release} has no version that can be read", True
        )
    elif (int(numbers[1]), int(numbers[2])) >= _OLDEST:
        yield Finding("version", Outcome.YES, f"Linux {release}", needed=True)
    else:
        oldest = ".".join(map(str, _OLDEST))
        yield Finding("version", Outcome.NO, f"Linux {release}, older than {oldest}", True, _NEWER)

    if Path("/sys/kernel/btf/vmlinux").exists():
        yield Finding("BTF", Outcome.YES, "/sys/kernel/btf/vmlinux", needed=True)
    else:
        yield Finding("BTF", Outcome.NO, "the kernel was built without CONFIG_DEBUG_INFO_BTF", True, _NEWER)

    mounts = (line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    if ["/sys/fs/bpf", "bpf"] in mounts:
        yield Finding("bpffs", Outcome.YES, "mounted at /sys/fs/bpf")
    else:
        yield Finding(
            "bpffs",
            Outcome.NO,
            "not mounted at /sys/fs/bpf; hybrid apply does it when it is needed",
            remedy="mount -t bpf bpf /sys/fs/bpf",
        )
