"""The datapath that `hybrid apply` prepared in this network namespace, as the launcher uses it."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hybrid.agent import veth
from hybrid.agent.apply import Agent
from hybrid.agent.plan import Present
from hybrid.bpf import Steering
from hybrid.devices.ethtool import interface_number, receive_queues
from hybrid.errors import BusyError, HybridError
from hybrid.host.table import Rows
from hybrid.launch.control import PORT_QUEUE, Copy, Device, Handover, Kernel, Kind, Wanted
from hybrid.launch.devices import Descriptor, open_device
from hybrid.launch.ports import BoundPort
from hybrid.launch.tap import own_end
from hybrid.policy import Backend, DpdkPort, Fallback, FrameDevice, Placement, Tap, Uring, Via, placements
from hybrid.policy.placement import placed, without_bypass
from hybrid.policy.rule import Protocol, Rule, Target


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface, and what the policy asks of it. ``ifindex`` 0: no bypass now, ``note`` says why."""

    name: str
    ifindex: int
    queues: tuple[int, ...]
    attach_requested: str
    attach_obtained: str
    note: str
    rules: tuple[Rule, ...]
    ring_size: int = 0
    copy: Copy = Copy.AUTO
    busy_poll: bool = False
    strict: bool = False
    tx_checksum: bool = False
    every_queue: bool = False  # also those that it gets while a program runs
    device: FrameDevice = FrameDevice.AFXDP
    dpdk: DpdkPort | None = None
    tap: Tap | None = None
    uring: Uring = field(default_factory=Uring)

    @property
    def devices(self) -> tuple[Device, ...]:
        """AF_XDP: one for each receive queue, where a frame can only go to a socket of its own queue."""
        if self.ifindex == 0:
            return ()
        made: list[Device] = []
        if self.device is FrameDevice.AFXDP and any(rule.to is Target.AFXDP for rule in self.rules):
            made += [self.afxdp(queue) for queue in self.queues]
        if self.tap is not None:
            made.append(Device(self.ifindex, 0, strict=self.strict, kind=Kind.TAP, interface=self.name))
        if self.dpdk is not None:
            made.append(
                Device(
                    self.ifindex,
                    PORT_QUEUE,
                    strict=self.strict,
                    kind=Kind.DPDK,
                    queues=self.dpdk.queues,
                    args=_devargs(self.name, self.dpdk),
                    interface=self.name,
                )
            )
        return tuple(made)

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Of these devices."""
        afxdp = self.device is FrameDevice.AFXDP and any(rule.to is Target.AFXDP for rule in self.rules)
        queues = [*self.queues] if afxdp else []
        return [(self.ifindex, queue) for queue in (*queues, *([PORT_QUEUE] if self.dpdk else []))]

    def afxdp(self, queue: int) -> Device:
        """The device of a queue."""
        return Device(
            self.ifindex,
            queue,
            self.ring_size,
            self.copy,
            self.busy_poll,
            self.strict,
            tx_checksum=self.tx_checksum,
            interface=self.name,
        )

    @property
    def steered(self) -> bool:
        """Whether our program is on it."""
        return (
            self.ifindex != 0 and self.device.steered and (self.dpdk is None or self.dpdk.via is Via.DEVMAP)
        )


@dataclass
class Datapath:
    """Interfaces with what is opened for each device. Leaving the ``with`` closes what is still here."""

    interfaces: list[Interface]
    sockets: list[Descriptor] = field(default_factory=list)
    kernel_only: bool = False
    devices: list[Device] = field(default_factory=list)

    @classmethod
    def open(cls, interfaces: Sequence[Interface]) -> Self:
        """Opens the descriptors, in the order of :attr:`devices`."""
        made = cls(list(interfaces))
        made.devices = [device for interface in interfaces for device in interface.devices]
        try:
            made.sockets += [open_device(device) for device in made.devices]
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def of_the_kernel(cls, interfaces: Sequence[Interface] = ()) -> Self:
        """No frame device: every port is on the kernel's sockets. Wants no privilege."""
        return cls([replace(interface, ifindex=0) for interface in interfaces], kernel_only=True)

    @property
    def names(self) -> list[str]:
        """Of the interfaces whose addresses the kernel keeps."""
        return [interface.name for interface in self.interfaces if interface.tap is None]

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where a program's ports are."""
        if not self.interfaces:
            return tuple(Placement(protocol, (1, 65535), Backend.KERNEL) for protocol in Protocol)
        rows = placements([interface.rules for interface in self.interfaces])
        return without_bypass(rows) if self.kernel_only else rows

    @property
    def handover(self) -> Handover:
        """What a program is given."""
        rows = self.placements
        wanted = Wanted.FALLBACK if any(row.kernel for row in rows) else Wanted.NO
        if wanted and not self.devices:
            wanted = Wanted.NEEDED
        asked = next((interface.uring for interface in self.interfaces), Uring())
        return Handover(
            devices=self.devices,
            ports=self.ephemeral_ports,
            placements=rows,
            kernel=Kernel(wanted, asked.sqpoll, asked.busy_poll, asked.zerocopy, asked.strict),
            eal=next((i.dpdk.eal for i in self.interfaces if i.dpdk is not None), ()),
            lenient=self.can_do_without,
        )

    @property
    def can_do_without(self) -> bool:
        """Whether every bypassed port has a fallback, and nothing is strict."""
        rules = [rule for interface in self.interfaces for rule in interface.rules if rule.to.bypasses]
        strict = any(interface.strict for interface in self.interfaces)
        return not strict and all(rule.fallback is Fallback.KERNEL for rule in rules)

    @property
    def ephemeral_ports(self) -> tuple[int, int] | None:
        """The range of ports whose replies are steered here, for outgoing connections: the widest rule's."""
        ranges = [
            rule.ports
            for interface in self.interfaces
            for rule in interface.rules
            if rule.to.bypasses and rule.ports is not None and rule.ports[0] < rule.ports[1]
        ]
        return max(ranges, key=lambda ports: ports[1] - ports[0], default=None)

    def amend(self, rows: Rows) -> Rows:
        """The host table's rows, with our ends of TAP devices beside what the kernel knows."""
        for interface in self.interfaces:
            if interface.tap is not None and interface.ifindex:
                rows = own_end(rows, interface.name, interface.ifindex, interface.tap)
        return rows

    # -- into service -----------------------------------------------------------------

    def enter(self, there: Sequence[bool]) -> None:
        """Puts into service what the program has attached, and lets go of it: it ends with the program."""
        for interface in self.interfaces:
            if interface.steered:
                self._look_for_kernel_flows(interface, True)
        for device, sock, attached in zip(self.devices, self.sockets, there, strict=True):
            if attached:
                self._enter(device, sock)
        self.close()

    def enter_later(self, device: Device, sock: Descriptor) -> None:
        """The same for one that came while the program ran."""
        for interface in self.interfaces:
            if interface.name == device.interface:
                self._look_for_kernel_flows(interface, True)
        self._enter(device, sock)

    def _enter(self, device: Device, sock: Descriptor) -> None:
        interface = next(i for i in self.interfaces if i.ifindex == device.ifindex)
        if not interface.steered:
            return
        with Steering.open(interface.name) as steering:
            if device.kind is Kind.AFXDP:
                steering.enter(device.queue, sock.fileno())
            else:
                steering.lease(sock.fileno())

    def check_free(self) -> None:
        """``BusyError`` where another program has a queue or the port in service."""
        for interface in self.interfaces:
            if not interface.steered:
                continue
            with Steering.open(interface.name) as steering:
                taken = [f"queue {queue}" for queue in steering.sockets() if queue in interface.queues]
                if interface.dpdk is not None and steering.leased():
                    taken.append("the DPDK port")
            if taken:
                raise BusyError(
                    f"{taken[0]} of {interface.name} is in service for another program",
                    "end that program (hybrid status names it), or serve another interface: --interface",
                    errno=errno.EBUSY,
                )

    # -- what was lost, and comes back ----------------------------------------------------

    def incomplete(self, have: Collection[tuple[int, int]]) -> list[str]:
        """Names of interfaces with AF_XDP queues, or a DPDK port, that the program does not have."""
        found = []
        for interface in self.interfaces:
            if self.kernel_only or interface.tap is not None:
                continue
            # The name may be another interface's by now, of which the program has nothing.
            ifindex = interface_number(interface.name)
            if not ifindex:
                continue
            now = replace(
                interface,
                ifindex=ifindex,
                queues=self._queues(interface, receive_queues(interface.name)),
            )
            if any(key not in have for key in now.keys):
                found.append(interface.name)
        return found

    def restore(self, name: str, have: Collection[tuple[int, int]]) -> list[tuple[Device, Descriptor]]:
        """Steers an interface that has come back, and opens what is missing. None: it is not there yet."""
        at = [interface.name for interface in self.interfaces].index(name)
        interface = self.interfaces[at]
        if interface.device.steered and (interface.dpdk is None or interface.dpdk.via is Via.DEVMAP):
            present = Agent().restore(name)
            if present is None:
                return []
            interface = self.interfaces[at] = self._again(interface, present)
        return [(device, open_device(device)) for device in interface.devices if device.key not in have]

    def _again(self, interface: Interface, present: Present) -> Interface:
        return replace(
            interface,
            ifindex=present.obtained.ifindex,
            queues=self._queues(interface, receive_queues(interface.name)),
            attach_obtained=present.obtained.mode,
            note=present.obtained.note,
        )

    @staticmethod
    def _queues(interface: Interface, there: int) -> tuple[int, ...]:
        if interface.every_queue:
            return tuple(range(there))
        return tuple(queue for queue in interface.queues if queue < there)

    # -- connections that the kernel has ---------------------------------------------------

    def _look_for_kernel_flows(self, interface: Interface, look: bool) -> None:
        if any(rule.fallback is Fallback.KERNEL for rule in interface.rules):
            with Steering.open(interface.name) as steering:
                steering.look_for_kernel_flows(look)

    def settle_kernel_flows(self) -> bool:
        """Stops asking the kernel for connections of its own once it has none. True: it has some still."""
        rows = [row for row in self.placements if row.to is Backend.BYPASS and row.kernel]
        if any(placed(rows, Protocol.TCP, port) for port in _connected_ports()):
            return True
        for interface in self.interfaces:
            try:
                if interface.steered:
                    self._look_for_kernel_flows(interface, False)
            except HybridError:
                continue  # it is gone; what comes in its place starts anew
        return False

    # -- ports ---------------------------------------------------------------------------------

    def steers(self, port: BoundPort) -> bool:
        """Whether what comes for this port reaches the program."""
        if any(_covers(rule, port) for interface in self.interfaces for rule in interface.rules):
            return True
        row = placed(self.placements, Protocol(port.protocol), port.address.port)
        return row is not None and row.kernel

    def close(self) -> None:
        """Closes the launcher's copies of the sockets."""
        while self.sockets:
            self.sockets.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _covers(rule: Rule, port: BoundPort) -> bool:
    if not rule.to.bypasses or rule.protocol not in (None, Protocol(port.protocol)):
        return False
    if rule.ports is not None and not rule.ports[0] <= port.address.port <= rule.ports[1]:
        return False
    ip: Any = port.address.ip
    if rule.destination is None or ip is None or ip.is_unspecified:
        return True
    return ip.version == rule.destination.version and ip in rule.destination


def _devargs(ifname: str, port: DpdkPort) -> str:
    """What DPDK is told to open. ``{far}`` in it is the far end of the veth."""
    name = f"net_af_xdp_{zlib.crc32(ifname.encode()):08x}"
    if port.via is Via.DEVMAP:
        far = veth.require(ifname)
        return port.port.replace("{far}", far) or f"{name},iface={far}"
    return port.port or f"{name},iface={ifname}"


def _connected_ports() -> set[int]:
    """Local ports of connections that the kernel has, but for those that only linger."""
    listening_or_lingering = {"0A", "06"}
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for words in (line.split() for line in lines):
            if words[3] not in listening_or_lingering:
                found.add(int(words[1].rsplit(":", 1)[1], 16))
    return found
