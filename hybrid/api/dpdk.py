"""A DPDK port under a shard: what is asked for, and what was had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hybrid._native import ffi, lib
from hybrid.api._handle import Handle
from hybrid.api.device import Request
from hybrid.api.errors import AttachError, check
from hybrid.bpf.rules import to_c
from hybrid.policy.rule import Rule

#: What :attr:`hybrid.Config.frame_prefix_bytes` must be for a shard that is to have DPDK ports.
PREFIX_BYTES: int = lib.HY_DPDK_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class DpdkPort:
    """One queue of a port, by its name: ``net_memif0,role=server,id=0``, a PCI address, or ``ring:NAME``."""

    port: str
    ifindex: int = 1
    """row of the host table that describes the link"""
    queue: int = 0
    queues: int = 1
    """of the port: the first attach decides, and frames move once all are attached"""
    eal: Sequence[str] = ()
    """arguments of EAL, the same for every port of a process; none: no hugepages, no files, no PCI"""
    rx_desc: int = 0
    tx_desc: int = 0
    mtu_bytes: int = 0
    checksum: Request = Request.AUTO
    interrupt: Request = Request.AUTO
    flow: bool = False
    """the rules go into the NIC"""
    strict: bool = False
    exception: str | None = None
    """the net_tap port by which the kernel has what no rule names"""
    rules: Sequence[Rule] = field(default=())


@dataclass(frozen=True, slots=True)
class DpdkObtained:
    """What a port came to."""

    name: str
    driver: str
    version: str
    mac: str
    answers_arp: bool
    """no kernel sees the port's frames: its row of the host table should say so"""
    running: bool
    kernel_ifindex: int
    mtu_bytes: int
    queues: int
    rx_desc: int
    tx_desc: int
    rx_checksum: bool
    tx_checksum: bool
    tso: bool
    rss: bool
    interrupt: bool
    hugepages: bool
    flows: int


def attach_dpdk(handle: Handle, wanted: DpdkPort) -> DpdkObtained:
    """``hy_dpdk_attach`` with everything that it needs kept alive meanwhile."""
    keep = [ffi.new("char[]", text.encode()) for text in wanted.eal]
    arguments = ffi.new("char *[]", keep) if keep else ffi.NULL
    port = ffi.new("char[]", wanted.port.encode())
    exception = ffi.new("char[]", wanted.exception.encode()) if wanted.exception else ffi.NULL
    rules = to_c(wanted.rules)
    config = ffi.new("hy_dpdk_config *")
    config.struct_size = ffi.sizeof("hy_dpdk_config")
    config.port, config.eal, config.neal = port, ffi.cast("char **", arguments), len(keep)
    config.exception, config.rules, config.nrules = exception, rules, len(wanted.rules)
    for name in ("ifindex", "queue", "queues", "rx_desc", "tx_desc", "mtu_bytes", "checksum", "interrupt"):
        setattr(config, name, int(getattr(wanted, name)))
    config.flow, config.strict = wanted.flow, wanted.strict
    obtained = ffi.new("hy_dpdk_obtained *")
    result = handle.call(lib.hy_dpdk_attach, config, obtained)
    if result < 0:
        raise AttachError(f"DPDK port {wanted.port}", -result)
    return DpdkObtained(
        name=ffi.string(obtained.name).decode(),
        driver=ffi.string(obtained.driver).decode(),
        version=ffi.string(obtained.version).decode(),
        mac=bytes(ffi.buffer(obtained.mac)).hex(":"),
        answers_arp=bool(obtained.answers_arp),
        running=bool(obtained.running),
        kernel_ifindex=int(obtained.kernel_ifindex),
        mtu_bytes=int(obtained.mtu_bytes),
        queues=int(obtained.queues),
        rx_desc=int(obtained.rx_desc),
        tx_desc=int(obtained.tx_desc),
        rx_checksum=bool(obtained.rx_checksum),
        tx_checksum=bool(obtained.tx_checksum),
        tso=bool(obtained.tso),
        rss=bool(obtained.rss),
        interrupt=bool(obtained.interrupt),
        hugepages=bool(obtained.hugepages),
        flows=int(obtained.flows),
    )


def stop_dpdk(name: str) -> None:
    """Ends a port of this process, and its shards lose the device. It can be had again."""
    check(f"stop DPDK port {name}", lib.hy_dpdk_stop(name.encode()))
