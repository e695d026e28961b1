"""The key-value server's replies are Redis's, byte for byte.

The same streams go to Debian's redis-server, on a loopback port of its own, and to our engine
(``kv-engine``: the server without a network). What differs on purpose stands in ``DIFFERENCES``.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from select import select

import pytest

TOP = Path(__file__).resolve().parents[2]
STREAMS = 400

# What we answer otherwise than Redis 7.0, and why. No stream below contains any of it.
DIFFERENCES = {
    "limits": "a bulk string of 512 KiB, a command of 65,536 arguments, a client's name of 127 bytes",
    "a NUL byte in a line or a header": "Redis waits for ever behind it; for us it is a byte like any other",
    "a line of more than 64 KiB that comes at once": "Redis takes it if its end is read with it; we never do",
    "SET ... GET, KEEPTTL, EXAT, PXAT": "not offered: a syntax error",
    "commands that we do not have": "unknown command",
    "CLIENT SETINFO": "answered, as by Redis 7.2: client libraries send it unasked",
    "COMMAND, CONFIG GET, INFO, CLIENT ID": "the same shapes, about another server",
}


def engine() -> Path:
    """The program that the build made; HYBRID_BUILD names another build folder."""
    build = Path(os.environ.get("HYBRID_BUILD", TOP / "build"))
    program = build / "tests" / "kv" / "kv-engine"
    if not program.exists():
        pytest.skip(f"{program} is not built: meson compile -C {build}")
    return program


class Redis:
    """A redis-server of our own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                str(folder),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.ask(b"PING\r\n")
                return
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def ask(self, stream: bytes, expected_bytes: int = 0) -> bytes:
        """Everything it replies to the stream, until it closes the connection.

        It drops what it has not sent when it sees our end, so that comes only once as many bytes
        as expected have arrived, or nothing has for a second.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:

            def send() -> None:
                try:
                    client.sendall(stream)
                    if expected_bytes == 0:
                        client.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has closed already: a protocol error

            sender = threading.Thread(target=send)
            sender.start()
            replies = bytearray()
            ended = expected_bytes == 0
            try:
                while True:
                    if not ended and (len(replies) >= expected_bytes or not select([client], [], [], 1)[0]):
                        sender.join()
                        client.shutdown(socket.SHUT_WR)
                        ended = True
                    more = client.recv(1 << 16)
                    if not more:
                        break
                    replies += more
            except OSError:
                pass  # it closed with input unread: what it replied has come before
            sender.join()
        return bytes(replies)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    server = Redis(tmp_path_factory.mktemp("redis"))
    try:
        yield server
    finally:
        server.close()


def ours(stream: bytes, piece: int = 0, sink: int = 0) -> bytes:
    done = subprocess.run(
        [engine(), str(piece), str(sink)], input=stream, capture_output=True, timeout=60, check=True
    )
    return done.stdout


def compare(redis: Redis, stream: bytes, piece: int = 0, sink: int = 0) -> None:
    redis.ask(b"FLUSHALL\r\n")
    mine = ours(stream, piece, sink)
    theirs = redis.ask(stream, len(mine))
    assert mine == theirs, f"stream {stream[:2000]!r}, {piece=}, {sink=}"


def array(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def words(*commands: str) -> bytes:
    """Commands of plain words, as arrays."""
    return b"".join(array(*command.encode().split()) for command in commands)


# For INCR: the ends of the range, and what looks like a number and is none.
NUMBERS = [b"9223372036854775807", b"-9223372036854775808", b"-9223372036854775809", b"9" * 19, b"9" * 20]
NUMBERS += [b" 1", b"1 ", b"+1", b"01", b"-0", b"", b"0", b"1e3"]

HOSTILE = [
    b"*1\r\n$4\r\nPING\r\n",
    b"*-1\r\n*0\r\n\r\n\n \r\nPING\r\n",
    b"*1\rX$4\rXPINGXXPING\r\n",
    b"*1\r\n$4\r\nPINGxyPING\r\n",
    b"*2147483648\r\n",
    b"*99999999999999999999999\r\n",
    b"*+1\r\n",
    b"*01\r\n",
    b"* 1\r\n",
    b"*\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$-0\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*1\r\n*1\r\n",
    b"*1\r\n\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n\xff\r\n",
    b"*1\n$4\nPING\n",
    b"*1\r\n$4\r\nPI",
    b"*1\r\n$0\r\n\r\n",
    b"*2\r\n$0\r\n\r\n$0\r\n\r\n",
    b"$4\r\nPING\r\n",
    b"GET a\rb\r\n",
    b"PING\r",
    b"PING\r\r\n",
    b"ECHO 'a\\'b'\r\nECHO \"\\x4a\\x4\\xzz\\q\"\r\n",
    b'ECHO "a\\\r\n',
    b"ECHO 'a\r\n",
    b"ECHO 'a'b\r\n",
    b"ECHO a'b'\r\nECHO a\"b\" c\r\n",
    b'"ping"\r\n',
    b"'' a\r\n",
    b"\x00PING\r\n"[1:],
    b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"host: x\r\nPING\r\n",
    b"QUIT now\r\nPING\r\n",
    b"\tPING\v\f\r\n",
    b"nosuch " + b"a" * 200 + b" b c\r\n",
    b"nosuch " + b" ".join(b"arg%d" % i for i in range(100)) + b"\r\n",
    array(b"x" * 300, b"y"),
    array(b"a\r\nb", b"c\nd\r"),
    array(b"a\0b", b"c\0d"),
    array(b"PING", b"\0\r\n"),
    array(b"get", b"k", b"k"),
    array(b"CONFIG"),
    array(b"CONFIG", b"nosuch"),
    array(b"CONFIG", b"GET"),
    array(b"CLIENT"),
    array(b"CLIENT", b"no\r\nsuch" + b"z" * 200),
    array(b"CLIENT", b"GETNAME", b"x"),
    array(b"COMMAND", b"COUNT", b"x"),
    array(b"DBSIZE", b"x"),
    array(b"FLUSHALL", b"async") + array(b"FLUSHALL", b"x") + array(b"FLUSHALL", b"sync", b"x"),
    words("SET k v EX 10 EX 20", "SET k v EX 10 PX 20"),
    words("SET k v NX NX", "SET k v NX XX"),
    words("SET k v EX 9223372036854775", "SET k v EX 9223372036854776"),
    words("SET k v PX 9223372036854775807", "SET k v PX 9223372036854775808"),
    words("SET k v EX -1", "SET k v EX", "SET k v XX EX x", "SET k v bogus"),
    array(b"SET", b"k", b"v", b"EX", b"") + array(b"SET", b"k", b"v", b""),
    array(b"SET", b"", b"") + array(b"GET", b"") + array(b"EXISTS", b"", b""),
    b"".join(array(b"SET", b"n", number) + array(b"INCR", b"n") for number in NUMBERS),
    words("MSET a 1 a 2", "MGET a a b", "MSET a 1 b"),
    b"x" * 70000,
    b"*1" + b"1" * 70000,
    b"*1\r\n$1" + b"1" * 70000,
    array(b"SET", b"k", b"\xff\0" * 262144) + array(b"GET", b"k"),
    b"".join(array(b"SET", b"k%d" % i, bytes([i]) * (i * 997)) for i in range(100))
    + array(b"MGET", *(b"k%d" % i for i in range(101))),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hand_written_streams(redis: Redis, number: int) -> None:
    compare(redis, HOSTILE[number])
    compare(redis, HOSTILE[number], piece=1447, sink=3000)
    if len(HOSTILE[number]) < 2000:
        compare(redis, HOSTILE[number], piece=1, sink=1)


KEYS = [b"a", b"b", b"key:%012d" % 7, b"", b"\xffbin\r\n"]
VALUES = [b"", b"0", b"1", b"-1", b"abc", b"9223372036854775807", b"x" * 100, b"y" * 5000, b"\r\n$3\r\n"]
OPTIONS = [b"NX", b"XX", b"EX", b"PX", b"nx", b"100000", b"0", b"-1", b"x"]
NAMES = b"PING ECHO GET SET DEL EXISTS INCR MGET MSET DBSIZE FLUSHALL nosuch CLIENT CONFIG".split()
# What kinds of arguments a command takes.
KINDS = {
    b"CLIENT": [[b"GETNAME", b"SETNAME", b"nosuch"], [b"me", b"a b", b""]],
    b"CONFIG": [[b"nosuch"]],
    b"DEL": [KEYS] * 2,
    b"ECHO": [VALUES],
    b"EXISTS": [KEYS] * 2,
    b"GET": [KEYS],
    b"INCR": [KEYS],
    b"MGET": [KEYS] * 3,
    b"MSET": [KEYS, VALUES, KEYS, VALUES],
    b"SET": [KEYS, VALUES],
}


def command(dice: random.Random) -> bytes:
    """A command: mostly well-formed, sometimes with a wrong number of arguments or a damaged byte."""
    name = dice.choice(NAMES)
    case = dice.choice([name, name.lower(), name.title()])
    line = [case, *(dice.choice(kind) for kind in KINDS.get(name, []))]
    if name == b"SET":
        line += dice.choices(OPTIONS, k=dice.choice([0, 0, 0, 1, 2, 3]))
    if dice.random() < 0.08:
        line = line[: dice.randrange(1, len(line) + 1)] + dice.choices(VALUES[:7], k=dice.randrange(3))
    if dice.random() < 0.2 and not any(set(w) & set(b"\0\r\n\"' ") or not w for w in line):
        return b" ".join(line) + dice.choice([b"\r\n", b"\n"])
    stream = array(*line)
    if dice.random() < 0.02:
        at = dice.randrange(len(stream))
        stream = stream[:at] + bytes([dice.randrange(1, 256)]) + stream[at + 1 :]
    return stream


@pytest.mark.parametrize("first", range(0, STREAMS, 25))
def test_random_streams(redis: Redis, first: int) -> None:
    for seed in range(first, first + 25):
        dice = random.Random(seed)
        stream = b"".join(command(dice) for _ in range(dice.randrange(1, 60)))
        compare(redis, stream, piece=dice.choice([0, 1, 7, 64, 1448]), sink=dice.choice([0, 1, 2000]))
