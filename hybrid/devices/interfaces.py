"""Network interfaces of the calling thread's namespace, and what AF_XDP finds on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from hybrid.devices import netdev
from hybrid.devices.ethtool import Channels, channels, rss_queues
from hybrid.devices.interrupts import Interrupt, of_device
from hybrid.errors import HybridError

__all__ = ["Interface", "find", "interfaces"]

_IFF_UP, _IFF_LOOPBACK = 1, 8


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface. None: it has none, or the kernel does not say.

    ``device``: the bus device behind it, ``pci/0000:3b:00.0``; a virtual interface has none. ``kind``: veth,
    bridge and so on, of a virtual one.
    """

    name: str
    ifindex: int
    driver: str | None
    kind: str | None
    device: str | None
    mtu_bytes: int
    up: bool
    running: bool
    numa_node: int | None
    channels: Channels | None
    rss_queues: tuple[int, ...] | None
    features: netdev.Features | None
    queues: tuple[netdev.Queue, ...]
    interrupts: tuple[Interrupt, ...]
    xdp_program: bool

    @property
    def link(self) -> str:
        """``up``, ``down`` (by whoever administers it) or ``no carrier``."""
        if not self.up:
            return "down"
        return "up" if self.running else "no carrier"


def interfaces(root: Path = Path("/")) -> list[Interface]:
    """All but loopback, by name."""
    features, queues = netdev.features(), netdev.queues()
    with IPRoute() as ip:
        rows = [row for row in ip.get_links() if not row["flags"] & _IFF_LOOPBACK]
    found = (_interface(row, features, queues, root) for row in rows)
    return sorted(found, key=lambda interface: interface.name)


def find(name: str, root: Path = Path("/")) -> Interface:
    """The one of this name."""
    for interface in interfaces(root):
        if interface.name == name:
            return interface
    raise HybridError(
        f"there is no interface {name!r} in this network namespace",
        "hybrid devices shows those there are; for another namespace: --netns NAME",
    )


def _interface(
    row: Any,
    features: dict[int, netdev.Features],
    queues: dict[int, tuple[netdev.Queue, ...]],
    root: Path,
) -> Interface:
    name, index = str(row.get_attr("IFLA_IFNAME")), int(row["index"])
    info, xdp = row.get_attr("IFLA_LINKINFO"), row.get_attr("IFLA_XDP")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    bus, device = row.get_attr("IFLA_PARENT_DEV_BUS_NAME"), row.get_attr("IFLA_PARENT_DEV_NAME")
    folder = root / "sys/bus" / bus / "devices" / device if bus and device else None
    rx = queues.get(index, ())
    # Which queue an interrupt belongs to is best known to the driver; its name is the next best.
    by_irq = {queue.irq: queue.number for queue in rx if queue.irq is not None}
    interrupts = of_device(folder, root) if folder else ()
    return Interface(
        name=name,
        ifindex=index,
        driver=_driver(folder) or kind,
        kind=kind,
        device=f"{bus}/{device}" if folder else None,
        mtu_bytes=int(row.get_attr("IFLA_MTU")),
        up=bool(row["flags"] & _IFF_UP),
        running=row.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN"),
        numa_node=_numa_node(folder),
        channels=channels(name),
        rss_queues=rss_queues(name),
        features=features.get(index),
        queues=rx,
        interrupts=tuple(replace(irq, queue=by_irq.get(irq.number, irq.queue)) for irq in interrupts),
        xdp_program=bool(xdp and xdp.get_attr("IFLA_XDP_ATTACHED")),
    )


def _driver(folder: Path | None) -> str | None:
    if folder is None:
        return None
    with suppress(OSError):
        return (folder / "driver").readlink().name
    return None


def _numa_node(folder: Path | None) -> int | None:
    """Of the device or of what it hangs on; None also where there is but one node to be on (-1)."""
    for place in _upwards(folder):
        with suppress(OSError, ValueError):
            node = int((place / "numa_node").read_text())
            return node if node >= 0 else None
    return None


def _upwards(folder: Path | None) -> Iterator[Path]:
    """The device, and its parent: a virtio device is a function of one on a real bus."""
    if folder is not None:
        with suppress(OSError):
            real = folder.resolve(strict=True)
            yield real
            yield real.parent
