"""The kernel's generic netlink family ``netdev``: what drivers have of XDP and AF_XDP; queues, NAPIs.

Numbers are those of include/uapi/linux/netdev.h (Documentation/netlink/specs/netdev.yaml). The family came
with Linux 6.3, queues and NAPIs with 6.8; an older kernel gives nothing, not an error.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from hybrid.errors import from_errno

__all__ = ["Features", "Queue", "features", "queues"]

_FAMILY = "netdev"
_DEV_GET, _QUEUE_GET, _NAPI_GET = 1, 10, 11
_RX = 0

# The bit's place in each word is its place here.
_XDP = ("basic", "redirect", "redirect-target", "zero-copy", "hardware", "multi-buffer", "redirect-target-sg")
_RX_METADATA = ("timestamp", "hash", "vlan-tag")
_XSK = ("tx-timestamp", "tx-checksum", "tx-launch-time")


@dataclass(frozen=True, slots=True)
class Features:
    """Of one interface's driver, in names; ``zero_copy_segments``: frames per packet with zero-copy."""

    xdp: tuple[str, ...]
    zero_copy_segments: int
    rx_metadata: tuple[str, ...]
    xsk: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """A receive queue; ``irq`` and ``napi`` None: the driver doesn't say."""

    number: int
    napi: int | None
    irq: int | None


def _message(prefix: str, *attributes: tuple[str, str]) -> Any:
    """A message class of the family: its attributes in the order of their numbers, from 0 on."""
    nla_map = tuple((prefix + name, kind) for name, kind in attributes)
    return type("message", (genlmsg,), {"prefix": prefix, "nla_map": nla_map})


_Device = _message(
    "NETDEV_A_DEV_",
    ("UNSPEC", "none"),
    ("IFINDEX", "uint32"),
    ("PAD", "none"),
    ("XDP_FEATURES", "uint64"),
    ("XDP_ZC_MAX_SEGS", "uint32"),
    ("XDP_RX_METADATA_FEATURES", "uint64"),
    ("XSK_FEATURES", "uint64"),
)
_Queue = _message(
    "NETDEV_A_QUEUE_",
    ("UNSPEC", "none"),
    ("ID", "uint32"),
    ("IFINDEX", "uint32"),
    ("TYPE", "uint32"),
    ("NAPI_ID", "uint32"),
)
_Napi = _message(
    "NETDEV_A_NAPI_",
    ("UNSPEC", "none"),
    ("IFINDEX", "uint32"),
    ("ID", "uint32"),
    ("IRQ", "uint32"),
)


def features() -> dict[int, Features]:
    """By interface number, of the calling thread's namespace."""
    return {
        int(row.get_attr("NETDEV_A_DEV_IFINDEX")): Features(
            _names(_XDP, row.get_attr("NETDEV_A_DEV_XDP_FEATURES")),
            int(row.get_attr("NETDEV_A_DEV_XDP_ZC_MAX_SEGS") or 0),
            _names(_RX_METADATA, row.get_attr("NETDEV_A_DEV_XDP_RX_METADATA_FEATURES")),
            _names(_XSK, row.get_attr("NETDEV_A_DEV_XSK_FEATURES")),
        )
        for row in _dump(_Device, _DEV_GET)
    }


def queues() -> dict[int, tuple[Queue, ...]]:
    """Receive queues in use by interface number; none for one that is down."""
    irqs: dict[int, int | None] = {
        int(row.get_attr("NETDEV_A_NAPI_ID")): row.get_attr("NETDEV_A_NAPI_IRQ")
        for row in _dump(_Napi, _NAPI_GET)
    }
    found: defaultdict[int, list[Queue]] = defaultdict(list)
    for row in _dump(_Queue, _QUEUE_GET):
        if row.get_attr("NETDEV_A_QUEUE_TYPE") == _RX:
            napi = row.get_attr("NETDEV_A_QUEUE_NAPI_ID")
            queue = Queue(int(row.get_attr("NETDEV_A_QUEUE_ID")), napi, irqs.get(napi))
            found[int(row.get_attr("NETDEV_A_QUEUE_IFINDEX"))].append(queue)
    return {index: tuple(sorted(rows, key=lambda q: q.number)) for index, rows in found.items()}


def _names(names: tuple[str, ...], word: int | None) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(names) if (word or 0) >> bit & 1)


def _dump(kind: type[Any], command: int) -> Iterator[Any]:
    """Every row; none from a kernel without the family or the command."""
    try:
        with closing(GenericNetlinkSocket()) as sock:
            sock.asyncore.module_err_level = "debug"  # a kernel without the family is nothing to log
            sock.bind(_FAMILY, kind)
            asked = kind()
            asked["cmd"], asked["version"] = command, 1
            yield from sock.nlm_request(asked, msg_type=sock.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise from_errno(error.code, "ask the kernel for its network devices") from None
