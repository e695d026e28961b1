"""What an operation that failed raises.

Each is a :class:`hybrid.errors.HybridError` (a message, and what to do next), an
``OSError`` with its ``errno``, and where Python has a name for the kind, that kind::

    QueueError (HybridError, OSError)
     +-- RefusedError      (ConnectionRefusedError)
     +-- ResetError        (ConnectionResetError)
     +-- BrokenError       (BrokenPipeError)
     +-- AbortedError      (ConnectionAbortedError)
     +-- TimedOutError     (TimeoutError)
     +-- CancelledError    (InterruptedError)
     +-- WouldBlockError   (BlockingIOError)
     +-- AddressInUseError, AddressNotAvailableError, UnreachableError, NotConnectedError
     +-- LimitError        a bound of the configuration
     +-- StaleTokenError   the operation's result was handed out already (LookupError)
     +-- NotServedError    the program was not started by ``hybrid run``
     +-- AttachError       a device cannot be had
    ShardClosedError, ShardBusyError (HybridError, RuntimeError)
    ViewsHeldError (HybridError, BufferError)
"""

from __future__ import annotations

import errno as errnos
import os

from hybrid._native import ffi, lib
from hybrid.errors import HybridError


class QueueError(HybridError, OSError):
    """An operation of the library failed; ``errno`` is the number it gave."""

    remedy_text: str | None = None

    def __init__(self, action: str, number: int) -> None:
        super().__init__(f"{action}: {describe(number)}", self.remedy_text, errno=number)


class RefusedError(QueueError, ConnectionRefusedError):
    """Nothing listens on the peer's port."""

    remedy_text = "start the peer's server, or check the address and the port"


class ResetError(QueueError, ConnectionResetError):
    """The peer ended the connection by a reset."""

    remedy_text = "the peer ended the connection; connect again if the work can be repeated"


class BrokenError(QueueError, BrokenPipeError):
    """Sending on a connection that was shut down or reset."""

    remedy_text = "the connection takes no more data; open another"


class AbortedError(QueueError, ConnectionAbortedError):
    """This side gave the connection up."""

    remedy_text = "connect again"


class TimedOutError(QueueError, TimeoutError):
    """Nothing happened within the time given, or the peer no longer answers."""

    remedy_text = "give it longer, or check that the peer can be reached (ping, hybrid status)"

    def __init__(self, action: str, number: int = errnos.ETIMEDOUT) -> None:
        super().__init__(action, number)


class CancelledError(QueueError, InterruptedError):
    """The operation was cancelled, or its queue closed."""

    remedy_text = "nothing to mend: cancel() or close() ended it"


class WouldBlockError(QueueError, BlockingIOError):
    """The send buffer is full."""

    remedy_text = "wait for queue.drain(), then push again; or raise Config.sndbuf_bytes"


class AddressInUseError(QueueError):
    """Another queue of this shard is bound to it."""

    remedy_text = "close the queue that is bound to it, or take another port"


class AddressNotAvailableError(QueueError):
    """No such local address."""

    remedy_text = "bind to an address of this host (ip address), or to the port alone"


class UnreachableError(QueueError):
    """No route, no neighbour, or no device that leads there."""

    remedy_text = "look at ip route and ip neigh, and at hybrid status for the devices of this shard"


class NotConnectedError(QueueError):
    """The queue has no peer."""

    remedy_text = "connect() first, or use the queue that accept() gave"


class LimitError(QueueError):
    """A bound of the configuration is used up."""

    remedy_text = "free buffers and close queues that are done, or raise the bound in Config"


class StaleTokenError(QueueError, LookupError):
    """The token's result has been handed out, or it was never this shard's."""

    remedy_text = "wait for a token once; tokens that wait_any() returned are done"


class NotServedError(QueueError):
    """There is nothing to take over from a launcher."""

    remedy_text = "start the program with `hybrid run -- PROGRAM`, or open a shard of its own with Shard()"


class AttachError(QueueError):
    """A device cannot be had; what to do next is the library's own sentence about it."""

    def __init__(self, action: str, number: int) -> None:
        detail = ffi.string(lib.hy_error_detail()).decode()
        HybridError.__init__(self, f"{action}: {detail or describe(number)}", self.remedy_text, errno=number)


class ShardClosedError(HybridError, RuntimeError):
    """The shard was closed; its queues and buffers went with it."""

    def __init__(self) -> None:
        super().__init__(
            "the shard is closed, and its queues and buffers with it",
            "use them inside the shard's with block, or open another shard",
        )


class ShardBusyError(HybridError, RuntimeError):
    """Another thread is inside the shard."""

    def __init__(self) -> None:
        super().__init__(
            "another thread is using this shard",
            "give each thread a shard of its own",
        )


class ViewsHeldError(HybridError, BufferError):
    """A writable view of a buffer that is about to be sent is still held."""

    def __init__(self) -> None:
        super().__init__(
            "a writable view made from this buffer is still held, and its bytes must not change once pushed",
            "release() the slices and arrays that were made from its views, then push",
        )


_KINDS: dict[int, type[QueueError]] = {
    errnos.ECONNREFUSED: RefusedError,
    errnos.ECONNRESET: ResetError,
    errnos.EPIPE: BrokenError,
    errnos.ECONNABORTED: AbortedError,
    errnos.ETIMEDOUT: TimedOutError,
    errnos.ECANCELED: CancelledError,
    errnos.EAGAIN: WouldBlockError,
    errnos.EADDRINUSE: AddressInUseError,
    errnos.EADDRNOTAVAIL: AddressNotAvailableError,
    errnos.EHOSTUNREACH: UnreachableError,
    errnos.ENETUNREACH: UnreachableError,
    errnos.ENOTCONN: NotConnectedError,
    errnos.ENOBUFS: LimitError,
    errnos.ENOMEM: LimitError,
}


def describe(number: int) -> str:
    """The library's sentence for an errno, or the system's where it has none."""
    text = lib.hy_strerror(-number)
    if text == ffi.NULL:
        return os.strerror(number)
    return ffi.string(text).decode()


def failure(action: str, number: int) -> QueueError:
    """The exception for ``errno`` ``number`` (positive) of ``action``."""
    return _KINDS.get(number, QueueError)(action, number)


def check(action: str, result: int) -> int:
    """``result``, unless it is a negative errno: then that, raised."""
    if result < 0:
        raise failure(action, -result)
    return result
