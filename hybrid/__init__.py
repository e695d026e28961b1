"""hybrid: a microsecond-scale datapath for the flows a policy names."""

from hybrid.api.address import Address
from hybrid.api.config import Clock, Config, Hugepages
from hybrid.api.device import Flow, Packet, PacketMode, Request, Tap, open_packet
from hybrid.api.dpdk import PREFIX_BYTES as DPDK_PREFIX_BYTES
from hybrid.api.dpdk import DpdkObtained, DpdkPort, stop_dpdk
from hybrid.api.errors import (
    AbortedError,
    AddressInUseError,
    AddressNotAvailableError,
    AttachError,
    BrokenError,
    CancelledError,
    LimitError,
    NotConnectedError,
    NotServedError,
    QueueError,
    RefusedError,
    ResetError,
    ShardBusyError,
    ShardClosedError,
    StaleTokenError,
    TimedOutError,
    UnreachableError,
    ViewsHeldError,
    WouldBlockError,
)
from hybrid.api.host import Host, Link, LocalAddress, Neighbour, Route
from hybrid.api.placement import Backend, Placement
from hybrid.api.queue import Event, Kind, Op, Queue, Token
from hybrid.api.sga import Sga
from hybrid.api.shard import Shard, link, stat_help, stat_names
from hybrid.api.uring import Uring, UringConfig, Zerocopy
from hybrid.api.wire import Wire
from hybrid.errors import HybridError

__all__ = [
    "DPDK_PREFIX_BYTES",
    "AbortedError",
    "Address",
    "AddressInUseError",
    "AddressNotAvailableError",
    "AttachError",
    "Backend",
    "BrokenError",
    "CancelledError",
    "Clock",
    "Config",
    "DpdkObtained",
    "DpdkPort",
    "Event",
    "Flow",
    "Host",
    "Hugepages",
    "HybridError",
    "Kind",
    "LimitError",
    "Link",
    "LocalAddress",
    "Neighbour",
    "NotConnectedError",
    "NotServedError",
    "Op",
    "Packet",
    "PacketMode",
    "Placement",
    "Queue",
    "QueueError",
    "RefusedError",
    "Request",
    "ResetError",
    "Route",
    "Sga",
    "Shard",
    "ShardBusyError",
    "ShardClosedError",
    "StaleTokenError",
    "Tap",
    "TimedOutError",
    "Token",
    "UnreachableError",
    "Uring",
    "UringConfig",
    "ViewsHeldError",
    "Wire",
    "WouldBlockError",
    "Zerocopy",
    "link",
    "open_packet",
    "stat_help",
    "stat_names",
    "stop_dpdk",
]
