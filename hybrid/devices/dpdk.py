"""DPDK: what is installed of it, whether our plugin loads, and which devices it could take.

Nothing of it is loaded into this process: DPDK ends a process that it does not like, and does much at load.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hybrid import _native

__all__ = ["BoundDevice", "Dpdk", "Plugin", "look"]

_PLUGIN = "libhybrid-dpdk.so"
_LOAD_WITHIN_S = 20.0
_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
_CLASS_NETWORK = 0x02
_LOADER = """
import ctypes, os, sys
try:
    ctypes.CDLL(sys.argv[1], os.RTLD_NOW | os.RTLD_GLOBAL).hybrid_dpdk_plugin
except (OSError, AttributeError) as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True, slots=True)
class Plugin:
    """Our side of it. ``problem`` empty: it loads."""

    path: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BoundDevice:
    """A network card that no kernel driver has, so that DPDK may take it."""

    address: str
    driver: str
    numa_node: int | None


@dataclass(frozen=True, slots=True)
class Dpdk:
    """``abi`` None: not installed. ``drivers``: its drivers for network ports that are there as files."""

    abi: str | None
    version: str | None
    drivers: tuple[str, ...]
    plugin: Plugin | None
    bound: tuple[BoundDevice, ...]
    iommu_groups: int


def look(root: Path = Path("/")) -> Dpdk:
    """By files, and by a child process that loads our plugin."""
    folders = sorted((root / "usr/lib").glob("*/dpdk/pmds-*"), key=lambda path: _numbers(path.name))
    abi = folders[-1].name.removeprefix("pmds-") if folders else None
    return Dpdk(
        abi=abi,
        version=_version(abi.partition(".")[0]) if abi else None,
        drivers=_drivers(folders[-1]) if folders else (),
        plugin=_plugin(),
        bound=_bound(root),
        iommu_groups=len(list((root / "sys/kernel/iommu_groups").glob("[0-9]*"))),
    )


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def _drivers(folder: Path) -> tuple[str, ...]:
    """By name, from ``librte_net_NAME.so`` and whatever version stands behind it."""
    prefix = "librte_net_"
    return tuple(
        sorted({path.name.removeprefix(prefix).partition(".")[0] for path in folder.glob(f"{prefix}*")})
    )


def _version(major: str) -> str | None:
    """As Debian names it; None elsewhere."""
    if shutil.which("dpkg-query") is None:
        return None
    command = ["dpkg-query", "-W", "-f", "${Version}", f"librte-eal{major}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _plugin() -> Plugin | None:
    """None: this build of hybrid has none. It is looked for where libhybrid does (hybrid/dpdk/load.c)."""
    path = Path(os.environ.get("HYBRID_DPDK_PLUGIN") or _libhybrid_folder() / _PLUGIN)
    if not path.exists():
        return None
    command = [sys.executable, "-P", "-c", _LOADER, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_LOAD_WITHIN_S, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Plugin(str(path), f"did not load within {_LOAD_WITHIN_S:.0f} s")
    if done.returncode == 0:
        return Plugin(str(path))
    if done.returncode < 0:
        return Plugin(str(path), f"ended the process that loaded it by signal {-done.returncode}")
    said = done.stderr.strip().splitlines() or [f"ended its process with code {done.returncode}"]
    return Plugin(str(path), said[-1])


def _libhybrid_folder() -> Path:
    """Where the library that this process uses was loaded from."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.partition("/")[1] + line.partition("/")[2])
        if path.name.startswith("libhybrid.so"):
            return path.parent
    return Path(str(_native.__file__)).parent


def _bound(root: Path) -> tuple[BoundDevice, ...]:
    found = []
    for driver in _DRIVERS:
        for path in sorted((root / "sys/bus/pci/drivers" / driver).glob("*:*:*.*")):
            with suppress(OSError, ValueError):
                if int((path / "class").read_text(), 16) >> 16 == _CLASS_NETWORK:
                    node = int((path / "numa_node").read_text())
                    found.append(BoundDevice(path.name, driver, node if node >= 0 else None))
    return tuple(found)
