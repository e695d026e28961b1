"""``hybrid devices``: what this host offers each backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from rich.padding import Padding

from hybrid.cli.output import table
from hybrid.cli.session import session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hybrid.devices import Host, Interface
    from hybrid.devices.dpdk import Dpdk
    from hybrid.devices.frames import Way
    from hybrid.devices.uring import Uring

__all__ = ["command"]

# Drivers of ports that are not cards, of those that we have a use for.
_WITHOUT_A_CARD = ("af_packet", "af_xdp", "memif", "ring", "tap")
_INTERFACES = (
    "interface",
    "driver",
    "link",
    ">MTU",
    ">queues",
    ">most",
    ">node",
    "XDP",
    "zero-copy",
    "hints",
)


def command(ctx: typer.Context) -> None:
    """Show what this host offers each backend: interfaces, hugepages, DPDK, io_uring."""
    from hybrid.devices import gather

    host = gather()
    session(ctx).output.emit(host, *_text(host))


def _text(host: Host) -> Iterator[RenderableType]:
    yield "AF_XDP"
    rows = [_interface(interface) for interface in host.interfaces]
    yield _below(_INTERFACES, rows) if rows else "  no interface but loopback in this network namespace"
    yield "hugepages"
    pools = [
        (_size(pool.size_kib), "-" if pool.node is None else pool.node, pool.free, pool.total)
        for pool in host.hugepages
    ]
    yield _below((">size", ">node", ">free", ">reserved"), pools) if pools else "  this kernel has none"
    yield "DPDK"
    yield _below(("", ""), _dpdk(host.dpdk))
    yield "io_uring"
    yield _below(("", ""), _uring(host.io_uring))
    yield "frames without XDP"
    ways = (("TAP", host.tap), ("packet socket", host.packet_socket))
    yield _below(("", ""), ((name, _way(way)) for name, way in ways))
    yield "RDMA (no backend yet)"
    yield _below(("", ""), [("devices", _words(host.rdma))])


def _below(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    return Padding(table(columns, rows), (0, 0, 0, 2), expand=False)


def _words(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _interface(interface: Interface) -> tuple[object, ...]:
    channels, features = interface.channels, interface.features
    xdp, zero_copy, hints = "the kernel does not say", "", ""
    if features is not None:
        # What every driver with XDP of its own has is not worth a word.
        beyond = [name for name in features.xdp if name not in ("basic", "zero-copy")]
        xdp = ", ".join(["native", *beyond]) if "basic" in features.xdp else "generic alone"
        zero_copy = "no"
        if "zero-copy" in features.xdp:
            segments = features.zero_copy_segments
            zero_copy = f"yes, {segments} frames a packet" if segments > 1 else "yes"
        hints = _words(features.rx_metadata + features.xsk)
    return (
        interface.name,
        interface.driver,
        interface.link,
        interface.mtu_bytes,
        channels.receiving if channels else "fixed",
        channels.receiving_max if channels else "",
        "-" if interface.numa_node is None else interface.numa_node,
        xdp,
        zero_copy,
        hints,
    )


def _size(kib: int) -> str:
    for unit, amount in (("GiB", 1 << 20), ("MiB", 1 << 10)):
        if kib % amount == 0:
            return f"{kib // amount} {unit}"
    return f"{kib} KiB"


def _dpdk(found: Dpdk) -> Iterator[tuple[str, str]]:
    if found.abi is None:
        yield "installed", "no (apt-get install -y dpdk librte-meta-net librte-meta-mempool)"
    else:
        yield "installed", f"{found.version or 'of an unknown version'} (ABI {found.abi})"
        virtual = [name for name in found.drivers if name in _WITHOUT_A_CARD]
        yield "ports without a card", _words(virtual)
        yield "drivers for cards", str(len(found.drivers) - len(virtual))
    if found.plugin is None:
        yield "hybrid's plugin", "not in this build"
    else:
        yield "hybrid's plugin", found.plugin.problem or "loads"
    cards = (f"{card.address} ({card.driver})" for card in found.bound)
    yield "cards bound for it", _words(cards)
    yield "IOMMU", f"{found.iommu_groups} groups" if found.iommu_groups else "none (vfio-pci would be unsafe)"


def _uring(found: Uring) -> Iterator[tuple[str, str]]:
    if found.problem:
        yield "opens", f"no: {found.problem} ({found.remedy})"
        return
    yield "opens", f"yes, {found.opcodes} operations"
    for title, has in (("has", True), ("lacks", False)):
        names = [name.replace("_", " ") for name, there in found.features.items() if there is has]
        if names:
            yield title, ", ".join(names)


def _way(way: Way) -> str:
    if way.problem:
        return f"no: {way.problem}" + (f" ({way.remedy})" if way.remedy else "")
    return ", ".join(["yes", *way.features])
