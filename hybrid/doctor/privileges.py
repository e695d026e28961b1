"""Capabilities of this process (capabilities(7)): what the kernel asks for, whoever the user is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybrid.doctor.finding import Finding, Outcome

__all__ = ["has", "probe"]

_NUMBERS = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}

# For what, in the words of a finding.
_USES = {
    "CAP_NET_ADMIN": "attaches programs and makes labs",
    "CAP_NET_RAW": "opens AF_XDP sockets",
    "CAP_SYS_ADMIN": "enters namespaces and mounts bpffs",
    "CAP_BPF": "loads programs and makes maps",
}


def has(capability: str) -> bool:
    """True if it is in the effective set of this process."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _NUMBERS[capability] & 1)


def probe() -> Iterator[Finding]:
    """One finding for each capability that setting up needs; CAP_SYS_ADMIN includes CAP_BPF."""
    for capability, use in _USES.items():
        if has(capability) or (capability == "CAP_BPF" and has("CAP_SYS_ADMIN")):
            yield Finding(capability, Outcome.YES, use, needed=True)
        else:
            # This user hasn't; whether the host would allow it is not known.
            yield Finding(
                capability, Outcome.INCONCLUSIVE, f"missing here; it {use}", True, "sudo hybrid doctor"
            )
