"""What other backends than AF_XDP need: TUN/TAP, packet sockets, io_uring, DPDK."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hybrid.devices import dpdk, frames, uring
from hybrid.doctor.finding import Finding, Outcome

__all__ = ["probe"]

_AS_ROOT = "sudo hybrid doctor"
_INSTALL = "apt-get install -y dpdk librte-meta-net librte-meta-mempool"


def probe() -> Iterator[Finding]:
    """None of it is needed for AF_XDP."""
    yield _way("TUN/TAP", frames.tap())
    yield _way("packet socket", frames.packet_socket())
    yield _uring()
    found = dpdk.look()
    yield _installed(found)
    yield _plugin(found)


def _way(name: str, way: frames.Way) -> Finding:
    if not way.problem:
        return Finding(name, Outcome.YES, f"opens: {', '.join(way.features)}")
    if way.denied and os.geteuid() != 0:
        return Finding(name, Outcome.INCONCLUSIVE, way.problem, remedy=_AS_ROOT)
    return Finding(name, Outcome.NO, way.problem, remedy=way.remedy)


def _uring() -> Finding:
    found = uring.look()
    if found.problem:
        return Finding("io_uring", Outcome.NO, found.problem, remedy=found.remedy)
    lacking = [name.replace("_", " ") for name, there in found.features.items() if not there]
    without = f", without {', '.join(lacking)}" if lacking else ""
    return Finding("io_uring", Outcome.YES, f"a ring opens{without}")


def _installed(found: dpdk.Dpdk) -> Finding:
    if found.abi is None:
        return Finding("DPDK", Outcome.NO, "not installed", remedy=_INSTALL)
    if not found.drivers:
        return Finding("DPDK", Outcome.NO, "installed without a driver for any port", remedy=_INSTALL)
    version = found.version or f"ABI {found.abi}"
    return Finding("DPDK", Outcome.YES, f"{version}, {len(found.drivers)} drivers for ports")


def _plugin(found: dpdk.Dpdk) -> Finding:
    name = "DPDK plugin"
    if found.plugin is None:
        remedy = f"{_INSTALL} libdpdk-dev, and build hybrid again"
        return Finding(name, Outcome.NO, "this hybrid was built without DPDK", remedy=remedy)
    if found.plugin.problem:
        return Finding(name, Outcome.NO, f"does not load: {found.plugin.problem}", remedy=_INSTALL)
    return Finding(name, Outcome.YES, "loads")
