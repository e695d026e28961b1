"""The example servers on the real thing: our TCP stack over AF_XDP, kernel clients on the other side."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from select import select

import pytest

import hybrid
from hybrid.lab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

PROGRAMS = Path(hybrid.__file__).parent / "bin"
PORT = 6379
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(lab: Lab) -> Iterator[Start]:
    """``start("hybrid-kv", "--max-clients", "4")``: the program in service on PORT of the server's side."""
    running: list[subprocess.Popen[str]] = []

    def begin(program: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("serve.py")), lab.server.interface, str(PORT)]
        process = lab.server.popen(
            [*command, str(PROGRAMS / program), "--port", str(PORT), *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        assert any(line.startswith("ready") for line in lines), lines
        return process

    yield begin
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, "a server ends in order when it is asked to"


def connect(lab: Lab, ip: IPv4Address | IPv6Address, *, timeout: float = 30) -> socket.socket:
    return lab.client.call(lambda: socket.create_connection((str(ip), PORT), timeout=timeout))


def receive(client: socket.socket, n: int) -> bytes:
    data = bytearray()
    while len(data) < n:
        more = client.recv(min(1 << 16, n - len(data)))
        assert more, f"closed after {len(data)} of {n} bytes: {bytes(data[-100:])!r}"
        data += more
    return bytes(data)


def array(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def test_redis_cli_and_redis_benchmark_find_a_redis(lab: Lab, start: Start) -> None:
    start("hybrid-kv")
    for ip in (str(lab.server.ipv4), str(lab.server.ipv6)):
        cli = ["redis-cli", "-h", ip]
        assert lab.client.run([*cli, "SET", "k", "hello"]).stdout == "OK\n"
        assert lab.client.run([*cli, "GET", "k"]).stdout == "hello\n"
        assert "unknown command" in lab.client.run([*cli, "LPUSH", "k", "v"]).stdout
        for pipeline in ("1", "16"):
            bench = lab.client.run(
                [
                    "redis-benchmark",
                    "-h",
                    ip,
                    "-t",
                    "set,get",
                    "-c",
                    "50",
                    "-n",
                    "5000",
                    "-P",
                    pipeline,
                    "--csv",
                ]
            )
            assert [line.split(",")[0] for line in bench.stdout.splitlines()] == ['"test"', '"SET"', '"GET"']
            assert "WARNING" not in bench.stderr


def test_an_interactive_redis_cli_starts_without_complaint(lab: Lab, start: Start) -> None:
    """It asks COMMAND DOCS first, for its hints, and is picky about the answer."""
    start("hybrid-kv")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        environ = {**os.environ, "TERM": "xterm", "HOME": "/nonexistent"}
        command = ["redis-cli", "-h", str(lab.server.ipv4)]
        cli = lab.client.popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        shown = b""
        for typed, answer in ((b"", b""), (b"ping\r", b"PONG"), (b"help dbsize\r", b"Counts the keys")):
            terminal.write(typed)
            # Up to the next prompt, as a person does: what is typed before it is thrown away (TCSAFLUSH).
            while answer not in shown or b"6379> " not in shown[shown.rindex(answer) if answer else 0 :]:
                assert select([terminal], [], [], 10)[0], shown
                shown += terminal.read(4096)
        terminal.write(b"exit\r")
        assert cli.wait(10) == 0
    assert b"rror" not in shown


def test_values_to_512_kib_come_back_as_they_were(lab: Lab, start: Start) -> None:
    start("hybrid-kv")
    dice = random.Random(1)
    for ip in (lab.server.ipv4, lab.server.ipv6):
        with connect(lab, ip) as client:
            for size in (0, 1, 1447, 1448, 1449, 65536, 512 * 1024):
                value = dice.randbytes(size)
                client.sendall(array(b"SET", b"k", value) + array(b"GET", b"k"))
                assert receive(client, 5) == b"+OK\r\n"
                header = b"$%d\r\n" % size
                reply = receive(client, len(header) + size + 2)
                assert reply.startswith(header)
                assert hashlib.sha256(reply[len(header) : -2]).digest() == hashlib.sha256(value).digest()
            client.sendall(array(b"SET", b"k", b"x" * (512 * 1024 + 1)))
            assert receive(client, 42) == b"-ERR Protocol error: invalid bulk length\r\n"


def test_a_client_that_does_not_read_stops_nobody_and_loses_nothing(lab: Lab, start: Start) -> None:
    start("hybrid-kv")
    value, count = os.urandom(400_000), 60
    with connect(lab, lab.server.ipv4) as slow, connect(lab, lab.server.ipv4) as other:
        slow.sendall(array(b"SET", b"k", value))
        assert receive(slow, 5) == b"+OK\r\n"
        sender = threading.Thread(target=slow.sendall, args=(array(b"GET", b"k") * count,))
        sender.start()
        for number in range(200):
            other.sendall(array(b"INCR", b"n"))
            assert receive(other, len(b":%d\r\n" % (number + 1))) == b":%d\r\n" % (number + 1)
        other.sendall(array(b"SET", b"k", b"another"))
        assert receive(other, 5) == b"+OK\r\n"
        whole = b"$400000\r\n" + value + b"\r\n"
        got, changed = 0, 0
        while got + changed < count:
            header = receive(slow, 4)
            if header == b"$400":
                assert header + receive(slow, len(whole) - 4) == whole
                assert changed == 0
                got += 1
            else:
                assert header + receive(slow, 9) == b"$7\r\nanother\r\n"
                changed += 1
        sender.join()
        assert got > 0


def test_one_client_too_many_is_told_and_others_stay(lab: Lab, start: Start) -> None:
    start("hybrid-kv", "--max-clients", "4")
    clients = [connect(lab, lab.server.ipv4) for _ in range(4)]
    for client in clients:
        client.sendall(b"PING\r\n")
        assert receive(client, 7) == b"+PONG\r\n"
    with connect(lab, lab.server.ipv4) as fifth:
        assert receive(fifth, 36) == b"-ERR max number of clients reached\r\n"
        assert fifth.recv(1) == b""
    clients.pop().close()
    deadline = time.monotonic() + 10
    while True:  # the server sees the end of the fourth in its own time
        with connect(lab, lab.server.ipv4) as again:
            again.sendall(b"PING\r\n")
            if receive(again, 7) == b"+PONG\r\n":
                break
        assert time.monotonic() < deadline
    for client in clients:
        client.sendall(b"PING\r\n")
        assert receive(client, 7) == b"+PONG\r\n"
        client.close()


def test_the_last_reply_arrives_though_the_client_keeps_sending(lab: Lab, start: Start) -> None:
    start("hybrid-kv")
    for request, reply in (
        (b"QUIT\r\n", b"+OK\r\n"),
        (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    ):
        with connect(lab, lab.server.ipv4) as client:
            client.sendall(request + b"x" * 200_000)
            assert receive(client, len(reply)) == reply
            assert client.recv(1) == b""


def test_hundreds_of_connections_at_once(lab: Lab, start: Start) -> None:
    start("hybrid-kv")
    clients = [connect(lab, lab.server.ipv4) for _ in range(300)]
    for number, client in enumerate(clients):
        client.sendall(array(b"SET", b"%d" % number, b"x" * number))
    for number, client in enumerate(clients):
        assert receive(client, 5) == b"+OK\r\n"
        client.sendall(array(b"GET", b"%d" % number))
    for number, client in enumerate(clients):
        expected = b"$%d\r\n%s\r\n" % (number, b"x" * number)
        assert receive(client, len(expected)) == expected
        client.close()


def test_echo_gives_back_every_byte_also_to_a_client_that_reads_late(lab: Lab, start: Start) -> None:
    start("hybrid-echo")
    for ip in (lab.server.ipv4, lab.server.ipv6):
        sent = os.urandom(8 << 20)
        with connect(lab, ip) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sender = threading.Thread(target=client.sendall, args=(sent,))
            sender.start()
            got = receive(client, len(sent))
            sender.join()
            assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


def test_echo_of_datagrams(lab: Lab, start: Start) -> None:
    start("hybrid-echo", "--udp")
    for family, ip in ((socket.AF_INET, lab.server.ipv4), (socket.AF_INET6, lab.server.ipv6)):
        with lab.client.call(lambda family=family: socket.socket(family, socket.SOCK_DGRAM)) as client:  # type: ignore[misc]
            client.settimeout(10)
            client.connect((str(ip), PORT))
            for size in (1, 64, 1400):
                sent = os.urandom(size)
                client.send(sent)
                assert client.recv(2000) == sent
