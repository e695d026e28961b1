"""Scatter-gather arrays: pieces of the shard's own packet memory, seen without a copy."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hybrid._native import ffi, lib
from hybrid.api._handle import Handle
from hybrid.api.errors import ShardClosedError, ViewsHeldError

if TYPE_CHECKING:
    from hybrid._native import CData


class _Lease:
    """One reference of the program's on the frames of an array, and who looks at them."""

    def __init__(self, handle: Handle, c: CData) -> None:
        self.handle = handle
        self.c = c
        self.exports: set[int] = set()
        self.dropped = False

    def drop(self) -> None:
        """Gives the frames back as soon as nobody looks. Finalizers may call this."""
        self.dropped = True
        if not self.exports:
            self._orphan()

    def unexport(self, number: int) -> None:
        self.exports.discard(number)
        if self.dropped and not self.exports:
            self._orphan()
        self.handle.unexport(number)

    def _orphan(self) -> None:
        if self.c is not None:
            self.handle.orphan_sgas.append(self.c)
            self.c = None


def _copy_in(_shard: CData, c: CData, source: memoryview) -> None:
    at = 0
    for i in range(c.nsegs):
        length = c.segs[i].len_bytes
        ffi.memmove(c.segs[i].addr, source[at : at + length], length)
        at += length


def _copy_out(_shard: CData, c: CData) -> bytes:
    return b"".join(bytes(ffi.buffer(c.segs[i].addr, c.segs[i].len_bytes)) for i in range(c.nsegs))


class Sga:
    """Up to ``HY_SGA_SEGS`` pieces of packet memory, one reference held on each.

    ``views`` are memoryviews of the pieces: writable in an array from
    :meth:`Shard.alloc`, read-only in one that was received. They end with the array
    (:meth:`free`, or leaving its ``with`` block, or pushing it); a slice made from one
    keeps the frames in use until it is released too. ``bytes(sga)`` copies everything.
    """

    def __init__(self, handle: Handle, c: CData, *, writable: bool) -> None:
        self._handle = handle
        self._writable = writable
        self._lease = _Lease(handle, c)
        self._views: tuple[memoryview, ...] | None = None
        self._finalizer = weakref.finalize(self, self._lease.drop)
        self._finalizer.atexit = False

    def c(self) -> CData:
        """The ``hy_sga *``, for the modules of this package."""
        if self._handle.closing:
            self.free()
            raise ShardClosedError()
        if not self._finalizer.alive:
            raise ValueError(
                "this buffer was freed or pushed; sga.ref() before that keeps a second reference"
            )
        return self._lease.c

    @property
    def views(self) -> tuple[memoryview, ...]:
        """The pieces, in order."""
        c = self.c()
        if self._views is None:
            self._views = self._handle.call(lambda _: tuple(self._view(c.segs[i]) for i in range(c.nsegs)))
        return self._views

    def _view(self, seg: CData) -> memoryview:
        exporter = ffi.buffer(seg.addr, seg.len_bytes)
        number = self._handle.export()
        self._lease.exports.add(number)
        # The exporter lives as long as any view or slice made from it, and tells when it dies.
        weakref.finalize(exporter, self._lease.unexport, number).atexit = False
        view = memoryview(exporter)
        return view if self._writable else view.toreadonly()

    def release_views(self) -> None:
        """Ends the views handed out so far; later ones may be taken."""
        for view in self._views or ():
            view.release()
        self._views = None

    def check_unshared(self) -> None:
        """Raises :class:`ViewsHeldError` where somebody could still write to what is about to be pushed."""
        self.release_views()
        if self._writable and self._lease.exports:
            raise ViewsHeldError()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Copies ``data`` in; it has to be exactly as long as the array."""
        c = self.c()
        if not self._writable:
            raise TypeError("received bytes are read-only; alloc() a buffer to write to")
        source = memoryview(data).cast("B")
        if source.nbytes != len(self):
            raise ValueError(f"{source.nbytes} bytes into a buffer of {len(self)}")
        self._handle.call(_copy_in, c, source)

    def ref(self) -> Sga:
        """A second reference on the same bytes, read-only (to push them twice, say)."""
        out = ffi.new("hy_sga *")
        self._handle.check("sga.ref", lib.hy_sga_ref, self.c(), out)
        return Sga(self._handle, out, writable=False)

    def free(self) -> None:
        """Gives the frames back. Twice does no harm."""
        self.release_views()
        if self._finalizer.detach():
            self._lease.drop()

    def hand_over(self) -> CData:
        """A ``hy_sga *`` for a call that takes the references over; this array is freed."""
        c = self.c()
        self.release_views()
        if self._lease.exports:
            # Somebody still looks: the library gets references of its own.
            out = ffi.new("hy_sga *")
            self._handle.check("push", lib.hy_sga_ref, c, out)
            self.free()
            return out
        self._finalizer.detach()
        self._lease.c = None
        return c

    def __len__(self) -> int:
        return lib.hy_sga_bytes(self.c())

    def __bytes__(self) -> bytes:
        data = self._handle.call(_copy_out, self.c())
        assert isinstance(data, bytes)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.free()
