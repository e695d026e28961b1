"""Ways to move frames where XDP cannot: TAP devices and packet sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Way", "packet_socket", "tap"]

# include/uapi/linux/if_tun.h
_TUNGETFEATURES = 0x800454CF
_TUN_FEATURES = {"napi": 0x0010, "multi-queue": 0x0100, "vnet-header": 0x4000}
# include/uapi/linux/if_packet.h
_SOL_PACKET, _PACKET_VERSION, _PACKET_VNET_HDR, _PACKET_QDISC_BYPASS = 263, 10, 15, 20
_TPACKET_V3 = 2


@dataclass(frozen=True, slots=True)
class Way:
    """``problem`` empty: it opens, and has these features. ``denied``: to this user."""

    features: tuple[str, ...] = ()
    problem: str = ""
    remedy: str | None = None
    denied: bool = False


def tap(root: Path = Path("/")) -> Way:
    """By opening /dev/net/tun; that makes no interface yet."""
    path = root / "dev/net/tun"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Way(problem="there is no /dev/net/tun", remedy="modprobe tun")
    except PermissionError:
        return Way(problem="/dev/net/tun is not ours to open", remedy="run it with sudo", denied=True)
    except OSError as error:
        return Way(problem=f"/dev/net/tun does not open: {_reason(error)}", remedy="modprobe tun")
    try:
        (bits,) = struct.unpack("I", fcntl.ioctl(fd, _TUNGETFEATURES, bytes(4)))
    except OSError as error:
        return Way(problem=f"/dev/net/tun is no TUN/TAP device: {_reason(error)}", remedy="modprobe tun")
    finally:
        os.close(fd)
    return Way(tuple(name for name, bit in _TUN_FEATURES.items() if bits & bit))


def packet_socket() -> Way:
    """By opening one that receives nothing: it is bound to no protocol."""
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        return Way(problem="opening one takes CAP_NET_RAW", remedy="run it with sudo", denied=True)
    except OSError as error:
        return Way(problem=f"refused: {_reason(error)}", remedy="a kernel with CONFIG_PACKET")
    asked = {
        "ring-v3": (_PACKET_VERSION, _TPACKET_V3),
        "vnet-header": (_PACKET_VNET_HDR, 1),
        "qdisc-bypass": (_PACKET_QDISC_BYPASS, 1),
    }
    with opened:
        return Way(tuple(name for name, option in asked.items() if _takes(opened, *option)))


def _takes(opened: socket.socket, option: int, value: int) -> bool:
    try:
        opened.setsockopt(_SOL_PACKET, option, value)
    except OSError:
        return False
    return True


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown").lower()
