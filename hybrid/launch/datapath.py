"""The datapath that `hybrid apply` prepared in this network namespace, as the launcher uses it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from hybrid.bpf import Steering
from hybrid.errors import BusyError, from_errno
from hybrid.launch.control import Copy, Device
from hybrid.launch.ports import BoundPort
from hybrid.policy.rule import Protocol, Rule, Target

_AF_XDP = 44
# What a socket is given before it is handed over, because it wants CAP_NET_ADMIN: see hybrid/afxdp/xsk.c.
_SO_SNDBUFFORCE, _SO_BUSY_POLL, _SO_PREFER_BUSY_POLL, _SO_BUSY_POLL_BUDGET = 32, 46, 69, 70
_BUSY_POLL_US, _BUSY_POLL_FRAMES, _SKB_BYTES, _RING_SIZE = 20, 64, 2304, 2048


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface that steers, and what the policy asks of its queues."""

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

    @property
    def devices(self) -> tuple[Device, ...]:
        """One for each receive queue: a frame can only go to a socket of the queue that it came by."""
        return tuple(
            Device(self.ifindex, queue, self.ring_size, self.copy, self.busy_poll, self.strict)
            for queue in self.queues
        )


@dataclass
class Datapath:
    """Interfaces with a socket opened for each queue. Leaving the ``with`` closes those not handed over."""

    interfaces: Sequence[Interface]
    sockets: list[socket.socket] = field(default_factory=list)

    @classmethod
    def open(cls, interfaces: Sequence[Interface]) -> Self:
        """Opens the sockets: ``socket()`` only, the program registers its memory and binds them."""
        made = cls(interfaces)
        try:
            for interface in interfaces:
                for device in interface.devices:
                    made.sockets.append(_xdp_socket(device))
        except BaseException:
            made.close()
            raise
        return made

    @property
    def devices(self) -> list[Device]:
        """In the order of :attr:`sockets`."""
        return [device for interface in self.interfaces for device in interface.devices]

    @property
    def names(self) -> list[str]:
        """Of the interfaces."""
        return [interface.name for interface in self.interfaces]

    @property
    def ephemeral_ports(self) -> tuple[int, int] | None:
        """The range of ports whose replies are steered here, for outgoing connections: the widest rule's."""
        ranges = [
            rule.ports
            for interface in self.interfaces
            for rule in interface.rules
            if rule.to is Target.AFXDP and rule.ports is not None and rule.ports[0] < rule.ports[1]
        ]
        return max(ranges, key=lambda ports: ports[1] - ports[0], default=None)

    def enter(self) -> None:
        """Puts every socket into service, then lets go of them: they end with the program."""
        sockets = iter(self.sockets)
        for interface in self.interfaces:
            with Steering.open(interface.name) as steering:
                for device in interface.devices:
                    steering.enter(device.queue, next(sockets).fileno())
        self.close()

    def check_free(self) -> None:
        """``BusyError`` where another program has a queue in service."""
        for interface in self.interfaces:
            with Steering.open(interface.name) as steering:
                taken = steering.sockets()
            if taken:
                raise BusyError(
                    f"queue {taken[0]} of {interface.name} is in service for another program",
                    "end that program (hybrid status names it), or serve another interface: --interface",
                    errno=errno.EBUSY,
                )

    def steers(self, port: BoundPort) -> bool:
        """Whether some rule sends what comes for this port to the program."""
        return any(_covers(rule, port) for interface in self.interfaces for rule in interface.rules)

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
    if rule.to is not Target.AFXDP or rule.protocol not in (None, Protocol(port.protocol)):
        return False
    if rule.ports is not None and not rule.ports[0] <= port.address.port <= rule.ports[1]:
        return False
    ip: Any = port.address.ip
    if rule.destination is None or ip is None or ip.is_unspecified:
        return True
    return ip.version == rule.destination.version and ip in rule.destination


def _xdp_socket(device: Device) -> socket.socket:
    try:
        made = socket.socket(_AF_XDP, socket.SOCK_RAW)
    except OSError as error:
        raise from_errno(error.errno or 0, "open an AF_XDP socket", _socket_remedy(error.errno)) from None
    options = [(_SO_SNDBUFFORCE, (device.ring_size or _RING_SIZE) * _SKB_BYTES)]
    if device.busy_poll:
        options += [
            (_SO_PREFER_BUSY_POLL, 1),
            (_SO_BUSY_POLL, _BUSY_POLL_US),
            (_SO_BUSY_POLL_BUDGET, _BUSY_POLL_FRAMES),
        ]
    for option, value in options:
        with suppress(OSError):  # what is not obtained shows in what the program reports
            made.setsockopt(socket.SOL_SOCKET, option, value)
    return made


def _socket_remedy(number: int | None) -> str | None:
    if number == errno.EAFNOSUPPORT:
        return "use a kernel with CONFIG_XDP_SOCKETS=y: hybrid doctor"
    return None
