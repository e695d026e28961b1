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
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hybrid._native import ffi, lib
from hybrid.api.address import Address
from hybrid.errors import HybridError
from hybrid.host.notice import Notice, NoticeKind
from hybrid.launch.control import Device
from hybrid.launch.launcher import InService, Launch
from hybrid.launch.ports import BoundPort
from hybrid.launch.record import Record

TCP = 6


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")  # both ends share the pipe: a line is one write


class FakePath:
    """Two queues whose sockets are ordinary ones."""

    def __init__(self) -> None:
        self.devices = [Device(ifindex=7, queue=0, ring_size=512), Device(ifindex=7, queue=1, busy_poll=True)]
        self.sockets: Sequence[socket.socket] = [socket.socket() for _ in self.devices]
        self.names = ["v0"]
        self.ephemeral_ports = (40000, 40099)

    def enter(self) -> None:
        say(entered=len(self.sockets))
        if "enter-fails" in sys.argv:
            raise HybridError("the queues are taken", "try later", errno=16)
        for sock in self.sockets:
            sock.close()

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

    launch = Launch(command, FakePath(), dict(os.environ), ready, warn, user, {}, lambda: Record(run))
    try:
        code = launch.run()
    except HybridError as error:
        say(error=error.message, exit_code=int(error.exit_code))
        return int(error.exit_code)
    say(exit=code)
    return code


def send(control: socket.socket, kind: NoticeKind, port: int, ip: str | None = None) -> None:
    address = Address(ip_address(ip) if ip else None, port)
    control.send(Notice(kind, 0, address, TCP).pack())


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
    send(control, NoticeKind.BOUND, 6379)
    if mode == "unsteered":
        send(control, NoticeKind.BOUND, 9999)
    if mode == "ephemeral":
        send(control, NoticeKind.BOUND, 40001)
    ready = ffi.new("hy_ready *")
    ready.magic = lib.HY_CONTROL_MAGIC
    ready.ndevices = 1 if mode == "short" else handover.ndevices
    for i in range(handover.ndevices):
        ready.obtained[i].ring_size = 512
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
    if mode == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "missing":
        peer = Address(ip_address("10.77.0.2"))
        control.send(Notice(NoticeKind.NEIGH_MISSING, int(os.environ["FAKE_IFINDEX"]), peer).pack())
    while True:
        time.sleep(60)


if __name__ == "__main__":
    sys.exit({"launcher": launcher, "child": child}[sys.argv[1]]())
