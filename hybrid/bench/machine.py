"""The facts about a machine that a figure means nothing without. No names of hosts or people."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

_CLOCKSOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def _lscpu() -> dict[str, str]:
    """What lscpu says, by its field names; empty where it can't be asked."""
    try:
        done = subprocess.run(
            ["lscpu", "--json"],
            capture_output=True,
            text=True,
            check=True,
            env={"LC_ALL": "C", "PATH": os.defpath},
        )
        fields = json.loads(done.stdout)["lscpu"]
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError):
        return {}
    return {str(f["field"]).rstrip(":"): str(f["data"]) for f in fields}


def _clocksource() -> str:
    try:
        return _CLOCKSOURCE.read_text().strip()
    except OSError:
        return "unknown"


def machine() -> dict[str, str | int]:
    """Kernel release, processor, cores that this process may use, clock source, hypervisor."""
    cpu = _lscpu()
    return {
        "kernel": platform.release(),
        "cpu": cpu.get("Model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "clocksource": _clocksource(),
        "hypervisor": cpu.get("Hypervisor vendor", "none"),
    }
