"""Queues (this library's sockets), the tokens of their operations, and what completes."""

from __future__ import annotations

import errno
import time
import warnings
import weakref
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hybrid._native import ffi, lib
from hybrid.api._handle import Handle
from hybrid.api.address import Address, AddressLike
from hybrid.api.errors import LimitError, QueueError, ShardBusyError, TimedOutError, WouldBlockError, failure
from hybrid.api.placement import Backend
from hybrid.api.sga import Sga

if TYPE_CHECKING:
    from hybrid._native import CData
    from hybrid.api.shard import Shard

Payload = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a queue carries."""

    STREAM = 1
    DGRAM = 2


class Op(IntEnum):
    """What a token stands for."""

    ACCEPT = 1
    CONNECT = 2
    PUSH = 3
    POP = 4
    DRAIN = 5


@dataclass(frozen=True, slots=True)
class Token:
    """One operation under way, on ``queue``."""

    qt: int
    op: Op
    queue: Queue

    def wait(self, timeout: float | None = None) -> Event:
        """What came of it: :meth:`Shard.wait`."""
        return self.queue.shard.wait(self, timeout)

    def cancel(self) -> bool:
        """Ends it: it completes with ``ECANCELED``. False where it was complete already."""
        return self.queue.shard.cancel(self)


@dataclass(frozen=True, slots=True)
class Event:
    """An operation that has completed.

    ``accepted`` is the new queue of an accept; ``address`` the peer of an accept, or the
    sender of a datagram; ``sga`` what a pop received, the program's until it is freed
    (``None`` for other operations and at the end of a stream).
    """

    token: Token
    status: int
    accepted: Queue | None = None
    address: Address | None = None
    sga: Sga | None = None

    @property
    def queue(self) -> Queue:
        """The queue it was started on."""
        return self.token.queue

    @property
    def op(self) -> Op:
        """What the operation was."""
        return self.token.op

    @property
    def error(self) -> QueueError | None:
        """Why it failed, as an exception; ``None`` if it did not."""
        return failure(f"{self.op.name.lower()} on {self.queue}", -self.status) if self.status else None

    def check(self) -> Event:
        """Itself, unless the operation failed: then :attr:`error`, raised."""
        error = self.error
        if error is not None:
            raise error
        return self


def _forget(handle: Handle, qd: int, name: str) -> None:
    """A queue went to the garbage collector while open."""
    if not handle.closing and qd in handle.qds:
        handle.qds.discard(qd)
        handle.orphan_qds.append(qd)
        warnings.warn(f"queue {name} was never closed", ResourceWarning, stacklevel=2)


class Queue:
    """A queue descriptor. Leaving its ``with`` block closes it.

    Operations return a :class:`Token` at once; ``accept_wait``, ``connect_wait``, ``send``,
    ``recv``, ``sendto`` and ``recvfrom`` do one and wait. Timeouts are seconds of the shard's
    clock; ``None`` waits for ever. On a shard with the virtual clock they make one pass.
    """

    def __init__(self, shard: Shard, handle: Handle, qd: int, kind: Kind) -> None:
        self.shard = shard
        self.kind = kind
        self._handle = handle
        self._qd = qd
        handle.qds.add(qd)
        self._finalizer = weakref.finalize(self, _forget, handle, qd, f"{kind.name.lower()} {qd}")
        self._finalizer.atexit = False

    @property
    def qd(self) -> int:
        """The number; raises once the queue is closed."""
        if not self._finalizer.alive:
            raise failure("this queue was closed", errno.EBADF)
        return self._qd

    @property
    def closed(self) -> bool:
        """Whether it, or its shard, was closed."""
        return not self._finalizer.alive or self._handle.closing

    def __repr__(self) -> str:
        return f"<Queue {self._qd} {self.kind.name.lower()}{' closed' if self.closed else ''}>"

    # -- set-up ---------------------------------------------------------------

    def bind(self, local: AddressLike) -> Queue:
        """Takes a local address; port 0 takes an ephemeral one."""
        address = Address.of(local)
        self._handle.check(f"bind to {address}", lib.hy_bind, self.qd, address.to_c())
        return self

    def listen(self, backlog: int = 1024) -> Queue:
        """``backlog`` bounds connections half open plus those not yet accepted."""
        self._handle.check("listen", lib.hy_listen, self.qd, backlog)
        return self

    @property
    def backend(self) -> Backend:
        """What carries it; :attr:`Backend.AUTO` as long as it is neither bound nor connected."""
        return Backend(self._handle.check(f"what carries {self}", lib.hy_backend_of, self.qd))

    @property
    def local(self) -> Address:
        """The address it is bound to."""
        return self._address("local address", lib.hy_local)

    @property
    def peer(self) -> Address:
        """The address it is connected to."""
        return self._address("peer address", lib.hy_peer)

    def _address(self, what: str, function: object) -> Address:
        assert callable(function)
        out = ffi.new("hy_addr *")
        self._handle.check(f"{what} of {self}", function, self.qd, out)
        return Address.from_c(out)

    # -- operations -----------------------------------------------------------

    def _start(self, op: Op, function: object, *args: CData) -> Token:
        assert callable(function)
        out = ffi.new("hy_qt *")
        self._handle.check(f"{op.name.lower()} on {self}", function, self.qd, *args, out)
        return self.shard.track(Token(out[0], op, self))

    def accept(self) -> Token:
        """Completes with a new connection."""
        return self._start(Op.ACCEPT, lib.hy_accept)

    def connect(self, peer: AddressLike) -> Token:
        """Completes when the connection is established."""
        return self._start(Op.CONNECT, lib.hy_connect, Address.of(peer).to_c())

    def pop(self) -> Token:
        """Completes when there is something to read, or the stream has ended."""
        return self._start(Op.POP, lib.hy_pop)

    def drain(self) -> Token:
        """Completes when at most half of the send buffer is in use."""
        return self._start(Op.DRAIN, lib.hy_drain)

    def push(self, data: Payload | Sga, to: AddressLike | None = None) -> Token:
        """Sends; completes when the peer has acknowledged all of it (a datagram: when it has left).

        An :class:`Sga` is sent without a copy and freed here, its bytes borrowed until then;
        where the push fails it stays the program's.
        """
        sga = data if isinstance(data, Sga) else self.shard.buffer(data)
        try:
            sga.check_unshared()
            token = (
                self._start(Op.PUSH, lib.hy_push, sga.c())
                if to is None
                else self._start(Op.PUSH, lib.hy_pushto, sga.c(), Address.of(to).to_c())
            )
        except BaseException:
            if sga is not data:
                sga.free()
            raise
        sga.free()
        return token

    def post(self, data: Payload | Sga, to: AddressLike | None = None) -> None:
        """:meth:`push` without a completion: an error shows at the next pop. The Sga is freed either way."""
        sga = data if isinstance(data, Sga) else self.shard.buffer(data)
        sga.check_unshared()
        qd = self.qd
        peer = None if to is None else Address.of(to).to_c()
        what = f"push on {self}"
        c = sga.hand_over()
        try:
            if peer is None:
                self._handle.check(what, lib.hy_push, qd, c, ffi.NULL)
            else:
                self._handle.check(what, lib.hy_pushto, qd, c, peer, ffi.NULL)
        except ShardBusyError:
            self._handle.orphan_sgas.append(c)  # the library never saw it
            raise
        except BaseException:
            self._handle.call(lib.hy_sga_free, c)  # a push that fails takes nothing over
            raise

    # -- the same, waiting -----------------------------------------------------

    def _do(self, token: Token, timeout: float | None) -> Event:
        """Waits for it; where that fails (a time-out, Ctrl-C) the operation is cancelled, not leaked."""
        try:
            event = token.wait(timeout)
        except TimedOutError:
            if token.cancel():
                self.shard.discard(token)
                raise
            event = token.wait(0)  # it has completed in this very moment
        except BaseException:
            if not self._handle.closing and token.cancel():
                self.shard.discard(token)
            raise
        return event.check()

    def accept_wait(self, timeout: float | None = None) -> Queue:
        """The next connection."""
        accepted = self._do(self.accept(), timeout).accepted
        assert accepted is not None
        return accepted

    def connect_wait(self, peer: AddressLike, timeout: float | None = None) -> Queue:
        """Connects and returns itself."""
        self._do(self.connect(peer), timeout)
        return self

    def send(self, data: Payload, timeout: float | None = None) -> None:
        """Hands all of ``data`` to the stream, waiting while the send buffer is full. Copies once."""
        source = memoryview(data).cast("B")
        deadline = None if timeout is None else time.monotonic() + timeout
        piece = self.shard.sga_max
        at = 0
        while at < source.nbytes:
            try:
                self.post(source[at : at + piece])
            except WouldBlockError:
                self._do(self.drain(), self._left(deadline))
            except LimitError:
                # Frames are held by pushes that the peer has yet to acknowledge.
                self.shard.poll()
                self._left(deadline)
            else:
                at += piece

    @staticmethod
    def _left(deadline: float | None) -> float | None:
        if deadline is None:
            return None
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimedOutError("send")
        return left

    def recv(self, timeout: float | None = None) -> bytes:
        """What has arrived, copied; ``b""`` at the end of the stream."""
        sga = self._do(self.pop(), timeout).sga
        if sga is None:
            return b""
        with sga:
            return bytes(sga)

    def sendto(self, data: Payload, peer: AddressLike) -> None:
        """Sends one datagram."""
        self.post(data, peer)

    def recvfrom(self, timeout: float | None = None) -> tuple[bytes, Address]:
        """The next datagram and its sender."""
        event = self._do(self.pop(), timeout)
        assert event.address is not None
        if event.sga is None:
            return b"", event.address
        with event.sga as sga:
            return bytes(sga), event.address

    # -- the end ----------------------------------------------------------------

    def shutdown(self) -> None:
        """No more pushes: what is queued is sent, then the end of the stream. Popping goes on."""
        self._handle.check(f"shutdown of {self}", lib.hy_shutdown, self.qd)

    def close(self) -> None:
        """Gives the queue back; what was pushed is still delivered. Twice does no harm."""
        self._end(lib.hy_close)

    def abort(self) -> None:
        """Closes by reset: nothing more is delivered."""
        self._end(lib.hy_abort)

    def _end(self, function: object) -> None:
        assert callable(function)
        if self._finalizer.alive and not self._handle.closing:
            self._handle.check(f"close of {self}", function, self._qd)
            self._handle.qds.discard(self._qd)
        self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
