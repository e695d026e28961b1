"""What the steering tests need of the host: a namespace with a veth pair, AF_XDP sockets, other programs."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SOL_XDP, AF_XDP = 283, 44
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 1, 2, 4, 5, 6
XDP_COPY = 1 << 1
FRAME, FRAMES = 4096, 64

libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread in the network namespace; the mount namespace stays as it is."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.setns(there, 0x40000000) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(home, 0x40000000) == 0, os.strerror(ctypes.get_errno())
        os.close(there)
        os.close(home)


@dataclass
class Veth:
    """A namespace with a veth pair, both ends in it; ``near`` is the end that is steered."""

    namespace: str
    near: str = "near"
    far: str = "far"
    queues: int = 4

    def make(self) -> None:
        queues = ("numrxqueues", str(self.queues), "numtxqueues", str(self.queues))
        run("ip", "netns", "add", self.namespace)
        ip = ("ip", "-n", self.namespace)
        run(*ip, "link", "add", self.near, *queues, "type", "veth", "peer", "name", self.far, *queues)
        for name in (self.near, self.far):
            run(*ip, "link", "set", name, "addrgenmode", "none")
            run(*ip, "link", "set", name, "up")

    def remove(self) -> None:
        run("ip", "netns", "del", self.namespace, check=False)

    @contextmanager
    def sending(self, frame: bytes) -> Iterator[None]:
        """Another thread sends without a pause; what it sent has arrived, or never will, at the end."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.send(frame, 200)

        sender = threading.Thread(target=work)  # born in this thread's namespace
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()
            run("ip", "link", "set", self.far, "down")

    def listen(self) -> socket.socket:
        """Sees each frame that gets past the near end's XDP program."""
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3))
        tap.bind((self.near, 3))
        return tap

    def send(self, frame: bytes, times: int = 1) -> None:
        """Out of the far end. To be called inside the namespace."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind((self.far, 0))
            for _ in range(times):
                wire.send(frame)


@dataclass
class Xsk:
    """An AF_XDP socket with a UMEM of its own, and room for a few frames to arrive."""

    socket: socket.socket = field(default_factory=lambda: socket.socket(AF_XDP, socket.SOCK_RAW, 0))

    def __post_init__(self) -> None:
        self.umem = mmap.mmap(-1, FRAME * FRAMES)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.umem))
        self.set(XDP_UMEM_REG, struct.pack("QQIIII", address, FRAME * FRAMES, FRAME, 0, 0, 0))
        for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
            self.set(ring, struct.pack("I", FRAMES))

    def set(self, option: int, value: bytes) -> None:
        self.socket.setsockopt(SOL_XDP, option, value)

    def bind(self, ifname: str, queue: int) -> Xsk:
        address = struct.pack("HHIII", AF_XDP, XDP_COPY, socket.if_nametoindex(ifname), queue, 0)
        status = libc.bind(self.socket.fileno(), address, len(address))
        assert status == 0, os.strerror(ctypes.get_errno())
        return self

    def fill(self) -> Xsk:
        """Gives the kernel every frame."""
        offsets = struct.unpack("16Q", self.socket.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        producer, _consumer, descriptors, _flags = offsets[8:12]
        self.ring = mmap.mmap(self.fileno(), descriptors + FRAMES * 8, offset=0x1_0000_0000)
        for i in range(FRAMES):
            struct.pack_into("Q", self.ring, descriptors + 8 * i, i * FRAME)
        struct.pack_into("I", self.ring, producer, FRAMES)
        return self

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()


def compile_bpf(source: Path, out: Path, *flags: str) -> Path:
    clang = shutil.which("clang") or shutil.which("clang-14")
    assert clang, "clang builds the project"
    multiarch = run("cc", "-print-multiarch").strip()
    run(
        *(clang, "-O2", "-g", "-target", "bpf", *flags),
        *("-idirafter", f"/usr/include/{multiarch}", "-c", str(source), "-o", str(out)),
    )
    return out
