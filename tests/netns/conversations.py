"""What every device is held to with the kernel at the other end, in either role.

``meet`` is the fixture of that name: a connection on which our side does what it is told.
"""

from __future__ import annotations

import threading

from tests.netns.peers import App, Meet, Peer, Received, random_bytes


def kernel_sends(app: App, meet: Meet, family: int, size: int) -> None:
    """All of it arrives, and as it was."""
    data = random_bytes(size)
    peer, name = meet("take", family)
    with peer:
        peer.send_all(data)
        peer.end()
        assert peer.answer() == Received.of(data)
    assert app.result(name)["status"] == 0


def we_send(app: App, meet: Meet, family: int, size: int) -> None:
    """All of it arrives, and as it was."""
    peer, name = meet(f"send {size}", family)
    with peer:
        received = peer.read_all()
    ours = app.result(name)
    assert received == Received(size, ours["crc_out"])
    assert ours["status"] == 0


def echoed(peer: Peer, data: bytes) -> Received:
    """What comes back while it is still being sent."""
    sender = threading.Thread(target=lambda: (peer.send_all(data), peer.end()))
    sender.start()
    received = peer.read_all()
    sender.join()
    return received


def both_ways(app: App, meet: Meet, size: int) -> None:
    """Sent and received at once."""
    data = random_bytes(size)
    peer, name = meet("echo")
    with peer:
        assert echoed(peer, data) == Received.of(data)
    assert app.result(name)["status"] == 0
