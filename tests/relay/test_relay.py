"""The relay between backends: the client and the target are the kernel's, the relay in the middle is ours."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import hybrid
from hybrid.bpf import Steering
from hybrid.lab import Lab
from tests.netns.peers import (
    CLIENT,
    KERNEL_PORT,
    MIB,
    PORT,
    RULES,
    SERVER,
    WITHIN_S,
    Listener,
    Peer,
    Received,
    address,
    random_bytes,
    until,
)

pytestmark = pytest.mark.netns

HYBRID = str(Path(sys.executable).with_name("hybrid"))
SERVE_RELAY = [HYBRID, "--output", "json", "serve", "relay", "--", "--port"]
PROGRAM = str(Path(hybrid.__file__).parent / "bin" / "hybrid-relay")
BACKENDS = ("bypass", "kernel")


class Relay:
    """``hybrid serve relay`` in the server's namespace; both its peers are in the client's."""

    def __init__(self, lab: Lab, listener: Listener, listen: str, connect: str, family: int = 4) -> None:
        self.lab = lab
        self.target = listener
        self.port = PORT if listen == "bypass" else KERNEL_PORT
        to = address(CLIENT[family], listener.port)
        self.process = lab.server.popen(
            [*SERVE_RELAY, str(self.port), "--to", to, "--listen", listen, "--connect", connect],
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stdout:
            if line.startswith("{") and json.loads(line).get("ready"):
                break

    def dial(self, family: int = 4) -> Peer:
        return Peer.dial(self.lab.client, SERVER[family], port=self.port)

    def pair(self, family: int = 4) -> tuple[Peer, Peer]:
        """The client's end and the target's of a relayed connection."""
        client = self.dial(family)
        return client, self.target.accept()

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=WITHIN_S)
        assert self.process.returncode == 0
        return str(said)


@pytest.fixture(scope="module")
def steered() -> Iterator[Lab]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(f"relay-{os.getpid()}"))
        # The kernel's own connections start from ports that no rule steers.
        lab.server.run(["sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=50000 60999"])
        steering = lab.server.call(lambda: Steering.attach(lab.server.interface, "generic"))
        stack.enter_context(steering)
        steering.replace_rules(RULES)
        yield lab
        steering.detach()


Start = Callable[..., Relay]


@pytest.fixture
def start(steered: Lab) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(listen: str, connect: str, family: int = 4) -> Relay:
            listener = stack.enter_context(Listener(steered.client))
            relay = Relay(steered, listener, listen, connect, family)
            stack.callback(lambda: relay.process.poll() is None and relay.end())
            return relay

        yield begin


@pytest.fixture(params=itertools.product(BACKENDS, BACKENDS), ids=" to ".join)
def relay(request: pytest.FixtureRequest, start: Start) -> Relay:
    return start(*request.param)


def send(peer: Peer, data: bytes) -> threading.Thread:
    """In a thread, with the end of the stream behind it."""
    thread = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
    thread.start()
    return thread


def test_bytes_cross_both_ways_at_once(relay: Relay) -> None:
    there, back = random_bytes(16 * MIB), random_bytes(8 * MIB + 1)
    client, target = relay.pair()
    with client, target:
        threads = [send(client, there), send(target, back)]
        received: list[Received] = []
        threads.append(threading.Thread(target=lambda: received.append(client.read_all())))
        threads[-1].start()
        assert target.read_all() == Received.of(there)
        for thread in threads:
            thread.join(WITHIN_S)
    assert received == [Received.of(back)]
    assert "1 connections relayed, 0 refused" in relay.end()


@pytest.mark.parametrize("listen", BACKENDS)
def test_ipv6_is_relayed(start: Start, listen: str) -> None:
    relay = start(listen, "kernel" if listen == "bypass" else "bypass", family=6)
    client, target = relay.pair(family=6)
    with client, target:
        client.send_all(b"over six")
        client.end()
        assert target.read_all() == Received.of(b"over six")


def test_a_side_that_has_ended_still_receives(relay: Relay) -> None:
    for first, second in ((0, 1), (1, 0)):
        ends = relay.pair()
        with ends[0], ends[1]:
            ends[first].send_all(b"question")
            ends[first].end()
            assert ends[second].read_all() == Received.of(b"question")
            answer = random_bytes(MIB)
            send(ends[second], answer).join(WITHIN_S)
            assert ends[first].read_all() == Received.of(answer)


def test_a_reset_on_one_side_resets_the_other(relay: Relay) -> None:
    for first, second in ((0, 1), (1, 0)):
        ends = relay.pair()
        with ends[second]:
            ends[first].send_all(b"x")
            assert ends[second].sock.recv(1) == b"x"
            ends[first].reset()
            with pytest.raises(ConnectionResetError):
                ends[second].read_all()


def test_where_nobody_listens_the_client_is_reset(relay: Relay) -> None:
    relay.target.sock.close()
    with pytest.raises(ConnectionResetError), relay.dial() as client:
        client.read_all()
    assert "0 connections relayed, 1 refused" in relay.end()


def unsent(peer: Peer) -> int:
    """Bytes in the kernel's send queue: SIOCOUTQ."""
    return int(struct.unpack("i", fcntl.ioctl(peer.sock, 0x5411, b"\0" * 4))[0])


def test_a_reader_that_does_not_read_stops_the_sender(relay: Relay) -> None:
    data = random_bytes(64 * MIB)
    client, target = relay.pair()
    with client, target:
        sent = 0
        client.sock.setblocking(False)
        moved = [-1]

        def stuck() -> bool:
            """Whether nothing more was taken for a while, with bytes waiting at the sender."""
            nonlocal sent
            before = sent
            try:
                while sent < len(data):
                    sent += client.sock.send(memoryview(data)[sent : sent + 65536])
            except BlockingIOError:
                pass
            moved.append(sent - unsent(client))
            return sent == before and len(moved) > 50 and moved[-1] == moved[-50]

        until(stuck, "a sender that is held back")
        assert sent < len(data) - 16 * MIB
        client.sock.settimeout(WITHIN_S)
        thread = send(client, data[sent:])
        assert target.read_all() == Received.of(data)
        thread.join(WITHIN_S)


def test_many_connections_at_once(relay: Relay) -> None:
    with ExitStack() as stack:
        pairs = []
        for _ in range(100):
            client, target = relay.pair()
            pairs.append((stack.enter_context(client), stack.enter_context(target)))
        for number, (client, _) in enumerate(pairs):
            client.send_all(number.to_bytes(4, "big") * 1000)
            client.end()
        for number, (client, target) in enumerate(pairs):
            assert target.read_all() == Received.of(number.to_bytes(4, "big") * 1000)
            target.end()
            assert client.read_all().count == 0
    assert "100 connections relayed, 0 refused" in relay.end()


def test_without_a_datapath_it_relays_between_kernel_sockets_or_says_what_to_do(steered: Lab) -> None:
    with Listener(steered.client) as listener:
        command = [PROGRAM, "--port", "7200", "--to", address(CLIENT[4], listener.port)]
        refused = steered.server.run([*command, "--listen", "bypass"], check=False)
        assert refused.returncode == 1
        assert "hybrid serve relay" in refused.stderr
        process = steered.server.popen(
            [
                "setpriv",
                "--bounding-set=-all",
                "--reuid=65534",
                "--clear-groups",
                "--inh-caps=-all",
                *command,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "listening" in process.stdout.readline()
        with Peer.dial(steered.client, SERVER[4], port=7200) as client, listener.accept() as target:
            client.send_all(b"no privilege")
            client.end()
            assert target.read_all() == Received.of(b"no privilege")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--port 80",
        "--port 80 --to 10.0.0.1",
        "--port 80 --to x:1",
        "--port 80 --to 10.0.0.1:1 --listen x",
    ],
)
def test_what_makes_no_sense_is_refused(steered: Lab, arguments: str) -> None:
    done = steered.server.run([PROGRAM, *arguments.split()], check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
