"""The frame-level harness: a device whose wire is the caller."""

from __future__ import annotations

from collections.abc import Iterator

from hybrid._native import ffi, lib
from hybrid.api._handle import Handle

_FRAME_MAX = 65536


class Wire:
    """Hands Ethernet frames to a shard and collects what it sends: no privilege, no device.

    A shard with the virtual clock, a wire, and frames made by scapy are a whole
    network test: ``shard.set_clock(t); wire.inject(frame); shard.poll(); wire.collect_all()``.
    """

    def __init__(self, handle: Handle, port: int) -> None:
        self._handle = handle
        self._port = port
        self._frame = ffi.new("uint8_t[]", _FRAME_MAX)

    def inject(self, frame: bytes) -> None:
        """Copies one Ethernet frame in, for the next poll."""
        self._handle.check(
            "inject a frame", lib.hy_wire_inject, self._port, ffi.from_buffer(frame), len(frame)
        )

    def collect(self) -> bytes | None:
        """The next frame that was sent; ``None`` where there is none."""
        length = self._handle.check(
            "collect a frame", lib.hy_wire_collect, self._port, self._frame, _FRAME_MAX
        )
        return bytes(ffi.buffer(self._frame, length)) if length else None

    def collect_all(self) -> Iterator[bytes]:
        """Every frame that was sent and not yet collected."""
        while (frame := self.collect()) is not None:
            yield frame
