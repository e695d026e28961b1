"""Calls into the loader: a negative errno and its sentence become an exception with a remedy."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid._native import ffi, lib
from hybrid.errors import HybridError, UnsupportedError, from_errno

if TYPE_CHECKING:
    from hybrid._native import CData

_REMEDIES = {
    errno.EPERM: "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.EACCES: "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.EPROTO: "remove it with `hybrid clean`, then apply the policy again",
    errno.EXDEV: "enter only the network namespace: `nsenter --net=/run/netns/NAME COMMAND`",
    errno.ENODEV: "see the interfaces there are with `ip link`",
    errno.EOPNOTSUPP: "ask for mode auto or generic; native mode also wants a small enough MTU",
}


def invoke(function: Callable[..., int], *args: Any, remedy: str | None = None) -> int:
    """``function(*args, error)``; what it returned, if that is no failure."""
    error = ffi.new("hy_steer_error *")
    status = function(*args, error)
    if status >= 0:
        return status
    number = -status
    # The class goes by the number; the sentence is the loader's, which knows more than the number does.
    kind: type[HybridError] = type(from_errno(status, "steer"))
    if number in (errno.EXDEV, errno.EPROTO):
        kind = UnsupportedError
    message = string(error.text).rstrip(".")
    raise kind(message, remedy or _REMEDIES.get(number), errno=number)


def string(array: CData) -> str:
    """A C string as text; whatever isn't UTF-8 is shown escaped."""
    return ffi.string(array).decode("utf-8", "backslashreplace")


def object_file(name: str = "steer.bpf.o") -> Path:
    """The steering program that this installation ships, or the one for DPDK's own driver."""
    path = Path(__file__).with_name(name)
    if not path.is_file():
        raise HybridError(f"this installation lacks the steering program {path}", "install hybrid again")
    return path


def new_handle() -> CData:
    """Where the loader puts a handle."""
    return ffi.new("hy_steer **")


def close_handle(handle: CData) -> None:
    """Frees a handle; what is pinned stays."""
    lib.hy_steer_close(handle)
