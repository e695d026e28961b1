"""Channels and offloads of an interface: read, and set."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2.ethtool.ioctl import IoctlEthtool, NoSuchDevice, NotSupportedError

from hybrid.errors import HybridError, from_errno

__all__ = [
    "AFXDP_PEER_OFF",
    "Channels",
    "channels",
    "interface_number",
    "offloads_on",
    "receive_queues",
    "rss_queues",
    "set_channels",
    "set_offloads",
]


# Off on both ends of a veth pair, as an AF_XDP reader needs. A frame over veth otherwise carries a partial
# checksum, may be a 64 KiB super-packet, and keeps its VLAN tag beside the bytes instead of in them.
# Segmentation is named before the checksums that it needs: turned on again in reverse, each can be had.
AFXDP_PEER_OFF = (
    "tx-gso-list",
    "tx-generic-segmentation",
    "tx-sctp-segmentation",
    "tx-tcp-accecn-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "tx-checksum-ip-generic",
    "tx-checksum-sctp",
    "tx-vlan-hw-insert",
    "tx-vlan-stag-hw-insert",
    "rx-gro",
    "rx-vlan-hw-parse",
    "rx-vlan-stag-hw-parse",
    "rx-checksum",
)


_GRXFHINDIR = 0x38  # include/uapi/linux/ethtool.h
_NONE: Mapping[int, str] = {}
_REMEDIES_QUEUES = {
    # XDP on a veth wants a receive queue for each transmit queue of the far end.
    errno.EINVAL: "on a veth pair with XDP give its far end that many first; a card may want a power of two",
    errno.EBUSY: "AF_XDP sockets are on queues that would go: end their program (hybrid status)",
}


@dataclass(frozen=True, slots=True)
class Channels:
    """Queues in use, and how many there can be. A driver has combined ones, or pairs of rx and tx."""

    combined: int
    rx: int
    tx: int
    combined_max: int
    rx_max: int
    tx_max: int

    @property
    def receiving(self) -> int:
        """Receive queues in use."""
        return self.combined + self.rx

    @property
    def receiving_max(self) -> int:
        """The most that there can be."""
        return self.combined_max or self.rx_max


def channels(name: str) -> Channels | None:
    """None: the driver has nothing to choose, or the interface is gone."""
    try:
        with _device(name, f"look at the channels of {name}") as device:
            row = device.get_channels()
            return Channels(
                *(int(row[f"{kind}_count"]) for kind in ("combined", "rx", "tx")),
                *(int(row[f"max_{kind}"]) for kind in ("combined", "rx", "tx")),
            )
    except HybridError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            return None
        raise


def interface_number(name: str) -> int:
    """0: there is none of that name (now)."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def receive_queues(name: str) -> int:
    """Those in use; 1 where the driver doesn't say, 0 where there is no such interface."""
    if not interface_number(name):
        return 0
    found = channels(name)
    return max(1, found.receiving) if found is not None else 1


def set_channels(name: str, combined: int, rx: int, tx: int) -> None:
    """Others (an interrupt of its own for link changes, say) stay as they are."""
    with _device(name, f"give {name} {combined + rx} receive queues", _REMEDIES_QUEUES) as device:
        wanted = device.get_channels()
        wanted["combined_count"], wanted["rx_count"], wanted["tx_count"] = combined, rx, tx
        device.set_channels(wanted)


def rss_queues(name: str) -> tuple[int, ...] | None:
    """The queues over which the card spreads flows (its indirection table); None: it does not say."""
    try:
        with _device(name, f"look at how {name} spreads flows") as device:
            # struct ethtool_rxfh_indir: command, size, one queue for each slot. Asked first for its size.
            (size,) = _indirection(device, 0)[1:2]
            return tuple(sorted(set(_indirection(device, size)[2:])))
    except HybridError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL):
            return None
        raise


def _indirection(device: Any, slots: int) -> list[int]:
    table = (ctypes.c_uint32 * (2 + slots))(_GRXFHINDIR, slots)
    device.ifreq.gstrings = ctypes.cast(ctypes.byref(table), ctypes.c_void_p)
    device.ioctl()
    return list(table)


def offloads_on(name: str, of: Iterable[str]) -> tuple[str, ...]:
    """Which of these features are on and can be turned off."""
    with _device(name, f"look at the offloads of {name}") as device:
        on = {feature: on and available for feature, on, available, _, _ in device.get_features()}
    return tuple(feature for feature in of if on.get(feature))


def set_offloads(name: str, features: Iterable[str], on: bool) -> None:
    """Turns features on or off, together."""
    wanted = tuple(features)
    with _device(name, f"turn {'on' if on else 'off'} {', '.join(wanted)} of {name}") as device:
        asked = device.get_features()
        for feature in wanted:
            asked[feature] = on
        device.set_features(asked)


@contextlib.contextmanager
def _device(name: str, what: str, remedies: Mapping[int, str] = _NONE) -> Iterator[Any]:
    """Whatever goes wrong with it inside is an error that says what was being done, and what helps."""
    try:
        with contextlib.closing(IoctlEthtool(name)) as device:
            yield device
    except (OSError, NotSupportedError, NoSuchDevice) as error:
        number = errno.ENODEV if isinstance(error, NoSuchDevice) else getattr(error, "errno", None)
        raise from_errno(number or errno.EOPNOTSUPP, what, remedies.get(number or 0)) from None
