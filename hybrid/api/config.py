"""How large a shard is, and which clock it goes by."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING

from hybrid._native import ffi, lib

if TYPE_CHECKING:
    from hybrid._native import CData


class Clock(IntEnum):
    """What a shard's time comes from."""

    MONOTONIC = 0
    #: :meth:`Shard.set_clock`, for tests and simulation; waits then make one pass and never sleep.
    VIRTUAL = 1


class Hugepages(IntEnum):
    """Whether the arena is to lie in huge pages."""

    NO = 0
    TRY = 1
    MUST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The bounds of a shard: all its memory is taken when it opens. ``None`` is the library's default."""

    frames: int | None = None
    """frames in the arena (16384)"""
    frame_size: int | None = None
    """bytes of each: 2048 or 4096"""
    sockets: int | None = None
    """queues open at once (65536)"""
    connections: int | None = None
    """TCP connections, those in TIME_WAIT included (16384)"""
    tokens: int | None = None
    """operations outstanding or not yet handed out (65536)"""
    rcvbuf_bytes: int | None = None
    """receive window limit of a connection (1 MiB)"""
    sndbuf_bytes: int | None = None
    """bytes unsent or unacknowledged of a connection (1 MiB)"""
    app_frames_max: int | None = None
    """frames that the program may hold at once (half of them)"""
    frame_prefix_bytes: int | None = None
    """bytes of each frame that belong to a driver (0; what a backend asks for)"""
    clock: Clock | None = None
    hugepages: Hugepages | None = None
    port_lo: int | None = None
    """first ephemeral port of outgoing connections (32768)"""
    port_hi: int | None = None
    """last one (60999)"""
    spin_ns: int | None = None
    """how long a wait polls before it sleeps (50 us)"""
    seed: bytes | None = None
    """32 bytes in place of the kernel's entropy: the same run again, for tests"""

    def to_c(self) -> CData:
        """A ``hy_config *`` with the defaults filled in."""
        out = ffi.new("hy_config *")
        lib.hy_config_default(out)
        out.app_frames_max = 0  # follows `frames`
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "seed":
                setattr(out, field.name, value)
        if self.seed is not None:
            if len(self.seed) != 32:
                raise ValueError(f"a seed has 32 bytes, not {len(self.seed)}")
            out.seeded, out.seed = 1, self.seed
        return out
