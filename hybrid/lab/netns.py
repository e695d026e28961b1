"""Network namespaces by name, as ``ip netns`` keeps them, entered without leaving the mount namespace.

``ip netns exec`` gives its child a fresh /sys, in which a bpffs mounted outside is not seen. Here
only the network namespace changes (setns(2)), and it changes per *thread*: ``run_in`` does something
inside from a thread of its own, so that the caller never moves and a child it starts is born inside.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hybrid.errors import HybridError, from_errno

__all__ = ["RUN_DIR", "create", "enter", "exists", "identity", "path_of", "processes_in", "remove", "run_in"]

RUN_DIR = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2

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


def identity(name: str) -> tuple[int, int] | None:
    """Device and inode of the namespace, which no other one has while it lives; None: there is none."""
    try:
        found = os.stat(path_of(name))
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def exists(name: str) -> bool:
    """True if the name is taken, by a namespace or by a file that was to become one."""
    return path_of(name).exists()


def is_namespace(name: str) -> bool:
    """False for the plain file that a half-made namespace leaves."""
    found = identity(name)
    # A plain file lives on the file system of /run, a namespace on nsfs.
    return found is not None and found[0] == os.stat("/proc/self/ns/net").st_dev


def enter(name: str) -> None:
    """Moves the calling thread into the namespace, for good."""
    try:
        fd = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HybridError(
            f"there is no network namespace called {name}", "ip netns list shows those that exist"
        ) from None
    except PermissionError as error:
        raise from_errno(error.errno or 0, f"open the network namespace {name}") from None
    try:
        failed = _call("setns", fd, _CLONE_NEWNET)
    finally:
        os.close(fd)
    if failed:
        raise from_errno(failed, f"enter the network namespace {name}")


def run_in(name: str, function: Callable[[], T]) -> T:
    """What ``function`` returns or raises, run inside the namespace; the caller stays where it is."""
    result: list[T] = []
    failure: list[BaseException] = []

    def inside() -> None:
        try:
            enter(name)
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=inside, name=f"netns {name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def create(name: str) -> tuple[int, int]:
    """Makes a namespace and keeps it under its name. Returns its identity.

    The name's file exists a moment before the namespace is mounted on it: a crash in between
    leaves a plain file, for which ``is_namespace`` is false.
    """
    path = path_of(name)
    _prepare_run_dir()
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except OSError as error:
        raise from_errno(error.errno or 0, f"create the network namespace {name}") from None
    failure: list[HybridError] = []

    def make() -> None:
        failed = _call("unshare", _CLONE_NEWNET)
        if not failed:
            failed = _call("mount", b"/proc/thread-self/ns/net", os.fsencode(path), None, _MS_BIND, None)
        if failed:
            failure.append(from_errno(failed, f"create the network namespace {name}"))

    thread = threading.Thread(target=make, name=f"new netns {name}")
    thread.start()
    thread.join()
    if failure:
        path.unlink(missing_ok=True)
        raise failure[0]
    made = identity(name)
    assert made is not None, "it was mounted just now"
    return made


def remove(name: str) -> None:
    """Takes the name away; the namespace goes with its last process. Fine where there is none."""
    path = path_of(name)
    _call("umount2", os.fsencode(path), _MNT_DETACH)  # EINVAL: a plain file, never mounted on
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise from_errno(error.errno or 0, f"remove the network namespace {name}") from None


def processes_in(name: str) -> list[tuple[int, str]]:
    """Processes (pid, command) that live in the namespace, as far as this user may see."""
    wanted = identity(name)
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            there = os.stat(entry / "ns/net")
            if (there.st_dev, there.st_ino) == wanted:
                found.append((int(entry.name), (entry / "comm").read_text().strip()))
        except OSError:
            continue  # gone meanwhile, or not ours to look at
    return sorted(found)


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
