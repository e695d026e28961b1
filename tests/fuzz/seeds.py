"""Writes the seeds of a fuzz target: ``seeds.py TARGET FOLDER``.

Seeds are made here instead of being stored as binary files, so that a reader sees what they are.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def address() -> Iterable[bytes]:
    """Every form that an address may be written in, and near misses."""
    good = ["10.0.0.1", "10.0.0.1:80", "2001:db8::1", "[2001:db8::1]:80", ":80", "*:80", "::ffff:10.0.0.1"]
    bad = ["10.0.0", "256.1.1.1", "[::1", "::1]:80", "1::2::3", ":65536", "10.0.0.1:", "fe80::1%eth0", ""]
    return (text.encode() for text in (*good, *bad))


def resp() -> Iterable[bytes]:
    """Requests of a key-value client, behind two bytes that choose how they are cut."""
    commands = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"SET k v EX 10 NX\r\nMSET a 1 b 2\r\nMGET a b c\r\nINCR a\r\nDEL a b\r\nEXISTS a\r\nDBSIZE\r\n",
        b"ECHO \"a\\x41\\n\" 'b'\r\nPING\r\nCLIENT SETNAME x\r\n",
        b"CONFIG GET *\r\nCOMMAND DOCS\r\nINFO\r\nQUIT\r\n",
        b"*1\r\n$-1\r\n",
        b"*-1\r\n*x\r\n",
    ]
    return (bytes([cut, room]) + command for command in commands for cut, room in ((0, 0), (6, 255)))


def segment(
    flags: int, payload: bytes = b"", options: bytes = b"", how: int = 0, seq: int = 0, ack: int = 0
) -> bytes:
    """A record of fuzz_frames: one TCP segment, placed relative to what the stack expects."""
    head = [2, how, flags, seq & 0xFF, ack & 0xFF, len(options) // 4, len(payload), 0xFF, 0xFF]
    return bytes(head) + options + payload


def frames() -> Iterable[bytes]:
    """Whole conversations: connections of both families, data, both ways to close, resets, time."""
    syn, ack, fin, rst, push = 0x02, 0x10, 0x11, 0x04, 0x18
    options = bytes.fromhex("020405b40402080a00000001000000000103030a")
    shake = segment(syn, options=options) + segment(ack)
    shake6 = segment(syn, options=options, how=1) + segment(ack, how=1)
    second = bytes([5, 0x03, 0xE8])
    yield shake + segment(push, b"hello") + segment(ack) + segment(fin) + segment(ack)
    yield shake6 + segment(push, b"hello", how=1) + segment(fin, how=1) + second + segment(ack, how=1)
    yield shake + segment(push, b"later", seq=5) + segment(push, b"first") + segment(ack) + bytes([6, 2])
    yield shake + segment(rst) + shake + bytes([6, 1])
    yield shake + segment(push, b"lost") + 6 * second + segment(ack, ack=-4) + segment(ack)
    yield shake + bytes([6, 0]) + segment(ack) + segment(fin) + bytes([5, 0xFF, 0xFF])
    yield bytes([7]) + segment(0x12, options=options, how=8) + segment(push, b"hi", how=8) + bytes([6, 2])
    yield bytes([15]) + 8 * second
    yield bytes([1, 2, 12]) + bytes(8) + b"ping" + bytes([1, 3, 12]) + bytes(8) + b"ping"
    yield bytes([1, 0, 1, 8, 3, 3, 0, 0, 0, 0, 0, 0])  # an ICMP error with nothing in it
    yield bytes([0, 0, 61]) + bytes(12) + bytes.fromhex("0800450000280000000040060000") + bytes(33)


def conversation() -> Iterable[bytes]:
    """Conversations in the records of fuzz_conversation.c."""

    def record(what: int, data: bytes) -> bytes:
        return bytes([what, len(data)]) + data

    def segment(flags: int, data: bytes = b"", seq: int = 0, ack: int = 0, options: bytes = b"") -> bytes:
        head = struct.pack("<hhHBB", seq, ack, 512, flags, len(options) // 4)
        return record(2, head + options + data)

    def passes(ms: int) -> bytes:
        return record(3, struct.pack("<I", ms * 1000))

    def application(what: int, which: int = 3, argument: int = 9) -> bytes:
        return record(4, bytes([what, which, argument]))

    ack, push, fin, rst, syn = 0x10, 0x18, 0x11, 0x14, 0x02
    pop, send, shut, close, abort = (application(what) for what in (0, 1, 3, 6, 7))
    ipv4, ipv6 = bytes.fromhex("0800"), bytes.fromhex("86dd")
    to_listener = bytes.fromhex("1234005000000007000000005002ffff00000000")
    datagram = bytes.fromhex("1234003500080000") + b"question"
    yield pop + segment(push, b"hello") + send + segment(ack, ack=361) + segment(fin) + close + passes(70_000)
    yield segment(push, b"later", seq=5) + segment(push, b"first") + pop + abort
    yield send + send + send + segment(ack) * 4 + passes(300) + segment(ack, ack=361) + shut + passes(900)
    yield segment(fin) + send + shut + segment(ack, ack=362)
    yield shut + segment(fin) + segment(ack, ack=1) + passes(61_000)
    yield segment(rst, seq=3) + segment(rst) + segment(syn) + pop
    yield segment(push, b"x" * 200, options=bytes.fromhex("0101050a0000000100000002"))
    yield record(1, bytes(12) + ipv4 + b"\x45" + bytes(7) + b"\x40\x06" + bytes(10) + to_listener)
    yield record(1, bytes(12) + ipv4 + b"\x45" + bytes(7) + b"\x40\x11" + bytes(10) + datagram)
    yield record(1, bytes(12) + ipv6 + b"\x60" + bytes(5) + b"\x06\x40" + bytes(32) + to_listener)
    yield record(
        1, bytes(12) + ipv6 + b"\x60" + bytes(5) + b"\x00\x40" + bytes(32) + b"\x06" + bytes(7) + to_listener
    )
    yield record(
        0,
        bytes.fromhex("ffffffffffff020000000002080600010800060400010200000000020a0000020000000000000a000001"),
    )
    yield record(0, bytes(12) + bytes.fromhex("8100000181000002") + ipv4)


def cut() -> Iterable[bytes]:
    """A virtio_net_hdr, then a merged packet of 2,500 bytes of payload."""
    ipv4 = b"\x45" + bytes(8) + b"%c" + bytes(10)
    ipv6 = b"\x60" + bytes(5) + b"%c" + bytes(33)
    tcp = bytes(12) + b"\x50\x19" + bytes(6)
    udp = bytes(8)
    for gso, kind, ip, protocol, l4 in (
        (1, b"\x08\x00", ipv4, b"\x06", tcp),
        (4, b"\x86\xdd", ipv6, b"\x06", tcp),
        (5, b"\x08\x00", ipv4, b"\x11", udp),
        (5, b"\x86\xdd", ipv6, b"\x11", udp),
    ):
        for size in (0, 1, 1000, 65535):
            header = struct.pack("<BBHHHH", 1, gso, 54, size, 34, 16)
            yield header + bytes(12) + kind + ip % protocol + l4 + bytes(2500)


TARGETS: dict[str, Callable[[], Iterable[bytes]]] = {
    "address": address,
    "conversation": conversation,
    "cut": cut,
    "frames": frames,
    "resp": resp,
}


def main() -> None:
    target, folder = sys.argv[1], Path(sys.argv[2])
    for number, seed in enumerate(TARGETS[target]()):
        (folder / f"{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
