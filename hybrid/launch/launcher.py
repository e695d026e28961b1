"""Starts a program with a datapath and stays beside it: the loop of `hybrid serve` and `hybrid run`.

One thread, one selector over: the program's messages, the kernel's tables (hybrid.host), signals, and
the end of the program. The launcher never sees a packet; were it stopped, the program
would go on, only with addresses and neighbours as they were.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from hybrid.api.address import Address
from hybrid.api.host import Host
from hybrid.bpf.bpffs import netns_inode
from hybrid.errors import HybridError
from hybrid.host.follower import Follower, publish_to
from hybrid.host.notice import Notice, NoticeKind
from hybrid.host.table import Rows
from hybrid.launch import child, control
from hybrid.launch.control import Attached, Device, DeviceObtained, Handover, Kind, Ready
from hybrid.launch.devices import Descriptor
from hybrid.launch.ports import PORTS_MAX, BoundPort, Reservations
from hybrid.launch.record import Record
from hybrid.launch.signals import Signals
from hybrid.launch.slots import Slots
from hybrid.policy.placement import Backend, Placement, placed
from hybrid.policy.rule import Protocol as Transport

_log = logging.getLogger(__name__)

# How long the program has to end after it was asked to, before it is made to.
GRACE_S = 10.0
# The same for one that was told that it cannot go into service.
REFUSED_S = 2.0
_MESSAGES_MAX = 256
# How often it is looked whether the kernel still has connections of a port that is bypassed again.
_SETTLE_S = 1.0


class Served(Protocol):
    """What the launcher needs of a datapath (:class:`hybrid.launch.datapath.Datapath`)."""

    @property
    def handover(self) -> Handover:
        """What the program is told."""

    @property
    def sockets(self) -> Sequence[Descriptor]:
        """One for each device, opened and not bound."""

    @property
    def names(self) -> Sequence[str]:
        """Of the interfaces."""

    def amend(self, rows: Rows) -> Rows:
        """The host table's rows, with what the kernel does not know of."""

    def enter(self, there: Sequence[bool]) -> None:
        """Puts the sockets that the program has bound into service, and closes the launcher's copies."""

    def enter_later(self, device: Device, sock: Descriptor) -> None:
        """Puts one into service that came while the program ran; the caller closes it."""

    def incomplete(self, have: Collection[tuple[int, int]]) -> list[str]:
        """Interfaces with queues that the program should have and does not, by now."""

    def restore(self, name: str, have: Collection[tuple[int, int]]) -> list[tuple[Device, Descriptor]]:
        """Steers such an interface again and opens its missing queues. None: it is not there yet."""

    def settle_kernel_flows(self) -> bool:
        """Whether the kernel has connections to bypassed ports still; if not, it is asked no more."""

    def steers(self, port: BoundPort) -> bool:
        """Whether what comes for the port goes to the program."""


@dataclass(frozen=True, slots=True)
class InService:
    """What is told once the program listens. ``kernel``: as in :class:`Ready`."""

    pid: int
    devices: tuple[tuple[Device, DeviceObtained], ...]
    ports: tuple[BoundPort, ...]
    kernel: int = 1
    kernel_note: str = ""
    placements: tuple[Placement, ...] = ()

    def placed(self, port: BoundPort) -> str:
        """Which backend a port has, in words; nothing where there is no choice."""
        return describe_placement(self.placements, port) if self.kernel == 0 else ""


@dataclass
class Launch:
    """One program to run. ``on_ready`` is told when it is in service, ``warn`` what a person should know."""

    command: Sequence[str]
    path: Served
    environ: Mapping[str, str]
    on_ready: Callable[[InService], None]
    warn: Callable[[str], None]
    user: str | None = None
    outlives: bool = False  # the program goes on where this process is killed
    about: dict[str, Any] = field(default_factory=dict)
    record: Callable[[], Record] = Record

    def run(self) -> int:
        """Until the program ends. Its exit code, or 128 + the signal that killed it.

        ``BusyError``: a port that it bound is taken in the kernel; it has been ended then.
        """
        with ExitStack() as stack:
            return _Run(self, stack).loop()


class _Run:
    def __init__(self, launch: Launch, stack: ExitStack) -> None:
        self.launch = launch
        self.selector = stack.enter_context(selectors.DefaultSelector())
        self.signals = stack.enter_context(Signals())
        self.record = launch.record()
        stack.callback(self.record.close)
        self.host = stack.enter_context(Host())
        self.follower = stack.enter_context(Follower(self._publish, launch.path.names))
        self.reservations = Reservations()
        stack.callback(self.reservations.close)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = stack.enter_context(ours)
        self.handover = launch.path.handover
        dpdk = any(device.kind is Kind.DPDK for device in self.handover.devices)
        with theirs:
            environ = {**launch.environ, control.ENVIRONMENT: str(theirs.fileno())}
            self.process = child.start(
                launch.command,
                environ=environ,
                fds=[theirs.fileno()],
                user=launch.user,
                capabilities=child.DPDK if dpdk else child.MEMORY,
                outlives=launch.outlives,
            )
        stack.callback(self._end)
        fds = [self.host.fd, self.record.fd, *(s.fileno() for s in launch.path.sockets)]
        control.send_handover(ours, self.handover, fds)
        self.control.setblocking(False)
        self.pidfd = os.pidfd_open(self.process.pid)
        stack.callback(os.close, self.pidfd)
        self.refused: HybridError | None = None
        self.ready: Ready | None = None
        self.slots = Slots(self.handover.devices)
        self.coming: dict[tuple[int, int], tuple[Device, Descriptor]] = {}
        stack.callback(self._drop_coming)
        self.settle_at: float | None = None
        self.on_kernel: list[BoundPort] = []  # ports that the program holds in the kernel by itself
        self.kill_at: float | None = None
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._describe()

    def _publish(self, rows: Rows) -> None:
        publish_to(self.host)(self.launch.path.amend(rows))

    # -- the loop --------------------------------------------------------------------

    def loop(self) -> int:
        for source in (self.control, self.follower, self.signals, self.pidfd):
            self.selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self.selector.select(self._wait())}
            if self.control in ready:
                self._on_messages()
            if self.follower in ready:
                self.follower.on_readable()
            else:
                self.follower.on_timer()
            if self.follower in ready:
                self.slots.soon()
            self._look_for_devices()
            self._settle()
            if self.signals in ready:
                self._on_signals()
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.launch.warn(
                    f"the program (pid {self.process.pid}) did not end in {GRACE_S:.0f} s: killed"
                )
                self.process.kill()
                self.kill_at = None
            if self.pidfd in ready:
                return self._on_exit()

    def _wait(self) -> float | None:
        look_at = self.slots.look_at if self.ready is not None and not self.refused else None
        deadlines = (self.follower.deadline, self.kill_at, self.settle_at, look_at)
        times = [t for t in deadlines if t is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    # -- what the program says ---------------------------------------------------------

    def _on_messages(self) -> None:
        for _ in range(_MESSAGES_MAX):
            try:
                datagram = self.control.recv(control.MESSAGE_MAX)
            except BlockingIOError:
                return
            except ConnectionResetError:
                datagram = b""
            if not datagram:  # the program closed its end; it may go on, or be about to end
                self.selector.unregister(self.control)
                return
            message = control.parse(datagram)
            if isinstance(message, Ready):
                self._on_ready(message)
            elif isinstance(message, Attached):
                self._on_attached(message)
            elif isinstance(message, Notice):
                self._on_notice(message)
            else:
                _log.debug("the program sent %d bytes that make no sense", len(datagram))

    def _on_notice(self, notice: Notice) -> None:
        if notice.kind is NoticeKind.BOUND:
            self._on_bound(notice)
        elif notice.kind is NoticeKind.UNBOUND:
            self.reservations.remove(notice.protocol, notice.address)
            port = BoundPort.of(notice.protocol, notice.address)
            self.on_kernel = [held for held in self.on_kernel if held != port]
            self._describe()
        elif notice.kind is NoticeKind.DEVICE_LOST:
            self._on_lost((notice.ifindex, notice.arg))
        else:
            self.follower.on_notice(notice)

    def _on_bound(self, notice: Notice) -> None:
        ephemeral = self.handover.ports
        if ephemeral is not None and ephemeral[0] <= notice.address.port <= ephemeral[1]:
            return  # reserved as a range by `hybrid apply`
        port = BoundPort.of(notice.protocol, notice.address)
        if port is not None and notice.in_kernel:
            if port not in self.on_kernel and len(self.on_kernel) < PORTS_MAX:
                self.on_kernel.append(port)
                self._describe()
            return
        self._reserve(notice.protocol, notice.address)

    def _reserve(self, protocol: int, address: Address) -> None:
        try:
            port = self.reservations.add(protocol, address)
        except HybridError as error:
            if self.ready is not None:
                self.launch.warn(f"{error.message}: the kernel keeps what comes there by other interfaces")
            elif self.refused is None:
                self.refused = error
            return
        if port is not None and not self.launch.path.steers(port):
            self.launch.warn(
                f"no rule steers {port} here, so nothing will arrive; "
                "add one to the policy (to: afxdp) and `hybrid apply` it"
            )
        self._describe()

    def _on_ready(self, ready: Ready) -> None:
        if self.ready is not None:
            return
        devices = self.handover.devices
        if len(ready.obtained) != len(devices):
            self.refused = self.refused or HybridError(
                f"the program set up {len(ready.obtained)} of its {len(devices)} queues",
                "it must be built with the same libhybrid as this command",
            )
        if self.refused is None and ready.kernel < 0:
            self._on_no_kernel(ready)
        if self.refused is None:
            try:
                self.launch.path.enter([got.status == 0 for got in ready.obtained])
            except HybridError as error:
                self.refused = error
        if self.refused is not None:
            self._answer(-(self.refused.errno or errno.EIO))
            return
        self.ready = ready
        self.slots.started(ready.obtained)
        if ready.kernel == 0 and devices:
            self.settle_at = time.monotonic() + _SETTLE_S
        self._describe()
        self._answer(0)
        self._tell_what_is_missing(ready)
        self.launch.on_ready(
            InService(
                self.process.pid,
                tuple(zip(devices, ready.obtained, strict=True)),
                (*self.reservations.held, *self.on_kernel),
                ready.kernel,
                ready.kernel_note,
                tuple(self.handover.placements),
            )
        )

    def _on_no_kernel(self, ready: Ready) -> None:
        """The program has no kernel sockets, though some of its ports have them as a fallback."""
        if all(got.status < 0 for got in ready.obtained):
            self.refused = HybridError(
                f"the program has neither a bypass nor the kernel's sockets: {ready.kernel_note}",
                "hybrid doctor tells what this host can do",
                errno=-ready.kernel,
            )
            return
        self.launch.warn(
            f"the kernel's sockets could not be had ({ready.kernel_note or os.strerror(-ready.kernel)}), so "
            "there is nothing to fall back to"
        )

    def _tell_what_is_missing(self, ready: Ready) -> None:
        for device, got in zip(self.handover.devices, ready.obtained, strict=True):
            if got.status < 0:
                self.launch.warn(
                    f"{device.what} cannot be bypassed "
                    f"({got.note or os.strerror(-got.status)}); its ports are on the kernel's sockets"
                )

    # -- devices that go and come ------------------------------------------------------------

    def _on_lost(self, key: tuple[int, int]) -> None:
        slot = self.slots.gone(key)
        if slot is None:
            return
        self._describe()
        self.launch.warn(
            f"{slot.device.what} was lost; ports with a fallback are on the kernel's sockets until it is back"
        )

    def _look_for_devices(self) -> None:
        """Gives the program what it has lost, once that is there again, and queues that are new."""
        if self.ready is None or self.refused or time.monotonic() < self.slots.look_at:
            return
        missing, failed = False, False
        for name in self.launch.path.incomplete(self.slots.have):
            missing = True
            try:
                given = self.launch.path.restore(name, self.slots.have)
                failed |= not given
                for device, sock in given:
                    failed |= not self._give(device, sock)
            except (HybridError, OSError) as error:
                failed = True
                _log.debug("%s cannot be bypassed again yet: %s", name, error)
        self.slots.looked(missing, failed)

    def _give(self, device: Device, sock: Descriptor) -> bool:
        """False: the program does not listen just now, and is given it later."""
        try:
            control.send_device(self.control, device, sock.fileno(), self.handover.eal)
        except (HybridError, OSError) as error:
            sock.close()
            _log.debug("%s cannot be given back yet: %s", device.what, error)
            return False
        self.coming[device.key] = (device, sock)
        self.slots.pending.add(device.key)
        return True

    def _on_attached(self, message: Attached) -> None:
        device, sock = self.coming.pop(message.key, (None, None))
        self.slots.pending.discard(message.key)
        if device is None or sock is None:
            return
        obtained = message.obtained
        try:
            if obtained.status == 0:
                self.launch.path.enter_later(device, sock)
        except HybridError as error:
            obtained = replace(obtained, status=-(error.errno or errno.EIO), note=error.message)
        finally:
            sock.close()
        slot = self.slots.came(device, obtained)
        if slot.in_service:
            self.settle_at = time.monotonic() + _SETTLE_S
            self._describe()
            self.launch.warn(f"{device.what} is bypassed again")
        else:
            self.slots.looked(True, True)
            _log.debug("queue %d of %s: %s", device.queue, device.interface, obtained.note)

    def _settle(self) -> None:
        if self.settle_at is None or time.monotonic() < self.settle_at:
            return
        self.settle_at = time.monotonic() + _SETTLE_S if self.launch.path.settle_kernel_flows() else None

    def _drop_coming(self) -> None:
        for _device, sock in self.coming.values():
            sock.close()

    def _answer(self, status: int) -> None:
        try:
            control.send_go(self.control, status)
        except OSError:
            return  # it has ended; the exit says the rest
        if status:  # it is told why, and ends by itself
            self.kill_at = time.monotonic() + REFUSED_S

    # -- the end -------------------------------------------------------------------------

    def _on_signals(self) -> None:
        for number in self.signals.take():
            self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        """Hands a signal on. One that means the end starts the clock; a second one ends it at once."""
        if number in (signal.SIGINT, signal.SIGTERM):
            if self.kill_at is not None:
                self.process.kill()
                return
            self.kill_at = time.monotonic() + GRACE_S
            if number is signal.SIGINT and _in_foreground():
                return  # the terminal has sent it to the program as well
        self.process.send_signal(number)

    def _on_exit(self) -> int:
        code = self.process.wait()
        if self.control.fileno() in {key.fd for key in self.selector.get_map().values()}:
            self._on_messages()
        if self.refused is not None:
            raise self.refused
        if code < 0:
            name = signal.Signals(-code).name
            asked = self.kill_at is not None or self.signals.seen
            if not asked:
                self.launch.warn(f"the program was killed by {name}; its ports are the kernel's again")
            return 128 - code
        if self.ready is None and code == 0:
            self.launch.warn("the program ended without ever being ready (hy_shard_ready)")
        return code

    def _end(self) -> None:
        """However the loop was left, the program ends too."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _describe(self) -> None:
        ports = (*self.reservations.held, *self.on_kernel)
        rows = tuple(self.handover.placements)
        kernel = self.ready.kernel if self.ready is not None else 1
        no_device = DeviceObtained(False, False, False, False, 0, -errno.ENETDOWN, "lost")
        self.record.describe(
            {
                "command": list(self.launch.command),
                "pid": self.process.pid,
                "launcher": os.getpid(),
                "netns": netns_inode(),
                "started": self.started,
                "in_service": self.ready is not None,
                "requested": [asdict(slot.device) for slot in self.slots],
                "obtained": [asdict(slot.obtained or no_device) for slot in self.slots]
                if self.ready is not None
                else [],
                "devices": [slot.as_dict() for slot in self.slots],
                "devices_lost": self.slots.lost,
                "devices_returned": self.slots.returned,
                "kernel": {
                    "requested": self.handover.kernel.wanted.name.lower(),
                    "obtained": kernel == 0,
                    "note": self.ready.kernel_note if self.ready is not None else "",
                },
                "ports": [str(port) for port in ports],
                "placed": {str(port): describe_placement(rows, port) for port in ports}
                if kernel == 0
                else {},
                "ephemeral_ports": self.handover.ports,
                **self.launch.about,
            }
        )


def describe_placement(rows: Sequence[Placement], port: BoundPort) -> str:
    """Which backends serve a port, in words."""
    row = placed(rows, Transport(port.protocol), port.address.port)
    if row is None or row.to is Backend.KERNEL:
        return "kernel"
    return "bypass, fallback kernel" if row.kernel else "bypass"


def _in_foreground() -> bool:
    """Whether this process is what the terminal's Ctrl-C goes to, together with its children."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)
