"""Kernel sockets in Python: a shard without any device, and the kernel's own sockets as the other side."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

import hybrid


@pytest.fixture
def shard() -> Iterator[hybrid.Shard]:
    with hybrid.Shard(hybrid.Config(frames=1024, connections=64, sockets=128)) as opened:
        opened.attach_uring()
        yield opened


def test_what_was_obtained_is_told() -> None:
    with hybrid.Shard(hybrid.Config(frames=1024)) as opened:
        had = opened.attach_uring(hybrid.UringConfig(entries=64, buffers=128, zerocopy=hybrid.Zerocopy.NO))
        assert (had.entries, had.buffers, had.zerocopy, had.sqpoll) == (64, 128, False, False)
        with pytest.raises(hybrid.AttachError, match="already"):
            opened.attach_uring()


def test_a_wrong_configuration_says_what_is_wrong() -> None:
    with (
        hybrid.Shard(hybrid.Config(frames=1024)) as opened,
        pytest.raises(hybrid.AttachError, match="power of two"),
    ):
        opened.attach_uring(hybrid.UringConfig(entries=100))


def test_a_server_on_kernel_sockets_answers_an_ordinary_client(shard: hybrid.Shard) -> None:
    answers = []

    def ask(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"question")
            answers.append(plain.recv(100))

    with shard.socket() as listener:
        listener.bind("127.0.0.1:0").listen()
        client = threading.Thread(target=ask, args=(listener.local.port,))
        client.start()
        with listener.accept_wait() as conn:
            assert conn.backend is hybrid.Backend.KERNEL
            conn.send(conn.recv())
            while client.is_alive():
                shard.poll()
    assert answers == [b"question"]
    stats = shard.stats()
    assert (stats["kernel_in_bytes"], stats["kernel_out_bytes"]) == (8, 8)
    assert stats["kernel_opened_passive"] == 1


def test_a_client_on_kernel_sockets_asks_an_ordinary_server(shard: hybrid.Shard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain, shard.socket() as queue:
        queue.connect_wait(f"127.0.0.1:{plain.getsockname()[1]}")
        other, _ = plain.accept()
        other.sendall(b"hello")
        assert queue.recv() == b"hello"
        other.close()
        assert queue.recv() == b""
