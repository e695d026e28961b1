"""Which XDP program an interface has, whoever attached it."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from hybrid._native import ffi, lib
from hybrid.bpf._call import invoke, string
from hybrid.bpf.model import XDP_MODES, XdpMode
from hybrid.errors import HybridError


@dataclass(frozen=True, slots=True)
class XdpProgram:
    """An attached XDP program. ``link_id`` 0: without a link; ``mode`` auto: several modes, or hardware."""

    program_id: int
    name: str
    link_id: int
    mode: XdpMode
    tag: str

    def removal(self, ifname: str) -> str:
        """The command that takes it off the interface."""
        if self.link_id:
            return f"bpftool link detach id {self.link_id}"
        return f"ip link set dev {ifname} {'xdpgeneric' if self.mode is XdpMode.GENERIC else 'xdp'} off"


def interface_index(ifname: str) -> int:
    """Of the calling thread's network namespace."""
    try:
        return socket.if_nametoindex(ifname)
    except (OSError, ValueError) as error:
        raise HybridError(
            f"there is no interface {ifname!r}", "see the interfaces there are with `ip link`"
        ) from error


def inspect(ifname: str) -> XdpProgram | None:
    """The interface's XDP program; ``None`` if it has none."""
    out = ffi.new("hy_steer_xdp *")
    invoke(lib.hy_steer_inspect, interface_index(ifname), out)
    if out.program_id == 0:
        return None
    return XdpProgram(
        program_id=out.program_id,
        name=string(out.program_name),
        link_id=out.link_id,
        mode=XDP_MODES[out.mode],
        tag=bytes(ffi.buffer(out.tag)).hex(),
    )
