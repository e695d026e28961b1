"""What the kernel says of a network namespace, kept as plain rows.

Links, addresses and neighbours follow single netlink messages. Routes don't: the
kernel drops routes without a message for each when a link or an address goes, so
a change that may have touched them only marks them ``routes_stale`` and they are
read anew.

Messages are pyroute2's: mappings with ``event``, fields, and ``get_attr``. They come from
the kernel, but attributes come and go with its version, so every one may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from hybrid.api.host import IP, Network

# include/uapi/linux/neighbour.h
NUD_INCOMPLETE, NUD_REACHABLE, NUD_STALE, NUD_DELAY = 0x01, 0x02, 0x04, 0x08
NUD_PROBE, NUD_FAILED, NUD_NOARP, NUD_PERMANENT = 0x10, 0x20, 0x40, 0x80
NUD_USABLE = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_NOARP | NUD_PERMANENT
NTF_PROXY = 0x08
# include/uapi/linux/rtnetlink.h
RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 1, 6, 7, 8
RTNH_F_DEAD, RTM_F_CLONED = 0x01, 0x200
TABLE_MAIN, TABLE_LOCAL = 254, 255
# include/uapi/linux/if.h, if_addr.h
IFF_UP, IFF_LOOPBACK = 0x01, 0x08
IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_OPTIMISTIC = 0x08, 0x40, 0x04
AF_INET, AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class KernelLink:
    """An interface, up or not."""

    ifindex: int
    name: str
    mac: str | None
    mtu_bytes: int
    up: bool
    loopback: bool


@dataclass(frozen=True, slots=True)
class KernelAddress:
    """An address of this host."""

    ip: IP
    prefix_len: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """``ifindex`` 0: packets to there are to be refused (blackhole, unreachable, prohibit)."""

    dst: Network
    ifindex: int
    gateway: IP | None
    source: IP | None
    metric: int
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class KernelNeighbour:
    """An entry of the neighbour table, in whatever state."""

    ip: IP
    ifindex: int
    state: int
    mac: str | None

    @property
    def usable(self) -> bool:
        """Whether packets may be sent to its Ethernet address."""
        return self.mac is not None and bool(self.state & NUD_USABLE)


Key = tuple[int, IP]


@dataclass
class Kernel:
    """The rows. ``apply`` takes one message in and says whether anything changed."""

    links: dict[int, KernelLink] = field(default_factory=dict)
    addresses: dict[tuple[int, IP, int], KernelAddress] = field(default_factory=dict)
    routes: list[KernelRoute] = field(default_factory=list)
    neighbours: dict[Key, KernelNeighbour] = field(default_factory=dict)
    routes_stale: bool = False
    changed_neighbours: list[KernelNeighbour] = field(default_factory=list)

    def apply(self, message: Any) -> bool:
        """Takes one message in. True: rows other than routes have changed."""
        event = str(message.get("event"))
        if event in ("RTM_NEWROUTE", "RTM_DELROUTE"):
            if not message["flags"] & RTM_F_CLONED:
                self.routes_stale = True
            return False
        if event in ("RTM_NEWLINK", "RTM_DELLINK"):
            return self._apply_link(message, gone=event == "RTM_DELLINK")
        if event in ("RTM_NEWADDR", "RTM_DELADDR"):
            return self._apply_address(message, gone=event == "RTM_DELADDR")
        if event in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            return self._apply_neighbour(message, gone=event == "RTM_DELNEIGH")
        return False

    def _apply_link(self, message: Any, *, gone: bool) -> bool:
        if message.get("family", 0) not in (0, None):
            return False  # AF_BRIDGE reports ports, not links
        ifindex = message["index"]
        before = self.links.get(ifindex)
        if gone:
            self.links.pop(ifindex, None)
            self.neighbours = {k: n for k, n in self.neighbours.items() if k[0] != ifindex}
            self.addresses = {k: a for k, a in self.addresses.items() if k[0] != ifindex}
        else:
            self.links[ifindex] = parse_link(message)
        changed = self.links.get(ifindex) != before
        self.routes_stale |= changed
        return changed

    def _apply_address(self, message: Any, *, gone: bool) -> bool:
        address = parse_address(message)
        if address is None:
            return False
        key = (address.ifindex, address.ip, address.prefix_len)
        # One that is still being checked for duplicates must not be used yet (RFC 4862 section 5.4).
        gone = gone or not address_usable(message)
        before = self.addresses.get(key)
        if gone:
            self.addresses.pop(key, None)
        else:
            self.addresses[key] = address
        changed = self.addresses.get(key) != before
        self.routes_stale |= changed
        return changed

    def _apply_neighbour(self, message: Any, *, gone: bool) -> bool:
        neighbour = parse_neighbour(message)
        if neighbour is None:
            return False
        key = (neighbour.ifindex, neighbour.ip)
        before = self.neighbours.get(key)
        if gone:
            self.neighbours.pop(key, None)
            return before is not None and before.usable
        self.neighbours[key] = neighbour
        self.changed_neighbours.append(neighbour)
        # A state that changes among the usable ones is no change of the table.
        if before is None or not before.usable:
            return neighbour.usable
        return not neighbour.usable or neighbour.mac != before.mac

    def replace_routes(self, messages: Iterable[Any]) -> bool:
        """Takes a full dump of the routes in."""
        routes = [route for route in map(parse_route, messages) if route is not None]
        self.routes_stale = False
        changed = routes != self.routes
        self.routes = routes
        return changed


def parse_link(message: Any) -> KernelLink:
    """From RTM_NEWLINK."""
    flags = message["flags"]
    return KernelLink(
        ifindex=message["index"],
        name=message.get_attr("IFLA_IFNAME") or str(message["index"]),
        mac=message.get_attr("IFLA_ADDRESS"),
        mtu_bytes=message.get_attr("IFLA_MTU") or 1500,
        up=bool(flags & IFF_UP),
        loopback=bool(flags & IFF_LOOPBACK),
    )


def parse_address(message: Any) -> KernelAddress | None:
    """From RTM_NEWADDR and RTM_DELADDR."""
    if message["family"] not in (AF_INET, AF_INET6):
        return None
    # On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL ours; IPv6 often has only the former.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    if text is None:
        return None
    return KernelAddress(ip_address(text), message["prefixlen"], message["index"])


def address_usable(message: Any) -> bool:
    """Whether packets may carry it."""
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    tentative = flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC
    return not tentative and not flags & IFA_F_DADFAILED


def parse_neighbour(message: Any) -> KernelNeighbour | None:
    """From RTM_NEWNEIGH and RTM_DELNEIGH; ``None`` for entries that are no next hop."""
    text = message.get_attr("NDA_DST")
    if message["family"] not in (AF_INET, AF_INET6) or text is None or message["flags"] & NTF_PROXY:
        return None
    ip = ip_address(text)
    if ip.is_multicast:
        return None  # derived from the address (RFC 1112 section 6.4, RFC 2464 section 7), not looked up
    return KernelNeighbour(ip, message["ifindex"], message["state"], message.get_attr("NDA_LLADDR"))


def parse_route(message: Any) -> KernelRoute | None:
    """A route that a packet of ours could take, or one that refuses it; else ``None``."""
    table = message.get_attr("RTA_TABLE") or message["table"]
    kind = message["type"]
    if table not in (TABLE_MAIN, TABLE_LOCAL) or message["family"] not in (AF_INET, AF_INET6):
        return None
    if kind not in (RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
        return None  # local, broadcast and multicast ones describe this host, not a way out
    if message["flags"] & (RTM_F_CLONED | RTNH_F_DEAD) or message["src_len"] or message["tos"]:
        return None
    any_text = "0.0.0.0" if message["family"] == AF_INET else "::"
    dst = ip_network(f"{message.get_attr('RTA_DST') or any_text}/{message['dst_len']}", strict=False)
    metrics = message.get_attr("RTA_METRICS")
    source = message.get_attr("RTA_PREFSRC")
    hop: Any = message
    multipath = message.get_attr("RTA_MULTIPATH")
    if multipath:
        hop = next((h for h in multipath if not h["flags"] & RTNH_F_DEAD), None)
        if hop is None:
            return None
    ifindex = 0
    if kind == RTN_UNICAST:
        ifindex = hop["oif"] if multipath else (message.get_attr("RTA_OIF") or 0)
        if not ifindex:
            return None
    return KernelRoute(
        dst=dst,
        ifindex=ifindex,
        gateway=_gateway(hop),
        source=ip_address(source) if source else None,
        metric=message.get_attr("RTA_PRIORITY") or 0,
        mtu_bytes=(metrics.get_attr("RTAX_MTU") or 0) if metrics else 0,
    )


def _gateway(hop: Any) -> IP | None:
    text = hop.get_attr("RTA_GATEWAY")
    if not text:
        via = hop.get_attr("RTA_VIA")  # an IPv4 route through an IPv6 neighbour (RFC 8950)
        text = via.get("addr") if via else None
    if not text:
        return None
    gateway = ip_address(text)
    return None if gateway == IPv6Address(0) else gateway
