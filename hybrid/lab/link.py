"""One end of the lab's veth pair: made, set as AF_XDP needs it, looked at. Runs inside its namespace."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from hybrid.devices.ethtool import AFXDP_PEER_OFF, offloads_on, set_offloads
from hybrid.errors import HybridError, from_errno

__all__ = ["End", "delete", "inspect", "make_pair", "prepare_namespace", "set_up", "wait_until_running"]

_IFA_F_NODAD = 0x02


@dataclass(frozen=True)
class End:
    """One end as the kernel has it."""

    interface: str
    ifindex: int
    mac: str
    mtu: int
    queues: int
    up: bool
    addresses: tuple[str, ...]  # with prefix length
    offloads_on: tuple[str, ...]  # of those that AF_XDP needs off
    xdp: bool  # a program is attached


def make_pair(near: str, far: str, far_namespace: str | Path, queues: int, alias: str) -> None:
    """A veth pair with one end here and the other born inside ``far_namespace``."""
    fd = os.open(far_namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        shape: dict[str, Any] = {"num_tx_queues": queues, "num_rx_queues": queues}
        with IPRoute() as ip:
            _netlink(
                f"make the veth pair {near}, {far}",
                lambda: ip.link(
                    "add", ifname=near, kind="veth", **shape, peer={"ifname": far, "net_ns_fd": fd, **shape}
                ),
            )
            _netlink(f"mark {near}", lambda: ip.link("set", index=_index(near), ifalias=alias))
    finally:
        os.close(fd)


def prepare_namespace() -> None:
    """Loopback up; IPv6 addresses that are usable at once, and no router looked for."""
    for knob, value in (("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0")):
        path = Path("/proc/sys/net/ipv6/conf/default") / knob
        if path.exists():
            path.write_text(value)
    with IPRoute() as ip:
        _netlink("bring up lo", lambda: ip.link("set", index=_index("lo"), state="up"))


def set_up(name: str, mtu: int, addresses: tuple[IPv4Interface | IPv6Interface, ...]) -> list[str]:
    """Brings one end about as wanted, changing only what differs. Returns what was changed."""
    now = inspect(name)
    if now is None:
        raise HybridError(f"{name} has gone from the lab while it was being set up", "hybrid lab up")
    changed: list[str] = []
    with IPRoute() as ip:
        if now.mtu != mtu:
            _netlink(f"set the MTU of {name} to {mtu}", lambda: ip.link("set", index=now.ifindex, mtu=mtu))
            changed.append(f"{name}: MTU {mtu}")
        if now.offloads_on:
            set_offloads(name, now.offloads_on, False)
            changed.append(f"{name}: offloads off")
        for address in addresses:
            if str(address) not in now.addresses:
                give = partial(
                    ip.addr,
                    "add",
                    index=now.ifindex,
                    address=str(address.ip),
                    prefixlen=address.network.prefixlen,
                    **({"flags": _IFA_F_NODAD} if address.version == 6 else {}),
                )
                _netlink(f"give {address} to {name}", give)
                changed.append(f"{name}: address {address}")
        if not now.up:
            _netlink(f"bring up {name}", lambda: ip.link("set", index=now.ifindex, state="up"))
            changed.append(f"{name}: up")
    return changed


def wait_until_running(name: str, patience_s: float = 5.0) -> None:
    """Returns when frames pass.

    The end that came up first learns of its carrier from a kernel worker, up to a second later,
    and drops what it is given until then. Newer kernels catch up when asked for the link.
    """
    deadline = time.monotonic() + patience_s
    with IPRoute() as ip:
        while ip.get_links(_index(name))[0].get_attr("IFLA_OPERSTATE") != "UP":
            if time.monotonic() > deadline:
                raise HybridError(
                    f"{name} has no carrier although both ends of the pair are up", "run it once more"
                )
            time.sleep(0.01)


def inspect(name: str) -> End | None:
    """The end as it is; None if there is no such interface here."""
    try:
        return _inspect(name, _index(name))
    except (OSError, NetlinkError, HybridError) as error:
        # Its namespace may be on its way out: the pair then goes at any moment.
        if _errno(error) != errno.ENODEV:
            raise from_errno(_errno(error), f"look at {name}") from None
        return None


def _inspect(name: str, index: int) -> End:
    with IPRoute() as ip:
        (link,) = ip.get_links(index)
        addresses = tuple(
            f"{found.get_attr('IFA_LOCAL') or found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}"
            for found in ip.get_addr(index=index)
        )
    xdp = link.get_attr("IFLA_XDP")
    return End(
        interface=name,
        ifindex=index,
        mac=link.get_attr("IFLA_ADDRESS"),
        mtu=link.get_attr("IFLA_MTU"),
        queues=link.get_attr("IFLA_NUM_RX_QUEUES"),
        up=bool(link["flags"] & 1),
        addresses=addresses,
        offloads_on=offloads_on(name, AFXDP_PEER_OFF),
        xdp=bool(xdp and xdp.get_attr("IFLA_XDP_ATTACHED")),
    )


def delete(name: str) -> None:
    """Removes the pair; its other end goes with it. Fine where there is none."""
    try:
        with IPRoute() as ip:
            ip.link("del", index=_index(name))
    except (OSError, NetlinkError) as error:
        if _errno(error) != errno.ENODEV:
            raise from_errno(_errno(error), f"remove {name}") from None


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:  # it comes without a number
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name) from None


def _errno(error: Exception) -> int:
    """Of an error of whichever way to ask the kernel."""
    if isinstance(error, NetlinkError):
        return int(error.code)
    return getattr(error, "errno", None) or errno.EIO


def _netlink(operation: str, call: Callable[[], object]) -> None:
    try:
        call()
    except (OSError, NetlinkError) as error:
        raise from_errno(_errno(error), operation) from None
