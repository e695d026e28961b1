"""Addresses: an IPv4 or IPv6 address, or any, with a port."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from hybrid._native import ffi, lib
from hybrid.api.errors import check

if TYPE_CHECKING:
    from hybrid._native import CData

_MAPPED = b"\0" * 10 + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Address:
    """``ip`` is ``None`` for any address of either family; ``port`` 0 for none chosen yet."""

    ip: IPv4Address | IPv6Address | None = None
    port: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not in 0..65535")

    @classmethod
    def parse(cls, text: str) -> Address:
        """``10.0.0.1``, ``10.0.0.1:80``, ``2001:db8::1``, ``[2001:db8::1]:80``, ``:80``, ``*:80``."""
        out = ffi.new("hy_addr *")
        check(f"address {text!r}", lib.hy_addr_parse(text.encode(), out))
        return cls.from_c(out)

    @classmethod
    def of(cls, value: AddressLike) -> Address:
        """An address from itself, from text, from ``(host, port)`` or from an ``ipaddress`` object."""
        if isinstance(value, Address):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, tuple):
            host, port = value
            return cls(ip_address(host) if host not in ("", "*") else None, port)
        return cls(value)

    @classmethod
    def from_c(cls, addr: CData) -> Address:
        """From a ``hy_addr`` (or a pointer to one)."""
        raw = bytes(ffi.buffer(addr.ip))
        if addr.family == 4:
            return cls(IPv4Address(raw[12:]), addr.port)
        if addr.family == 6:
            return cls(IPv6Address(raw), addr.port)
        return cls(None, addr.port)

    def fill(self, addr: CData) -> CData:
        """Writes itself into a ``hy_addr`` (or where a pointer points) and returns it."""
        addr.port = self.port
        addr.reserved = 0
        if self.ip is None:
            addr.family, addr.ip = 0, b"\0" * 16
        elif self.ip.version == 4:
            addr.family, addr.ip = 4, _MAPPED + self.ip.packed
        else:
            addr.family, addr.ip = 6, self.ip.packed
        return addr

    def to_c(self) -> CData:
        """A new ``hy_addr *``."""
        return self.fill(ffi.new("hy_addr *"))

    def __str__(self) -> str:
        if self.ip is None:
            return f"*:{self.port}"
        if not self.port:
            return str(self.ip)
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


AddressLike = Address | str | tuple[str, int] | IPv4Address | IPv6Address
