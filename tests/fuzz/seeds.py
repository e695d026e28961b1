"""Writes the seeds of a fuzz target: ``seeds.py TARGET FOLDER``.

Seeds are made here instead of being stored as binary files, so that a reader sees what they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def address() -> Iterable[bytes]:
    """Every form that an address may be written in, and near misses."""
    good = ["10.0.0.1", "10.0.0.1:80", "2001:db8::1", "[2001:db8::1]:80", ":80", "*:80", "::ffff:10.0.0.1"]
    bad = ["10.0.0", "256.1.1.1", "[::1", "::1]:80", "1::2::3", ":65536", "10.0.0.1:", "fe80::1%eth0", ""]
    return (text.encode() for text in (*good, *bad))


TARGETS: dict[str, Callable[[], Iterable[bytes]]] = {"address": address}


def main() -> None:
    target, folder = sys.argv[1], Path(sys.argv[2])
    for number, seed in enumerate(TARGETS[target]()):
        (folder / f"{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
