"""Starts the program without the launcher's privileges.

What is left to it is CAP_IPC_LOCK, where the launcher has that itself: registering the arena
with an AF_XDP socket locks it in memory, RLIMIT_MEMLOCK counts every registration over all
processes of a user, and raising that limit wants a privilege that containers often lack.
DPDK opens its ports itself, so a program that has one is left what that wants (:data:`DPDK`).
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hybrid.errors import HybridError, PrivilegeError, UsageError

# include/uapi/linux/prctl.h, capability.h
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_IPC_LOCK, _CAP_SYS_ADMIN, _CAP_BPF = 12, 13, 14, 21, 39
_CAP_LAST = 63

MEMORY = frozenset({_CAP_IPC_LOCK})
DPDK = frozenset({_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_IPC_LOCK, _CAP_SYS_ADMIN, _CAP_BPF})

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def start(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    fds: Sequence[int],
    user: str | None = None,
    capabilities: frozenset[int] = MEMORY,
    outlives: bool = False,
) -> subprocess.Popen[bytes]:
    """Runs ``command`` with the descriptors ``fds`` open. It ends when this process does, or ``outlives`` it.

    ``capabilities`` are left to it, of those that the launcher has.
    """
    account = _account(user)
    launcher = os.getpid()

    def lose_privileges() -> None:
        _raise_memlock()
        keep = capabilities & _permitted()
        if os.geteuid() == 0:
            for capability in range(_CAP_LAST + 1):
                if capability not in capabilities and _prctl(_PR_CAPBSET_READ, capability) == 1:
                    _prctl(_PR_CAPBSET_DROP, capability)
        if account is not None:
            _prctl(_PR_SET_KEEPCAPS, 1)
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            if keep:
                _keep_only(keep)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        # Last: a change of user would have cleared it. And the launcher may be gone already.
        if not outlives:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != launcher:
                os._exit(1)

    try:
        return subprocess.Popen(
            list(command), env=dict(environ), pass_fds=tuple(fds), preexec_fn=lose_privileges
        )
    except FileNotFoundError:
        raise UsageError(f"there is no program {command[0]!r}", "give its path, or a name in PATH") from None
    except PermissionError:
        raise UsageError(
            f"{command[0]!r} may not be run{f' as {user}' if user else ''}", "check its permissions: ls -l"
        ) from None
    except subprocess.SubprocessError:
        raise PrivilegeError(
            f"{command[0]!r} could not be started with fewer privileges", "run it as root"
        ) from None
    except OSError as error:
        raise HybridError(
            f"{command[0]!r} could not be started: {error.strerror}", None, errno=error.errno
        ) from None


def _account(user: str | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"there is no user {user!r}", "see the users there are: getent passwd") from None


def _prctl(option: int, *arguments: int) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return int(_libc.prctl(option, *(ctypes.c_ulong(a) for a in padded)))


def _raise_memlock() -> None:
    with suppress(ValueError, OSError):  # no CAP_SYS_RESOURCE: CAP_IPC_LOCK makes the limit harmless
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _permitted() -> frozenset[int]:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            bits = int(line.split()[1], 16)
            return frozenset(number for number in range(_CAP_LAST + 1) if bits >> number & 1)
    return frozenset()


def _keep_only(capabilities: frozenset[int]) -> None:
    """Makes them survive the exec of an ordinary user's program (capabilities(7), ambient)."""
    header = _Header(_CAPABILITY_VERSION_3, 0)
    bits = sum(1 << number for number in capabilities)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    sets = (_Set * 2)(_Set(low, low, low), _Set(high, high, high))
    if _libc.capset(ctypes.byref(header), sets) == 0:
        for number in capabilities:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)
