"""All of it together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hybrid.devices import dpdk, frames, hugepages, uring
from hybrid.devices.interfaces import Interface, interfaces

__all__ = ["Host", "gather"]


@dataclass(frozen=True, slots=True)
class Host:
    """What each backend finds here. ``rdma``: names of its devices, which no backend of ours uses yet."""

    interfaces: tuple[Interface, ...]
    hugepages: tuple[hugepages.Pool, ...]
    dpdk: dpdk.Dpdk
    io_uring: uring.Uring
    tap: frames.Way
    packet_socket: frames.Way
    rdma: tuple[str, ...]


def gather(root: Path = Path("/")) -> Host:
    """Of this host, and of the calling thread's network namespace."""
    return Host(
        interfaces=tuple(interfaces(root)),
        hugepages=tuple(hugepages.pools(root)),
        dpdk=dpdk.look(root),
        io_uring=uring.look(root),
        tap=frames.tap(root),
        packet_socket=frames.packet_socket(),
        rdma=tuple(sorted(path.name for path in (root / "sys/class/infiniband").glob("*"))),
    )
