"""The exceptions of this package, and the exit code that each ends a command with.

::

    HybridError          1  it failed
    +-- UsageError       2  the command line, or a file named on it, cannot be used
    +-- PolicyError      1  a policy file is wrong (hybrid.policy: every problem with its place)
    +-- UnsupportedError 4  this kernel, device or installation cannot do it
    +-- PrivilegeError   5  it needs a privilege that this process lacks
    +-- BusyError        6  somebody else holds what it needs
    +-- RolledBackError  7  it failed half-way, and everything was put back as it was

An error is two texts for a person: ``message``, one sentence without a full stop that says what
went wrong with which thing, and ``remedy``, what to do next: a command, or a sentence in the
imperative. Nothing in this package prints them but ``hybrid.cli``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar

__all__ = [
    "BusyError",
    "ExitCode",
    "HybridError",
    "PolicyError",
    "PrivilegeError",
    "RolledBackError",
    "UnsupportedError",
    "UsageError",
    "from_errno",
]


class ExitCode(IntEnum):
    """How a command ends. 130 and 143 (stopped by Ctrl-C, by SIGTERM) come on top."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    PLAN_HAS_CHANGES = 3  # not an error: `plan` found something to do
    UNSUPPORTED = 4
    PERMISSION = 5
    BUSY = 6
    ROLLED_BACK = 7


class HybridError(Exception):
    """Base of every error that this package raises on purpose.

    ``errno`` is the positive error number where a system call or the C library was the cause.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, message: str, remedy: str | None = None, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.errno = errno

    def as_dict(self) -> dict[str, Any]:
        """What ``--output json`` prints under ``"error"``."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "remedy": self.remedy,
            "exit_code": int(self.exit_code),
            "errno": errno.errorcode.get(self.errno) if self.errno is not None else None,
        }


class UsageError(HybridError):
    """The command line, or a file named on it, cannot be used."""

    exit_code = ExitCode.USAGE


class PolicyError(HybridError):
    """A policy is wrong. ``hybrid.policy`` raises a subclass that knows every problem and its place."""


class UnsupportedError(HybridError):
    """This kernel, device or installation cannot do what was asked."""

    exit_code = ExitCode.UNSUPPORTED


class PrivilegeError(HybridError):
    """A capability or file permission is missing."""

    exit_code = ExitCode.PERMISSION


class BusyError(HybridError):
    """Somebody else holds what is needed: a queue, a port, a namespace, a foreign XDP program."""

    exit_code = ExitCode.BUSY


class RolledBackError(HybridError):
    """A change failed half-way, and what had been done of it was undone."""

    exit_code = ExitCode.ROLLED_BACK


_BY_ERRNO: Mapping[int, type[HybridError]] = {
    errno.EPERM: PrivilegeError,
    errno.EACCES: PrivilegeError,
    errno.EBUSY: BusyError,
    errno.EADDRINUSE: BusyError,
    errno.EEXIST: BusyError,
    errno.EOPNOTSUPP: UnsupportedError,
    errno.ENOSYS: UnsupportedError,
    errno.EPROTONOSUPPORT: UnsupportedError,
    errno.EAFNOSUPPORT: UnsupportedError,
    errno.ENOPROTOOPT: UnsupportedError,
}


def from_errno(result: int, operation: str, remedy: str | None = None) -> HybridError:
    """The exception for a failed C call, to be raised by the caller.

    ``result`` is what the call returned, a negative errno (a positive one means the same);
    ``operation`` what was being done, in the infinitive: "open queue 0 of hys0". The class follows
    from the number: EPERM becomes a ``PrivilegeError``, EBUSY a ``BusyError``, and so on.
    """
    number = abs(result)
    kind = _BY_ERRNO.get(number, HybridError)
    if remedy is None and kind is PrivilegeError:
        remedy = "run it with sudo" if os.geteuid() != 0 else "hybrid doctor says which capability is missing"
    reason = os.strerror(number)
    return kind(f"cannot {operation}: {reason[:1].lower()}{reason[1:]}", remedy, errno=number)
