"""Our library, the programs that quickstart and tests call, and a Python module that is easy to get wrong."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from hybrid.doctor.finding import Finding, Outcome

__all__ = ["probe"]

# command: (Debian package, for what)
_COMMANDS = {
    "clang": ("clang", "builds the BPF programs"),
    "bpftool": ("bpftool", "shows what is loaded"),
    "ethtool": ("ethtool", "shows offloads and channels"),
    "ip": ("iproute2", "shows what labs and policies made"),
    "redis-server": ("redis-server", "is the peer of the quickstart"),
    "redis-cli": ("redis-tools", "is the client of the quickstart"),
    "redis-benchmark": ("redis-tools", "is the load of the quickstart"),
}


def probe() -> Iterator[Finding]:
    """Only the library is needed to run."""
    yield _library()
    for command, (package, use) in _COMMANDS.items():
        found = shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")
        if found:
            yield Finding(command, Outcome.YES, found)
        else:
            yield Finding(
                command, Outcome.NO, f"not installed; it {use}", remedy=f"apt-get install -y {package}"
            )
    yield _bcc()


def _library() -> Finding:
    try:
        importlib.import_module("hybrid._native")
    except ImportError as error:
        return Finding(
            "libhybrid", Outcome.NO, f"does not load: {error}", True, "pip install --force-reinstall ."
        )
    return Finding("libhybrid", Outcome.YES, "loads", needed=True)


def _bcc() -> Finding:
    """Two packages are imported as ``bcc``; the one on PyPI has nothing to do with BPF."""
    install = "apt-get install -y python3-bpfcc"
    spec = importlib.util.find_spec("bcc")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec is not None else []
    if any((place / "libbcc.py").exists() for place in places):
        return Finding("python3-bpfcc", Outcome.YES, str(places[0]))
    if spec is not None:
        where = spec.origin or "somewhere"
        remedy = f"{sys.executable} -m pip uninstall -y bcc; {install}"
        return Finding("python3-bpfcc", Outcome.NO, f"{where} is another package called bcc", remedy=remedy)
    return Finding(
        "python3-bpfcc", Outcome.NO, "not installed, or not visible to this Python", remedy=install
    )
