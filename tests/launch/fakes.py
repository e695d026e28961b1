"""Stand-ins for both ends of the launcher, run as programs of their own.

``fakes.py launcher MODE [--user NAME]`` runs the real launcher, in the network namespace it is
started in, over a datapath without AF_XDP; ``fakes.py child MODE`` is the program that it
starts, which speaks the protocol of control.h as libhybrid does. Both print one JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Collection, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hybrid._native import ffi, lib
from hybrid.api.address import Address
from hybrid.errors import HybridError
from hybrid.host.notice import Notice, NoticeKind
from hybrid.host.table import Rows
from hybrid.launch.control import Device, Handover, Kernel, Wanted
from hybrid.launch.devices import Descriptor
from hybrid.launch.launcher import InService, Launch
from hybrid.launch.ports import BoundPort
from hybrid.launch.record import Record
from hybrid.policy import Backend, Placement, Protocol

TCP = 6


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")  # both ends share the pipe: a line is one write


class FakePath:
    """Two queues whose sockets are ordinary ones."""

    def __init__(self) -> None:
        devices = [
            Device(ifindex=7, queue=0, ring_size=512, interface="v0"),
            Device(ifindex=7, queue=1, busy_poll=True, interface="v0"),
        ]
        rows: tuple[Placement, ...] = ()
        kernel = Kernel()
        if "fallback" in sys.argv:
            rows = (Placement(Protocol.TCP, (6379, 6379), Backend.BYPASS, Backend.KERNEL),)
            kernel = Kernel(Wanted.FALLBACK, sqpoll=True)
        self.handover = Handover(
            devices, (40000, 40099), rows, kernel, eal=["--no-pci", "-m 64"], lenient=bool(rows)
        )
        self.sockets: Sequence[socket.socket] = [socket.socket() for _ in devices]
        self.names = ["v0"]
        self.back = 0  # how often the interface has come back

    def amend(self, rows: Rows) -> Rows:
        return rows

    def enter(self, there: Sequence[bool]) -> None:
        say(entered=sum(there))
        if "enter-fails" in sys.argv:
            raise HybridError("the queues are taken", "try later", errno=16)
        for sock in self.sockets:
            sock.close()

    def enter_later(self, device: Device, sock: Descriptor) -> None:
        say(entered_later=device.queue)

    def incomplete(self, have: Collection[tuple[int, int]]) -> list[str]:
        return [] if {(7, 0), (7, 1)} <= set(have) or {(9, 0), (7, 1)} <= set(have) else ["v0"]

    def restore(self, name: str, have: Collection[tuple[int, int]]) -> list[tuple[Device, Descriptor]]:
        self.back += 1
        return [(Device(ifindex=9, queue=0, interface=name), socket.socket())] if self.back > 1 else []

    def settle_kernel_flows(self) -> bool:
        return False

    def steers(self, port: BoundPort) -> bool:
        return port.address.port == 6379


def launcher() -> int:
    mode = sys.argv[2]
    user = sys.argv[sys.argv.index("--user") + 1] if "--user" in sys.argv else None
    command = [sys.executable, __file__, "child", mode]
    run = Path(os.environ["FAKE_RUN"])

    def ready(service: InService) -> None:
        rings = service.devices[0][1].ring_size
        say(ready=service.pid, ports=[str(port) for port in service.ports], rings=rings)

    def warn(text: str) -> None:
        say(warning=text)

    outlives = "outlives" in sys.argv
    launch = Launch(
        command, FakePath(), dict(os.environ), ready, warn, user, outlives, {}, lambda: Record(run)
    )
    try:
        code = launch.run()
    except HybridError as error:
        say(error=error.message, exit_code=int(error.exit_code))
        return int(error.exit_code)
    say(exit=code)
    return code


def send(control: socket.socket, kind: NoticeKind, port: int, in_kernel: bool = False) -> None:
    arg = TCP | (lib.HY_NOTICE_IN_KERNEL if in_kernel else 0)
    control.send(Notice(kind, 0, Address(None, port), arg).pack())


def child() -> int:
    mode = sys.argv[2]
    if mode == "exits":
        return 3
    control = socket.socket(fileno=int(os.environ["HYBRID_CONTROL"]))
    raw, fds, _flags, _address = socket.recv_fds(control, ffi.sizeof("hy_handover"), 20)
    handover = ffi.new("hy_handover *")
    ffi.memmove(handover, raw, len(raw))
    status = Path("/proc/self/status").read_text()
    capabilities = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    say(
        child=os.getpid(),
        fds=len(fds),
        queues=[handover.devices[i].queue for i in range(handover.ndevices)],
        ports=[handover.port_lo, handover.port_hi],
        rings=handover.devices[0].ring_size,
        eal=ffi.string(handover.eal).decode(),
        kernel=[handover.kernel.wanted, handover.kernel.sqpoll],
        rows=[
            [row.protocol, row.to, row.fallback, row.port_lo, row.port_hi]
            for row in (handover.placements[i] for i in range(handover.nplacements))
        ],
        capabilities=int(capabilities, 16),
        uid=os.getuid(),
    )
    stats = ffi.new("hy_stats_page *")
    stats.magic, stats.count, stats.pid = lib.HY_CONTROL_MAGIC, 1, os.getpid()
    stats.values[0] = 42
    os.pwrite(fds[1], bytes(ffi.buffer(stats)), 0)
    if mode == "nonsense":
        for size in (0, 1, 31, 33, 5000):
            control.send(b"\xff" * size) if size else None
        control.send(b"\xff" * 32)
        control.send(b"\xff" * ffi.sizeof("hy_ready"))
    send(control, NoticeKind.BOUND, 6379, bool(handover.kernel.wanted) and mode != "no-kernel")
    if mode == "unsteered":
        send(control, NoticeKind.BOUND, 9999)
    if mode == "ephemeral":
        send(control, NoticeKind.BOUND, 40001)
    ready = ffi.new("hy_ready *")
    ready.magic = lib.HY_CONTROL_MAGIC
    ready.ndevices = 1 if mode == "short" else handover.ndevices
    for i in range(handover.ndevices):
        ready.devices[i].afxdp.ring_size = 512
    ready.kernel = -95 if mode == "no-kernel" else 0 if handover.kernel.wanted else 1
    if mode == "partly":
        ready.devices[1].status = -95
    if mode == "hostile":
        ready.devices[1].status = ready.kernel = -(1 << 31)
        ready.devices[1].note = b"\x1b[2Jall is well\x07\xff"
        for port in range(1000, 2000):
            send(control, NoticeKind.BOUND, port, in_kernel=True)
    if mode == "hangup":
        signal.signal(signal.SIGHUP, lambda *_: say(hangup=True))
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control.send(bytes(ffi.buffer(ready)))
    go = ffi.new("hy_go *")
    answer = control.recv(ffi.sizeof("hy_go"))
    if not answer:
        return 9
    ffi.memmove(go, answer, len(answer))
    say(go=go.status)
    if go.status:
        return 5
    if mode == "unbinds":
        send(control, NoticeKind.UNBOUND, 6379)
        say(unbound=True)
    if mode == "loses":
        control.send(Notice(NoticeKind.DEVICE_LOST, 7, Address(None, 0), 0).pack())
        more = ffi.new("hy_handover_more *")
        given, more_fds, _flags, _address = socket.recv_fds(control, ffi.sizeof("hy_handover_more"), 2)
        ffi.memmove(more, given, len(given))
        say(more=[more.device.ifindex, more.device.queue, more.device.kind], more_fds=len(more_fds))
        attached = ffi.new("hy_attached *")
        attached.magic, attached.ifindex, attached.queue = lib.HY_CONTROL_MAGIC, more.device.ifindex, 0
        control.send(bytes(ffi.buffer(attached)))
    if mode == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "missing":
        peer = Address(ip_address("10.77.0.2"))
        control.send(Notice(NoticeKind.NEIGH_MISSING, int(os.environ["FAKE_IFINDEX"]), peer).pack())
    while True:
        time.sleep(60)


if __name__ == "__main__":
    sys.exit({"launcher": launcher, "child": child}[sys.argv[1]]())
