"""Whether XDP programs load and attach and AF_XDP sockets open, found out by doing it.

The attachment is tried on a veth pair in a network namespace that has no name and ends with the
thread that made it, so nothing of it can be left behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

from hybrid.doctor.finding import Finding, Outcome
from hybrid.errors import HybridError
from hybrid.lab import link, netns

__all__ = ["probe"]

_AF_XDP = 44
_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _LINK_CREATE = 5, 28
_PROG_TYPE_XDP, _ATTACH_XDP = 6, 37
_FLAG_GENERIC, _FLAG_NATIVE = 1 << 1, 1 << 2

# r0 = XDP_PASS; exit
_PASS = bytes.fromhex("b7000000020000009500000000000000")

_DENIED = (errno.EPERM, errno.EACCES)
_AS_ROOT = "sudo hybrid doctor"


def probe() -> Iterator[Finding]:
    """Socket, program, attachment."""
    yield _socket()
    program = _load()
    if program < 0:
        yield _said("XDP program", -program, "an XDP program was refused")
        yield Finding("XDP on veth", Outcome.INCONCLUSIVE, "no program to attach", True, _AS_ROOT)
        return
    try:
        yield Finding("XDP program", Outcome.YES, "loads", needed=True)
        yield _attachment(program)
    finally:
        os.close(program)


def _socket() -> Finding:
    try:
        socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC).close()
    except OSError as error:
        return _said("AF_XDP socket", error.errno or 0, "an AF_XDP socket was refused")
    return Finding("AF_XDP socket", Outcome.YES, "opens", needed=True)


def _attachment(program: int) -> Finding:
    """Which modes a veth takes; one of them is enough."""
    try:
        native, generic = netns.run_apart(lambda: _attach_both(program))
    except HybridError as error:
        denied = error.errno in _DENIED
        outcome = Outcome.INCONCLUSIVE if denied else Outcome.NO
        return Finding("XDP on veth", outcome, error.message, True, _AS_ROOT if denied else None)
    modes = [mode for mode, result in (("native", native), ("generic", generic)) if result == 0]
    if not modes:
        return _said("XDP on veth", native, "neither native nor generic attaches")
    return Finding("XDP on veth", Outcome.YES, " and ".join(modes), needed=True)


def _attach_both(program: int) -> tuple[int, int]:
    """errno of a native and of a generic attachment; 0: it attached (and is detached again)."""
    link.make_pair("probe0", "probe1", "/proc/thread-self/ns/net", 1, "hybrid doctor")
    index = socket.if_nametoindex("probe0")
    return _attach(program, index, _FLAG_NATIVE), _attach(program, index, _FLAG_GENERIC)


def _load() -> int:
    """A descriptor, or a negative errno."""
    code = ctypes.create_string_buffer(_PASS)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        _PROG_TYPE_XDP, len(_PASS) // 8, ctypes.addressof(code), ctypes.addressof(licence),
        0, 0, 0, 0, 0, b"hybrid_doctor", 0, _ATTACH_XDP,
    )  # fmt: skip
    return _bpf(_PROG_LOAD, attributes)


def _attach(program: int, index: int, flags: int) -> int:
    made = _bpf(_LINK_CREATE, struct.pack("=IIII", program, index, _ATTACH_XDP, flags))
    if made < 0:
        return -made
    os.close(made)  # the only reference: it detaches
    return 0


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYS_BPF.get(os.uname().machine)
    if number is None:
        return -errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = libc.syscall(number, command, buffer, len(attributes))
    return result if result >= 0 else -ctypes.get_errno()


def _said(name: str, number: int, what: str) -> Finding:
    detail = f"{what}: {os.strerror(number).lower()}"
    if number in _DENIED and os.geteuid() != 0:
        return Finding(name, Outcome.INCONCLUSIVE, detail, True, _AS_ROOT)
    return Finding(
        name, Outcome.NO, detail, True, "apt-get install -y linux-image-amd64, and restart the machine"
    )
