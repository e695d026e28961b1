"""Network namespaces by name, as ``ip netns`` keeps them, entered without leaving the mount namespace.

``ip netns exec`` gives its child a fresh /sys, in which a bpffs mounted outside is not seen. Here
only the network namespace changes (setns(2)), and it changes per *thread*: ``run_in`` does something
inside from a thread of its own, so that the caller never moves and a child it starts is born inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hybrid.errors import HybridError, from_errno

__all__ = [
    "RUN_DIR",
    "cookie_of",
    "create",
    "end_processes",
    "enter",
    "exists",
    "is_at",
    "is_namespace",
    "own_cookie",
    "path_of",
    "processes_in",
    "remove",
    "run_apart",
    "run_in",
]

RUN_DIR = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2
_SO_NETNS_COOKIE = 71

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p,
]  # fmt: skip

T = TypeVar("T")


def _call(function: str, *arguments: object) -> int:
    """0, or the errno of a libc function that fails with -1."""
    result: int = getattr(_libc, function)(*arguments)
    return 0 if result == 0 else ctypes.get_errno()


def path_of(name: str) -> Path:
    """Where a namespace of this name is kept. Refuses names that would lead elsewhere."""
    if not name or "/" in name or name in (".", ".."):
        raise HybridError(f"{name!r} cannot be the name of a network namespace", "choose one without slashes")
    return RUN_DIR / name


def exists(name: str) -> bool:
    """True if the name is taken, by a namespace or by a file that was to become one."""
    return path_of(name).exists()


def is_namespace(name: str) -> bool:
    """False for the plain file that a half-made namespace leaves, and where there is nothing."""
    try:
        # A plain file lives on the file system of /run, a namespace on nsfs.
        return path_of(name).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def own_cookie() -> int:
    """The number of the calling thread's namespace; no other gets the same one until the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError as error:
            raise from_errno(error.errno or 0, "tell network namespaces apart (Linux 5.14 can)") from None


def cookie_of(name: str) -> int | None:
    """The number of the namespace of this name; None: there is none."""
    return run_in(name, own_cookie) if is_namespace(name) else None


def is_at(path: Path, cookie: int) -> bool:
    """Whether it is the namespace with this cookie that a process (/proc/PID/ns/net) is in, or a name keeps.

    Only one that may be looked at, and is still there, is.
    """

    def inside() -> int:
        _enter(path, str(path))
        return own_cookie()

    try:
        return _in_thread(inside, "netns look") == cookie
    except (OSError, HybridError):
        return False


def enter(name: str) -> None:
    """Moves the calling thread into the namespace, for good."""
    try:
        _enter(path_of(name), name)
    except FileNotFoundError:
        raise HybridError(
            f"there is no network namespace called {name}", "ip netns list shows those that exist"
        ) from None
    except PermissionError as error:
        raise from_errno(error.errno or 0, f"open the network namespace {name}") from None


def _enter(path: Path, name: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        failed = _call("setns", fd, _CLONE_NEWNET)
    finally:
        os.close(fd)
    if failed:
        raise from_errno(failed, f"enter the network namespace {name}")


def run_in(name: str, function: Callable[[], T]) -> T:
    """What ``function`` returns or raises, run inside the namespace; the caller stays where it is."""

    def inside() -> T:
        enter(name)
        return function()

    return _in_thread(inside, f"netns {name}")


def run_apart(function: Callable[[], T]) -> T:
    """As ``run_in``, in a new namespace without a name, which ends with the call."""

    def inside() -> T:
        failed = _call("unshare", _CLONE_NEWNET)
        if failed:
            raise from_errno(failed, "make a network namespace")
        return function()

    return _in_thread(inside, "netns apart")


def _in_thread(function: Callable[[], T], name: str) -> T:
    """Runs a function in a thread that ends with it, and with it whatever namespace it had entered."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name=name)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def create(name: str, announce: Callable[[int], None] = lambda cookie: None) -> int:
    """Makes a namespace, keeps it under its name, and returns its cookie.

    ``announce`` is told the cookie before anything is visible, so that its maker can be known
    whatever happens in between. The name's file exists a moment before the namespace is mounted on
    it: a crash there leaves a plain file, for which ``is_namespace`` is false.
    """
    path = path_of(name)
    what = f"create the network namespace {name}"
    _prepare_run_dir()

    def make() -> int:
        failed = _call("unshare", _CLONE_NEWNET)
        if failed:
            raise from_errno(failed, what)
        cookie = own_cookie()
        announce(cookie)
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        except OSError as error:
            raise from_errno(error.errno or 0, what) from None
        failed = _call("mount", b"/proc/thread-self/ns/net", os.fsencode(path), None, _MS_BIND, None)
        if failed:
            path.unlink(missing_ok=True)
            raise from_errno(failed, what)
        return cookie

    return _in_thread(make, f"new netns {name}")


def remove(name: str) -> None:
    """Takes the name away; the namespace goes with its last process. Fine where there is none."""
    path = path_of(name)
    _call("umount2", os.fsencode(path), _MNT_DETACH)  # EINVAL: a plain file, never mounted on
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise from_errno(error.errno or 0, f"remove the network namespace {name}") from None


def processes_in(name: str) -> list[tuple[int, str]]:
    """Processes (pid, command) that live in the namespace, but for this one, as far as we may see."""
    if not is_namespace(name):
        return []
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if (entry / "ns/net").samefile(path_of(name)):
                found.append((int(entry.name), (entry / "comm").read_text().strip()))
        except OSError:
            continue  # gone meanwhile, or not ours to look at
    return sorted(found)


def end_processes(name: str, patience_s: float = 2.0) -> list[tuple[int, str]]:
    """Ends the processes that live in the namespace: SIGTERM, and SIGKILL after ``patience_s``.

    Each is held by a pidfd and looked at again before it is signalled, so that a number that has
    passed on to somebody else is never hit. Returns those that were told to end.
    """
    found = processes_in(name)
    held: dict[int, int] = {}
    try:
        for pid, _ in found:
            with contextlib.suppress(OSError):
                held[pid] = os.pidfd_open(pid)
        still = {pid for pid, _ in processes_in(name)}
        ends = [held[pid] for pid in held if pid in still]
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
            for fd in ends:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            ends = _wait_for(ends, wait_s)
    finally:
        for fd in held.values():
            os.close(fd)
    return found


def _wait_for(pidfds: list[int], wait_s: float) -> list[int]:
    """Waits until the processes have ended; returns those that have not in time."""
    left = list(pidfds)
    deadline = time.monotonic() + wait_s
    while left and (remaining := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select(left, [], [], remaining)
        left = [fd for fd in left if fd not in ready]
    return left


def _prepare_run_dir() -> None:
    """Makes /run/netns a shared mount, as ip(8) does, so that every mount namespace sees the names."""
    try:
        RUN_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise from_errno(error.errno or 0, f"make {RUN_DIR}") from None
    path = os.fsencode(RUN_DIR)
    if _call("mount", b"", path, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    # EINVAL: not a mount point yet.
    failed = _call("mount", path, path, b"none", _MS_BIND | _MS_REC, None)
    failed = failed or _call("mount", b"", path, b"none", _MS_SHARED | _MS_REC, None)
    if failed:
        raise from_errno(failed, f"make {RUN_DIR} a shared mount")
