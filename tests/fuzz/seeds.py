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


def resp() -> Iterable[bytes]:
    """Requests of a key-value client, behind two bytes that choose how they are cut."""
    commands = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"SET k v EX 10 NX\r\nMSET a 1 b 2\r\nMGET a b c\r\nINCR a\r\nDEL a b\r\nEXISTS a\r\nDBSIZE\r\n",
        b"ECHO \"a\\x41\\n\" 'b'\r\nPING\r\nCLIENT SETNAME x\r\n",
        b"CONFIG GET *\r\nCOMMAND DOCS\r\nINFO\r\nQUIT\r\n",
        b"*1\r\n$-1\r\n",
        b"*-1\r\n*x\r\n",
    ]
    return (bytes([cut, room]) + command for command in commands for cut, room in ((0, 0), (6, 255)))


TARGETS: dict[str, Callable[[], Iterable[bytes]]] = {"address": address, "resp": resp}


def main() -> None:
    target, folder = sys.argv[1], Path(sys.argv[2])
    for number, seed in enumerate(TARGETS[target]()):
        (folder / f"{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
