"""An end that is the kernel: plain sockets, driven by one asyncio loop whose thread lives in a namespace."""

from __future__ import annotations

import asyncio
import functools
import random
import socket
import struct
import threading
import zlib
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from hybrid.lab import netns
from tests.backends.harness.ends import Outcome, Pending, Sock, at

__all__ = ["KernelEnd", "KernelSock"]

_PIECE = 256 << 10


@functools.cache
def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def parse(address: str) -> tuple[str, int]:
    """ "10.0.0.1:80", "[fd77::1]:80"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Flow:
    """What a socket has moved one way."""

    total = crc = 0

    def add(self, data: bytes | memoryview) -> None:
        self.total += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def outcome(self, count: int, ended: bool = False, peer: str = "") -> Outcome:
        return Outcome(bytes=count, total=self.total, crc=self.crc, ended=ended, peer=peer)


class KernelSock(Sock):
    """A socket of the kernel's; which family, its first address tells."""

    number = 0

    def __init__(self, end: KernelEnd, kind: socket.SocketKind, made: socket.socket | None = None) -> None:
        self.end = end
        self.kind = kind
        self._made = made
        self._in, self._out = Flow(), Flow()
        # asyncio knows one reader and one writer of a descriptor: the others wait for their turn.
        self._reading, self._writing = asyncio.Lock(), asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def sock(self) -> socket.socket:
        assert self._made is not None
        return self._made

    def _make(self, address: str) -> tuple[str, int]:
        where = parse(address)
        if self._made is None:
            family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET

            async def make() -> socket.socket:  # in the loop's thread, whose namespace it is born in
                return socket.socket(family, self.kind)

            self._made = self.end.run(make())
            self._made.setblocking(False)
        return where

    def _later(self, work: Coroutine[Any, Any, Outcome], what: str) -> Pending:
        async def kept() -> Outcome:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                return await told(work)
            finally:
                self._tasks.discard(task)

        return Pending(self.end.start(kept()), f"the kernel's {what}")

    def bind(self, address: str, expected: int = 0) -> None:
        where = self._make(address)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(where)

    def listen(self, backlog: int = 128, expected: int = 0) -> None:
        self.sock.listen(backlog)

    def accept(self) -> tuple[KernelSock, Pending]:
        fresh = self.end.keep(KernelSock(self.end, self.kind))

        async def work() -> Outcome:
            async with self._reading:
                fresh._made, peer = await self.end.loop.sock_accept(self.sock)
            return Outcome(peer=at(peer[0], peer[1]))

        return fresh, self._later(work(), "accept")

    def connect(self, address: str) -> Pending:
        where = self._make(address)

        async def work() -> Outcome:
            await self.end.loop.sock_connect(self.sock, where)
            return Outcome()

        return self._later(work(), "connect")

    def push(self, count: int, piece: int = 0) -> Pending:
        data = memoryview(random_bytes(count))

        async def work() -> Outcome:
            step = piece or _PIECE
            async with self._writing:
                for start in range(0, count, step):
                    await self.end.loop.sock_sendall(self.sock, data[start : start + step])
                    self._out.add(data[start : start + step])
            return self._out.outcome(count)

        return self._later(work(), f"push of {count} bytes")

    def pop(self, count: int = 0, *, hold: bool = False) -> Pending:
        async def work() -> Outcome:
            buffer = memoryview(bytearray(_PIECE))
            have, got = 0, -1
            async with self._reading:
                while got != 0 and (count == 0 or have < count):
                    most = min(_PIECE, count - have) if count else _PIECE
                    got = await self.end.loop.sock_recv_into(self.sock, buffer[:most])
                    self._in.add(buffer[:got])
                    have += got
            return self._in.outcome(have, ended=got == 0)

        return self._later(work(), f"pop of {count or 'all'} bytes")

    def echo(self) -> Pending:
        async def work() -> Outcome:
            have = 0
            while data := await self.end.loop.sock_recv(self.sock, _PIECE):
                self._in.add(data)
                have += len(data)
                await self.end.loop.sock_sendall(self.sock, data)
            self.sock.shutdown(socket.SHUT_WR)
            return self._in.outcome(have, ended=True)

        return self._later(work(), "echo")

    def send(self, count: int, to: str = "") -> Pending:
        data = random_bytes(count)
        where = self._make(to) if to else None

        async def work() -> Outcome:
            self._out.add(data)
            async with self._writing:
                if where:
                    await self.end.loop.sock_sendto(self.sock, data, where)
                else:
                    await self.end.loop.sock_sendall(self.sock, data)
            return self._out.outcome(count)

        return self._later(work(), f"datagram of {count} bytes")

    def receive(self) -> Pending:
        async def work() -> Outcome:
            async with self._reading:
                data, peer = await self.end.loop.sock_recvfrom(self.sock, 65536)
            self._in.add(data)
            return self._in.outcome(len(data), peer=at(peer[0], peer[1]))

        return self._later(work(), "receive")

    def reflect(self) -> Pending:
        async def work() -> Outcome:
            while True:
                data, peer = await self.end.loop.sock_recvfrom(self.sock, 65536)
                await self.end.loop.sock_sendto(self.sock, data, peer)

        return self._later(work(), "reflection")

    def shutdown(self, expected: int = 0) -> None:
        async def work() -> None:  # after what was asked before
            self.sock.shutdown(socket.SHUT_WR)

        self.end.run(work())

    def close(self, expected: int = 0) -> None:
        self.end.run(self._close())

    async def _close(self) -> Outcome:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # they have let go of the socket
        if self._made is not None:
            self._made.close()
        return Outcome()

    def abort(self, expected: int = 0) -> None:
        if self._made is not None and self._made.fileno() >= 0 and self.kind is socket.SOCK_STREAM:
            self._made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def local(self) -> str:
        return at(*self.sock.getsockname()[:2])

    def peer(self) -> str:
        return at(*self.sock.getpeername()[:2])


async def told(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """An error of the socket as a status."""
    try:
        return await work
    except OSError as error:
        return Outcome(status=-(error.errno or 0))


class KernelEnd:
    """The kernel's sockets in one namespace."""

    alive = True

    def __init__(self, namespace: str, addresses: dict[int, str]) -> None:
        self.name = "kernel"
        self.addresses = addresses
        self._sockets: list[KernelSock] = []
        self.loop = asyncio.new_event_loop()
        self._entered: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, args=(namespace,), name=f"kernel of {namespace}")
        self._thread.start()
        self._entered.result()

    def __repr__(self) -> str:
        return "<kernel>"

    def _live(self, namespace: str) -> None:
        try:
            netns.enter(namespace)
        except BaseException as error:
            self._entered.set_exception(error)
            return
        self._entered.set_result(None)
        self.loop.run_forever()
        self.loop.close()

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """A coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What it returns."""
        return self.start(work).result()

    def keep(self, sock: KernelSock) -> KernelSock:
        self._sockets.append(sock)
        return sock

    def stream(self) -> KernelSock:
        return self.keep(KernelSock(self, socket.SOCK_STREAM))

    def datagram(self) -> KernelSock:
        return self.keep(KernelSock(self, socket.SOCK_DGRAM))

    def tidy(self) -> None:
        for sock in self._sockets:
            sock.abort()
        self._sockets.clear()

    def stop(self) -> None:
        self.tidy()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
