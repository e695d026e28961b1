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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from hybrid.api.host import Host
from hybrid.bpf.bpffs import netns_inode
from hybrid.errors import HybridError
from hybrid.host.follower import Follower, publish_to
from hybrid.host.notice import Notice, NoticeKind
from hybrid.launch import child, control
from hybrid.launch.control import Device, DeviceObtained, Ready
from hybrid.launch.ports import BoundPort, Reservations
from hybrid.launch.record import Record
from hybrid.launch.signals import Signals

_log = logging.getLogger(__name__)

# How long the program has to end after it was asked to, before it is made to.
GRACE_S = 10.0
# The same for one that was told that it cannot go into service.
REFUSED_S = 2.0
_MESSAGES_MAX = 256


class Served(Protocol):
    """What the launcher needs of a datapath (:class:`hybrid.launch.datapath.Datapath`)."""

    @property
    def devices(self) -> Sequence[Device]:
        """One for each queue."""

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """One for each device, opened and not bound."""

    @property
    def names(self) -> Sequence[str]:
        """Of the interfaces."""

    @property
    def ephemeral_ports(self) -> tuple[int, int] | None:
        """Ports of outgoing connections whose replies are steered here."""

    def enter(self) -> None:
        """Puts the sockets, bound by now, into service, and closes the launcher's copies."""

    def steers(self, port: BoundPort) -> bool:
        """Whether what comes for the port goes to the program."""


@dataclass(frozen=True, slots=True)
class InService:
    """What is told once the program listens."""

    pid: int
    devices: tuple[tuple[Device, DeviceObtained], ...]
    ports: tuple[BoundPort, ...]


@dataclass
class Launch:
    """One program to run. ``on_ready`` is told when it is in service, ``warn`` what a person should know."""

    command: Sequence[str]
    path: Served
    environ: Mapping[str, str]
    on_ready: Callable[[InService], None]
    warn: Callable[[str], None]
    user: str | None = None
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
        self.follower = stack.enter_context(Follower(publish_to(self.host), launch.path.names))
        self.reservations = Reservations()
        stack.callback(self.reservations.close)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = stack.enter_context(ours)
        with theirs:
            environ = {**launch.environ, control.ENVIRONMENT: str(theirs.fileno())}
            self.process = child.start(
                launch.command, environ=environ, fds=[theirs.fileno()], user=launch.user
            )
        stack.callback(self._end)
        fds = [self.host.fd, self.record.fd, *(s.fileno() for s in launch.path.sockets)]
        control.send_handover(ours, launch.path.devices, launch.path.ephemeral_ports, fds)
        self.control.setblocking(False)
        self.pidfd = os.pidfd_open(self.process.pid)
        stack.callback(os.close, self.pidfd)
        self.refused: HybridError | None = None
        self.obtained: tuple[DeviceObtained, ...] | None = None
        self.kill_at: float | None = None
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._describe()

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
        times = [t for t in (self.follower.deadline, self.kill_at) if t is not None]
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
            elif isinstance(message, Notice):
                self._on_notice(message)
            else:
                _log.debug("the program sent %d bytes that make no sense", len(datagram))

    def _on_notice(self, notice: Notice) -> None:
        if notice.kind is NoticeKind.BOUND:
            self._on_bound(notice)
        elif notice.kind is NoticeKind.UNBOUND:
            self.reservations.remove(notice.arg, notice.address)
            self._describe()
        else:
            self.follower.on_notice(notice)

    def _on_bound(self, notice: Notice) -> None:
        ephemeral = self.launch.path.ephemeral_ports
        if ephemeral is not None and ephemeral[0] <= notice.address.port <= ephemeral[1]:
            return  # reserved as a range by `hybrid apply`
        try:
            port = self.reservations.add(notice.arg, notice.address)
        except HybridError as error:
            if self.obtained is not None:
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
        if self.obtained is not None:
            return
        if len(ready.obtained) != len(self.launch.path.devices):
            self.refused = self.refused or HybridError(
                f"the program set up {len(ready.obtained)} of its {len(self.launch.path.devices)} queues",
                "it must be built with the same libhybrid as this command",
            )
        if self.refused is None:
            try:
                self.launch.path.enter()
            except HybridError as error:
                self.refused = error
        if self.refused is not None:
            self._answer(-(self.refused.errno or errno.EIO))
            return
        self.obtained = ready.obtained
        self._describe()
        self._answer(0)
        devices = tuple(zip(self.launch.path.devices, ready.obtained, strict=True))
        self.launch.on_ready(InService(self.process.pid, devices, self.reservations.held))

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
        if self.obtained is None and code == 0:
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
        requested = [asdict(device) for device in self.launch.path.devices]
        obtained = [asdict(got) for got in self.obtained or ()]
        self.record.describe(
            {
                "command": list(self.launch.command),
                "pid": self.process.pid,
                "launcher": os.getpid(),
                "netns": netns_inode(),
                "started": self.started,
                "in_service": self.obtained is not None,
                "requested": requested,
                "obtained": obtained,
                "ports": [str(port) for port in self.reservations.held],
                "ephemeral_ports": self.launch.path.ephemeral_ports,
                **self.launch.about,
            }
        )


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
