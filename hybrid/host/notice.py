"""What a shard reports to the control plane: one datagram each (hybrid.h, struct hy_notice)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hybrid._native import ffi, lib
from hybrid.api.address import Address


class NoticeKind(IntEnum):
    """What happened."""

    NEIGH_MISSING = 1
    READY = 2
    BOUND = 3
    UNBOUND = 4
    DEVICE_LOST = 5


NOTICE_BYTES = ffi.sizeof("hy_notice")


@dataclass(frozen=True, slots=True)
class Notice:
    """``arg``: the queue of DEVICE_LOST; of BOUND and UNBOUND see the two properties."""

    kind: NoticeKind
    ifindex: int
    address: Address
    arg: int = 0

    @property
    def protocol(self) -> int:
        """The IP protocol number of BOUND and UNBOUND."""
        return self.arg & ~int(lib.HY_NOTICE_IN_KERNEL)

    @property
    def in_kernel(self) -> bool:
        """Whether a socket of the program's own in the kernel holds the port."""
        return bool(self.arg & lib.HY_NOTICE_IN_KERNEL)

    @classmethod
    def parse(cls, datagram: bytes) -> Notice | None:
        """``None`` for what is no notice; the sender is not trusted."""
        if len(datagram) != NOTICE_BYTES:
            return None
        c = ffi.new("hy_notice *")
        ffi.memmove(c, datagram, NOTICE_BYTES)
        try:
            return cls(NoticeKind(c.kind), c.ifindex, Address.from_c(c.addr), c.arg)
        except ValueError:
            return None

    def pack(self) -> bytes:
        """The datagram."""
        c = ffi.new("hy_notice *")
        c.kind, c.ifindex, c.arg = self.kind, self.ifindex, self.arg
        self.address.fill(c.addr)
        return bytes(ffi.buffer(c))
