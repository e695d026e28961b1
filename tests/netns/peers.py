"""What test_peers.py needs: our program in service in a lab, and the kernel's peers on the other side."""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from hybrid.bpf import Counters, Steering
from hybrid.lab import Lab, link, netns
from hybrid.lab.side import Side
from hybrid.policy.rule import Protocol, Rule, Target

HYBRID = str(Path(sys.executable).with_name("hybrid"))
BUILD = Path(os.environ.get("HYBRID_BUILD", Path(__file__).resolve().parents[2] / "build"))
APP = BUILD / "tests" / "netns" / "peer-app"
PORT = 7000
SILENT_PORT = 7001  # steered to us, and nobody listens
KERNEL_PORT = 7100  # no rule names it
EPHEMERAL = (40000, 49999)
WITHIN_S = 60.0
MIB = 1 << 20
SO_ATTACH_FILTER, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 26, 32, 33
SOL_PACKET, PACKET_IGNORE_OUTGOING, ETH_P_ALL = 263, 23, 3

RULES = (
    Rule("served", 20, Target.AFXDP, Protocol.TCP, ports=(PORT, SILENT_PORT)),
    Rule("datagrams", 20, Target.AFXDP, Protocol.UDP, ports=(PORT, PORT)),
    Rule("replies", 10, Target.AFXDP, Protocol.TCP, ports=EPHEMERAL),
    Rule("datagram replies", 10, Target.AFXDP, Protocol.UDP, ports=EPHEMERAL),
)

SERVER = {4: "10.77.0.1", 6: "fd77::1"}
CLIENT = {4: "10.77.0.2", 6: "fd77::2"}


def until(condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """What the condition returns once it is true; looked at again and again, as nobody tells."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it never came to {what}"
        time.sleep(0.01)
    return value


# ---- our side ------------------------------------------------------------------------------------


class App:
    """``hybrid run -- peer-app PORT`` in the server's namespace, with its orders and what it tells."""

    def __init__(self, lab: Lab, log: Path, mode: str = "native") -> None:
        self._begin(lab, log)
        with self.steering(lambda: Steering.attach(self.side.interface, mode)) as steering:
            self.mode = str(steering.obtained.mode)
            steering.replace_rules(RULES)
        self.start()

    def _begin(self, lab: Lab, log: Path) -> None:
        self.lab = lab
        self.side = lab.server
        self.log = log
        self._told: dict[str, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._serial = 0
        self._ended = False

    def _spawn(self, command: Sequence[str]) -> None:
        """Starts it and listens to what it tells."""
        self._ended = False
        self._told.clear()
        with self.log.open("ab") as errors:
            self.launcher = self.side.popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, args=(self.launcher.stdout,), daemon=True)
        self._reader.start()

    @contextmanager
    def steering(self, make: Callable[[], Steering] | None = None) -> Iterator[Steering]:
        """The steering of our interface."""
        steering = self.side.call(make or (lambda: Steering.open(self.side.interface)))
        with steering:
            yield steering

    def start(self) -> None:
        """Returns when it is in service."""
        self._spawn([HYBRID, "--output", "json", "run", "--", str(APP), str(PORT)])
        assert self.result("")["status"] == 0
        self.pid = int(self.result("ready")["pid"])

    def _read(self, lines: Any) -> None:
        for line in lines:
            document = json.loads(line)
            key = "ready" if "ready" in document else str(document.get("id", "launcher"))
            with self._news:
                self._told[key] = document
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def order(self, *words: object) -> None:
        self.launcher.stdin.write(" ".join(map(str, words)) + "\n")
        self.launcher.stdin.flush()

    def result(self, key: object, within_s: float = WITHIN_S) -> dict[str, Any]:
        """How the connection ended that was ours by that name, or came from that port."""
        with self._news:
            self._news.wait_for(lambda: str(key) in self._told or self._ended, within_s)
            told = self._told.get("launcher", self.log.read_text())
            assert str(key) in self._told, f"nothing was told of {key!r}: {told}"
            return self._told.pop(str(key))

    def name(self) -> str:
        self._serial += 1
        return f"c{self._serial}"

    def connect(self, where: str, order: str, port: int) -> str:
        """Has it connect to a kernel's server; the name to ask :meth:`result` for."""
        name = self.name()
        self.order("connect", name, address(where, port), order)
        return name

    def stats(self) -> dict[str, int]:
        name = self.name()
        self.order("stats", name)
        return self.result(name)

    def counters(self) -> Counters:
        with self.steering() as steering:
            return steering.counters()

    def in_service(self) -> list[int]:
        with self.steering() as steering:
            return steering.sockets()

    def stop(self) -> int:
        """By the end of its standard input."""
        self.launcher.stdin.close()
        code = int(self.launcher.wait(WITHIN_S))
        self._reader.join(WITHIN_S)
        self.launcher.stdout.close()
        return code

    def drop(self) -> None:
        """Lets go of the pipes of a launcher that has ended or is about to."""
        if not self.launcher.stdin.closed:
            self.launcher.stdin.close()
        self._reader.join(WITHIN_S)
        self.launcher.stdout.close()

    def detach(self) -> None:
        with self.steering() as steering:
            steering.detach()


def address(where: str, port: int) -> str:
    return f"[{where}]:{port}" if ":" in where else f"{where}:{port}"


# ---- a bad wire --------------------------------------------------------------------------------------


class BadWire:
    """A hop between the lab's two sides that loses, delays and doubles frames, by dice that it was given.

    ::

        server hys0 <--> hyc0 [this] m0 <--> m1 far
                         in client          has the client's addresses now
    """

    def __init__(self, lab: Lab, seed: int) -> None:
        self.far = Side(f"{lab.name}-far", "m1", lab.client.network4, lab.client.network6)
        self.lab = lab
        self.dice = random.Random(seed)
        self.lost = self.late = self.doubled = 0
        self.bad = False
        netns.create(self.far.namespace)
        self.far.call(link.prepare_namespace)
        client = lab.client
        client.run(["ip", "addr", "flush", "dev", client.interface])
        make = partial(link.make_pair, "m0", "m1", netns.path_of(self.far.namespace), 1, "a bad wire")
        client.call(make)
        client.call(partial(link.set_up, "m0", 1500, ()))
        self.far.call(partial(link.set_up, "m1", 1500, (self.far.network4, self.far.network6)))
        self.far.call(partial(link.wait_until_running, "m1"))
        self._ends = [client.call(partial(_packet_socket, name)) for name in (client.interface, "m0")]
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        held: list[tuple[socket.socket, bytes]] = []
        other = {self._ends[0]: self._ends[1], self._ends[1]: self._ends[0]}
        poller = select.poll()
        for sock in (*self._ends, self._stopped):
            poller.register(sock, select.POLLIN)
        by_fd = {sock.fileno(): sock for sock in self._ends}
        while True:
            # What is held back goes on after what comes next, or after a moment.
            ready = poller.poll(2 if held else None)
            if any(fd not in by_fd for fd, _ in ready):
                return
            late, held = held, []
            for fd, _ in ready:
                for _ in range(64):
                    try:
                        frame = by_fd[fd].recv(2048)
                    except BlockingIOError:
                        break
                    roll = self.dice.random() if self.bad else 1.0
                    to = other[by_fd[fd]]
                    if roll < 0.01:
                        self.lost += 1
                    elif roll < 0.02:
                        self.late += 1
                        held.append((to, frame))
                    else:
                        to.send(frame)
                        if roll < 0.03:
                            self.doubled += 1
                            to.send(frame)
            for to, frame in late:
                to.send(frame)

    def remove(self) -> None:
        self._stop.close()
        self._thread.join()
        for sock in (*self._ends, self._stopped):
            sock.close()
        netns.remove(self.far.namespace)


def _packet_socket(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
        sock.setsockopt(socket.SOL_SOCKET, option, 16 * MIB)
    sock.bind((interface, ETH_P_ALL))
    return sock


# ---- the kernel's side -----------------------------------------------------------------------------


class Peer:
    """A TCP socket of the kernel's."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(WITHIN_S)
        self.port = 0  # of our end, once connected

    @classmethod
    def dial(cls, side: Side, where: str, order: str = "", port: int = PORT) -> Peer:
        """To our server, with an order."""
        family = socket.AF_INET6 if ":" in where else socket.AF_INET
        peer = cls(side.call(lambda: socket.socket(family, socket.SOCK_STREAM)))
        try:
            peer.sock.connect((where, port))
            peer.port = int(peer.sock.getsockname()[1])
            if order:
                peer.sock.sendall(order.encode() + b"\n")
        except BaseException:
            peer.close()
            raise
        return peer

    def send_all(self, data: bytes | memoryview) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def read_all(self) -> Received:
        """To the end of the stream."""
        buffer = memoryview(bytearray(256 << 10))
        crc = count = 0
        while got := self.sock.recv_into(buffer):
            crc = zlib.crc32(buffer[:got], crc)
            count += got
        return Received(count, crc)

    def answer(self) -> Received:
        """What our side says that it took."""
        text = b""
        while more := self.sock.recv(256):
            text += more
        crc, count = text.split()
        return Received(int(count), int(crc))

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def probing(self) -> bool:
        """Whether the kernel probes our closed window: tcpi_probes of struct tcp_info."""
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[3] > 0

    def waiting(self) -> bool:
        """Whether it waits for a time-out to send again: tcpi_backoff."""
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[4] > 0

    def lose(self, per_mille: int) -> None:
        """Has the kernel drop so many of the segments that arrive for this socket, by its own dice."""
        # ld #random; jlt #threshold, drop; ret #whole packet; drop: ret #0 (linux/filter.h, SKF_AD_RANDOM)
        program = b"".join(
            struct.pack("HBBI", *instruction)
            for instruction in (
                (0x20, 0, 0, 0xFFFFF000 + 56),
                (0x35, 0, 1, (per_mille << 32) // 1000),
                (0x06, 0, 0, 0xFFFFFFFF),
                (0x06, 0, 0, 0),
            )
        )
        held = ctypes.create_string_buffer(program, len(program))
        self.sock.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 4, ctypes.addressof(held))
        )

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Received:
    """How much, and its CRC."""

    count: int
    crc: int

    @classmethod
    def of(cls, data: bytes) -> Received:
        return cls(len(data), zlib.crc32(data))


class Listener:
    """A listening socket of the kernel's, both families."""

    def __init__(self, side: Side, port: int = 0) -> None:
        def make() -> socket.socket:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)

        self.sock = side.call(make)
        self.sock.settimeout(WITHIN_S)

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    def accept(self) -> Peer:
        return Peer(self.sock.accept()[0])

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


@cache
def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def echo_many(socks: list[socket.socket], data: bytes) -> int:
    """Sends ``data`` on every socket at once and reads it back; how many came back whole."""
    sent = dict.fromkeys(socks, 0)
    crcs = dict.fromkeys(socks, 0)
    counts = dict.fromkeys(socks, 0)
    poller = select.poll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        sock.setblocking(False)
        poller.register(sock, select.POLLIN | select.POLLOUT)
    whole = 0
    deadline = time.monotonic() + WITHIN_S
    while by_fd and time.monotonic() < deadline:
        for fd, events in poller.poll(1000):
            sock = by_fd[fd]
            if events & select.POLLOUT:
                sent[sock] += sock.send(memoryview(data)[sent[sock] : sent[sock] + 65536])
                if sent[sock] == len(data):
                    sock.shutdown(socket.SHUT_WR)
                    poller.modify(sock, select.POLLIN)
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                piece = sock.recv(65536)
                counts[sock] += len(piece)
                crcs[sock] = zlib.crc32(piece, crcs[sock])
                if not piece:
                    whole += Received(counts[sock], crcs[sock]) == Received.of(data)
                    poller.unregister(sock)
                    del by_fd[fd]
    return whole


class Traffic:
    """The kernel's own traffic between the two sides: a TCP stream of echoes, and pings."""

    def __init__(self, lab: Lab) -> None:
        self.rounds = 0
        self.longest_s = 0.0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._listener = Listener(lab.server, KERNEL_PORT)
        self._ping = lab.client.popen(
            ["ping", "-i", "0.02", str(lab.server.ipv4)], stdout=subprocess.PIPE, text=True
        )
        self._client = Peer.dial(lab.client, str(lab.server.ipv4), port=self._listener.port)
        self._server = self._listener.accept()
        self._threads = [threading.Thread(target=self._give_back), threading.Thread(target=self._drive)]
        for thread in self._threads:
            thread.start()

    def _give_back(self) -> None:
        while data := self._server.sock.recv(65536):
            self._server.sock.sendall(data)

    def _drive(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                self._client.sock.sendall(b"x" * 1000)
                left = 1000
                while left:
                    left -= len(self._client.sock.recv(left)) or 1 << 30
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.rounds += 1
        except BaseException as error:
            self.failure = error

    def wait_for_more(self, rounds: int = 20) -> None:
        before = self.rounds
        until(lambda: self.rounds >= before + rounds or self.failure, "more rounds of the kernel's stream")

    def stop(self) -> tuple[int, int]:
        """Pings sent and answered."""
        self._stop.set()
        self._threads[1].join(WITHIN_S)
        self._client.end()
        self._threads[0].join(WITHIN_S)
        for peer in (self._client, self._server):
            peer.close()
        self._listener.sock.close()
        self._ping.send_signal(signal.SIGINT)
        said, _ = self._ping.communicate(timeout=WITHIN_S)
        words = next(line for line in said.splitlines() if "transmitted" in line).split()
        return int(words[0]), int(words[3])


# ---- meeting ------------------------------------------------------------------------------------------

# An order to our side and a family: the kernel's end of the connection, and what our side calls it.
Meet = Callable[..., tuple[Peer, str]]


def dial(app: App, order: str = "", family: int = 4, port: int = PORT) -> Peer:
    return Peer.dial(app.lab.client, SERVER[family], order, port)


def resets(app: App) -> int:
    stats = app.stats()
    return stats["tcp_resets_in"] + stats["tcp_resets_out"]
