"""A shard: one thread's world of buffers, devices, network stack and timers."""

from __future__ import annotations

import errno
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hybrid._native import ffi, lib
from hybrid.api._handle import Handle
from hybrid.api.address import Address
from hybrid.api.config import Clock, Config
from hybrid.api.device import (
    Flow,
    Packet,
    PacketMode,
    Request,
    Tap,
    attach_packet,
    attach_tap,
    flows_to_c,
    packet_config,
)
from hybrid.api.dpdk import DpdkObtained, DpdkPort, attach_dpdk
from hybrid.api.errors import NotServedError, StaleTokenError, TimedOutError, check, failure
from hybrid.api.host import IP, Host
from hybrid.api.placement import Backend, Placement, rows_to_c
from hybrid.api.queue import Event, Kind, Op, Payload, Queue, Token
from hybrid.api.sga import Sga
from hybrid.api.uring import Uring, UringConfig, attach_uring
from hybrid.api.wire import Wire

if TYPE_CHECKING:
    from hybrid._native import CData

_EVENTS_MAX = 64
# One call into the library waits no longer than this, so that Ctrl-C and other
# signals that Python handles are looked at even where the library only polls.
_SLICE_NS = 50_000_000
_NEVER = 2**64 - 1


class Shard:
    """Opens with ``Shard(config)``, or :meth:`served`; leaving its ``with`` block closes it.

    A shard belongs to one thread at a time. Closing it ends its queues and frees
    its buffers: what is still held of them raises :class:`ShardClosedError` when used.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._open(config or Config(), "open a shard", lib.hy_shard_open)

    @classmethod
    def served(cls, config: Config | None = None) -> Shard:
        """A shard with the devices that ``hybrid run`` handed to this process."""
        shard = cls.__new__(cls)
        shard._open(config or Config(), "take over a shard", lib.hy_shard_open_served)
        return shard

    def _open(self, config: Config, action: str, function: object) -> None:
        assert callable(function)
        out = ffi.new("hy_shard **")
        result = function(config.to_c(), out)
        if result == -errno.ENOENT and function is lib.hy_shard_open_served:
            raise NotServedError(action, errno.ENOENT)
        check(action, result)
        self._virtual = config.clock == Clock.VIRTUAL
        self._handle = Handle(out[0])
        self._tokens: dict[int, Token] = {}
        self._events = ffi.new("hy_event[]", _EVENTS_MAX)
        self._sgas: weakref.WeakSet[Sga] = weakref.WeakSet()
        self._host: Host | None = None
        self._finalizer = weakref.finalize(self, self._handle.close)
        self._finalizer.atexit = False

    # -- its life ---------------------------------------------------------------

    @property
    def handle(self) -> Handle:
        """For the modules of this package."""
        return self._handle

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._handle.closing

    def ready(self) -> None:
        """Tells ``hybrid run`` that this program listens: its queues go into service."""
        self._handle.check("go into service", lib.hy_shard_ready)

    def close(self) -> None:
        """Ends every connection and closes every device. Twice does no harm.

        Views handed out end here. The packet memory itself stays mapped as long as
        something made from them (a slice, an array) is held.
        """
        for sga in list(self._sgas):
            sga.release_views()
        self._handle.close()
        self._tokens.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- time -------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The shard's time as of the last poll."""
        return int(self._handle.call(lib.hy_now))

    def set_clock(self, now_ns: int) -> None:
        """Virtual clock: the time that the next poll will see."""
        self._handle.check("set the clock", lib.hy_clock_set, now_ns)

    @property
    def next_deadline_ns(self) -> int | None:
        """When it next wants to be polled though nothing arrives; ``None``: never."""
        at = int(self._handle.call(lib.hy_next_deadline))
        return None if at == _NEVER else at

    # -- queues and buffers -----------------------------------------------------

    def socket(self, kind: Kind = Kind.STREAM, backend: Backend = Backend.AUTO) -> Queue:
        """A new queue; ``backend`` insists on what carries it, whatever the placement table says."""
        out = ffi.new("hy_qd *")
        self._handle.check("socket", lib.hy_socket, kind, out)
        queue = Queue(self, self._handle, out[0], kind)
        if backend is not Backend.AUTO:
            try:
                self._handle.check(
                    f"a queue on {backend.name.lower()}", lib.hy_set_backend, queue.qd, backend
                )
            except BaseException:
                queue.close()
                raise
        return queue

    def place(self, rows: Sequence[Placement]) -> None:
        """Replaces the table that says which local ports are carried by what. Bound queues stay."""
        self._handle.check("set the placement table", lib.hy_place, rows_to_c(rows), len(rows))

    @property
    def sga_max(self) -> int:
        """Most bytes that one :meth:`alloc` gives."""
        return int(self._handle.call(lib.hy_sga_max))

    def alloc(self, length: int) -> Sga:
        """Space for ``length`` bytes of payload, to write to and push without a copy."""
        out = ffi.new("hy_sga *")
        self._handle.check(f"a buffer of {length} bytes", lib.hy_sga_alloc, length, out)
        return self._adopt(out, writable=True)

    def buffer(self, data: Payload) -> Sga:
        """:meth:`alloc` with ``data`` copied in."""
        source = memoryview(data).cast("B")
        sga = self.alloc(source.nbytes)
        sga.write(source)
        return sga

    def _adopt(self, c: CData, *, writable: bool) -> Sga:
        sga = Sga(self._handle, c, writable=writable)
        self._sgas.add(sga)
        return sga

    # -- completions ------------------------------------------------------------

    def track(self, token: Token) -> Token:
        """Remembers an operation's queue until its event is handed out."""
        self._tokens[token.qt] = token
        return token

    def discard(self, token: Token) -> None:
        """Takes a cancelled operation's completion away unseen, with what it may have brought."""
        try:
            event = self.wait(token, 0)
        except (StaleTokenError, TimedOutError):
            return
        if event.sga is not None:
            event.sga.free()
        if event.accepted is not None:
            event.accepted.close()

    def cancel(self, token: Token) -> bool:
        """Ends an operation with ``ECANCELED``. False where it was complete already."""
        result = self._handle.call(lib.hy_cancel, token.qt)
        if result == -errno.ENOENT:
            return False
        check("cancel", result)
        return True

    def poll(self) -> int:
        """One pass over devices and timers, never sleeping. Returns frames received."""
        return self._handle.check("poll", lib.hy_poll)

    def wait(self, token: Token, timeout: float | None = None) -> Event:
        """What came of one operation, failed or not; :class:`TimedOutError` where it still goes on."""
        if token.queue.shard is not self:
            raise ValueError("the token belongs to another shard")
        action = f"{token.op.name.lower()} on {token.queue}"
        if self._wait(lib.hy_wait, action, timeout, token.qt, self._events) == 0:
            raise TimedOutError(action)
        event = self._event(self._events[0])
        assert event is not None
        return event

    def wait_any(self, limit: int = _EVENTS_MAX, timeout: float | None = None) -> list[Event]:
        """Up to ``limit`` operations that have completed; none at the time-out."""
        if limit < 1:
            raise ValueError("wait_any for at least one event")
        count = self._wait(lib.hy_wait_any, "wait", timeout, self._events, min(limit, _EVENTS_MAX))
        events = (self._event(self._events[i]) for i in range(count))
        return [event for event in events if event is not None]

    def _wait(self, function: object, action: str, timeout: float | None, *args: object) -> int:
        assert callable(function)
        deadline = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
        while True:
            left = _SLICE_NS if deadline is None else max(0, min(deadline - time.monotonic_ns(), _SLICE_NS))
            result: int = self._handle.call(function, *args, 0 if self._virtual else left)
            if result == -errno.ENOENT:
                raise StaleTokenError(action, errno.ENOENT)
            if result < 0 and result != -errno.EINTR:
                raise failure(action, -result)
            if result > 0:
                return result
            if self._virtual or (deadline is not None and time.monotonic_ns() >= deadline):
                return 0

    def _event(self, c: CData) -> Event | None:
        token = self._tokens.pop(c.qt, None)
        if token is None:
            # Its start was interrupted by an exception, so nobody waits for what it brought.
            if c.accepted >= 0:
                self._handle.call(lib.hy_close, c.accepted)
            self._handle.call(lib.hy_sga_free, ffi.addressof(c, "sga"))
            return None
        op = token.op
        accepted = address = sga = None
        if c.status == 0:
            if op is Op.ACCEPT:
                accepted = Queue(self, self._handle, c.accepted, Kind.STREAM)
                address = Address.from_c(c.addr)
            elif op is Op.POP:
                if c.sga.nsegs:
                    sga = self._adopt(ffi.new("hy_sga *", c.sga), writable=False)
                if token.queue.kind is Kind.DGRAM:
                    address = Address.from_c(c.addr)
        return Event(token, c.status, accepted, address, sga)

    # -- what it is joined to -----------------------------------------------------

    def set_host(self, host: Host) -> None:
        """Follows this table of addresses, routes and neighbours."""
        self._handle.check("follow the host table", lib.hy_shard_set_host, host.c())
        self._host = host

    def set_notice_fd(self, fd: int) -> None:
        """Where notices go (:mod:`hybrid.host`); -1: nowhere. The caller keeps the descriptor open."""
        self._handle.check("set the notice descriptor", lib.hy_shard_set_notice_fd, fd)

    def remove_device(self, ifindex: int, queue: int = 0) -> None:
        """Takes a device out; connections over it end with ``ENETDOWN``, listeners stay."""
        self._handle.check(
            f"remove queue {queue} of interface {ifindex}", lib.hy_shard_remove_device, ifindex, queue
        )

    def attach_wire(self, ifindex: int = 1) -> Wire:
        """A device whose wire is the caller: frames are handed in and collected by hand."""
        out = ffi.new("uint32_t *")
        self._handle.check("attach a wire", lib.hy_wire_attach, ifindex, out)
        return Wire(self._handle, out[0])

    def attach_uring(self, config: UringConfig | None = None) -> Uring:
        """Kernel sockets by io_uring, beside devices or without any: no privilege, Linux 6.1."""
        return attach_uring(self._handle, config or UringConfig())

    def attach_tap(
        self,
        name: str = "",
        *,
        ifindex: int = 0,
        queue: int = 0,
        fd: int = -1,
        multi_queue: bool = False,
        offload: Request = Request.AUTO,
    ) -> Tap:
        """A cable to this host's kernel. Needs /dev/net/tun and CAP_NET_ADMIN, or ``fd``, a queue opened
        by somebody else, which is taken over. ``ifindex``: its row in the host table (0: its own index)."""
        return attach_tap(self._handle, name, ifindex, queue, fd, multi_queue, offload)

    def attach_packet(
        self,
        interface: int,
        *,
        ifindex: int = 0,
        fd: int = -1,
        mode: PacketMode = PacketMode.OWN,
        mac: str | None = None,
        addresses: Sequence[IP] = (),
        flows: Sequence[Flow] = (),
    ) -> Packet:
        """A packet socket on an interface, where XDP cannot be had; ``hybrid.h`` tells how the two modes keep
        the kernel from answering as well. ``fd``: of :func:`open_packet`, taken over."""
        config = packet_config(interface, ifindex, fd, mode, mac, addresses, flows)
        return attach_packet(self._handle, config)

    def attach_dpdk(self, port: DpdkPort) -> DpdkObtained:
        """A queue of a DPDK port. The shard's ``Config.frame_prefix_bytes`` must be ``DPDK_PREFIX_BYTES``."""
        return attach_dpdk(self._handle, port)

    def set_packet_flows(self, ifindex: int, flows: Sequence[Flow]) -> None:
        """Shared mode: what the packet device of this row serves from now on."""
        self._handle.check(
            "set the flows of a packet socket",
            lib.hy_packet_set_flows,
            ifindex,
            flows_to_c(flows),
            len(flows),
        )

    def stats(self) -> dict[str, int]:
        """Its counters by name; they only grow."""
        return {name: int(self._handle.call(lib.hy_stat, i)) for i, name in enumerate(stat_names())}


def link(a: Shard, b: Shard, ifindex_a: int = 1, ifindex_b: int = 2) -> None:
    """Joins two shards of this process by the memory device (or one shard to itself)."""

    def attach(shard_a: CData) -> int:
        def attach_both(shard_b: CData) -> int:
            return lib.hy_memory_attach(shard_a, ifindex_a, shard_b, ifindex_b)

        return int(b.handle.call(attach_both))

    check("join two shards", a.handle.call(attach))


def stat_names() -> tuple[str, ...]:
    """The names of a shard's counters, in the order of the statistics page."""
    return tuple(_text(lib.hy_stat_name(i)) for i in range(lib.hy_stat_count()))


def stat_help() -> dict[str, str]:
    """What each counter counts."""
    return {name: _text(lib.hy_stat_help(i)) for i, name in enumerate(stat_names())}


def _text(c: CData) -> str:
    return ffi.string(c).decode()
