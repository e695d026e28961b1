"""The veth of a DPDK port (via: devmap): the near end our program redirects into, the far end DPDK's.

Both ends are in the namespace of the interface that they serve and are known by their alias. Neither is a
host's link: no addresses, no ARP, no neighbour discovery. The far end takes what the interface takes, so
its MTU is the interface's.
"""

from __future__ import annotations

import errno
import socket
import zlib
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from hybrid.errors import HybridError, from_errno

_ALIAS = "hybrid: DPDK port of "
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_GEN_MODE_NONE = 1
_AF_INET6 = 10


def ends(ifname: str) -> tuple[str, str]:
    """Names of the near and the far end for an interface."""
    tail = ifname if len(ifname) <= 11 else f"{zlib.crc32(ifname.encode()):08x}"
    return f"hyd-{tail}", f"hyp-{tail}"


def make(ifname: str, queues: int) -> None:
    """Makes it, or leaves it where it is there already."""
    near, far = ends(ifname)
    if exists(ifname):
        return
    shape: dict[str, Any] = {"num_tx_queues": queues, "num_rx_queues": queues}
    try:
        with IPRoute() as ip:
            mtu = ip.get_links(socket.if_nametoindex(ifname))[0].get_attr("IFLA_MTU")
            ip.link("add", ifname=near, kind="veth", **shape, peer={"ifname": far, **shape})
            try:
                for name in (near, far):
                    _prepare(ip, name, mtu, ifname)
            except BaseException:
                remove(ifname)
                raise
    except (OSError, NetlinkError) as error:
        raise from_errno(_number(error), f"make the veth of the DPDK port of {ifname}") from None


def _prepare(ip: IPRoute, name: str, mtu: int, ifname: str) -> None:
    index = socket.if_nametoindex(name)
    family = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _GEN_MODE_NONE]]}]]}
    ip.link("set", index=index, IFLA_AF_SPEC=family)
    ip.link("set", index=index, mtu=mtu, ifalias=f"{_ALIAS}{ifname}")
    ip.link("set", index=index, flags=_IFF_UP | _IFF_NOARP, change=_IFF_UP | _IFF_NOARP)


def exists(ifname: str) -> bool:
    """Whether the interface has one."""
    return ifname in dict(all_of_them())


def remove(ifname: str) -> None:
    """Takes it away. Fine where there is none."""
    near = dict(all_of_them()).get(ifname)
    if near is None:
        return
    try:
        with IPRoute() as ip:
            ip.link("del", index=socket.if_nametoindex(near))
    except (OSError, NetlinkError) as error:
        if _number(error) != errno.ENODEV:
            raise from_errno(_number(error), f"remove the veth {near}") from None


def all_of_them() -> Iterator[tuple[str, str]]:
    """Interfaces that have one, each with the name of the near end."""
    try:
        with IPRoute() as ip:
            links = list(ip.get_links())
    except (OSError, NetlinkError) as error:
        raise from_errno(_number(error), "list the interfaces") from None
    for link in links:
        alias, name = link.get_attr("IFLA_IFALIAS") or "", link.get_attr("IFLA_IFNAME")
        if alias.startswith(_ALIAS) and name == ends(alias.removeprefix(_ALIAS))[0]:
            yield alias.removeprefix(_ALIAS), name


def _number(error: Exception) -> int:
    if isinstance(error, NetlinkError):
        return int(error.code)
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) else errno.ENODEV  # if_nametoindex comes without a number


def require(ifname: str) -> str:
    """The far end. ``HybridError``: there is none."""
    if not exists(ifname):
        raise HybridError(f"the veth of the DPDK port of {ifname} is gone", "hybrid apply FILE once more")
    return ends(ifname)[1]
