"""What carries a queue, and the table that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from hybrid._native import ffi

if TYPE_CHECKING:
    from hybrid._native import CData


class Backend(IntEnum):
    """What carries a queue's bytes."""

    #: as the placement table says
    AUTO = 0
    #: this library's stack, over whatever device leads there
    BYPASS = 1
    #: the kernel's own sockets, through io_uring
    KERNEL = 2


@dataclass(frozen=True, slots=True)
class Placement:
    """Local ports ``first`` to ``last``, and what carries them. The first row that covers a port decides.

    ``protocol``: 6 TCP, 17 UDP, 0 both. ``fallback`` :attr:`Backend.KERNEL`: a listener
    there listens on kernel sockets as well, for what the bypass does not bring.
    """

    first: int
    last: int
    to: Backend
    protocol: int = 0
    fallback: Backend = Backend.AUTO


def rows_to_c(rows: Sequence[Placement]) -> CData:
    """A ``hy_placement[]``."""
    out = ffi.new("hy_placement[]", max(1, len(rows)))
    for to, row in zip(out, rows, strict=False):
        to.protocol, to.to, to.fallback = row.protocol, row.to, row.fallback
        to.port_lo, to.port_hi = row.first, row.last
    return out
