"""The policy file's schema. Every key is described here, where it is defined, and in docs/policy.md.

The models are strict and frozen; unknown keys are errors. What can only be said of several keys
together (overlaps, shadows, rules that would lock people out) is in hybrid.policy.check.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from hybrid.policy.device import FrameDevice, Via
from hybrid.policy.rule import Fallback, Protocol, Target

__all__ = [
    "INTERFACES_MAX",
    "PRIORITY_MAX",
    "QUEUES_MAX",
    "RULES_MAX",
    "CopyMode",
    "DpdkModel",
    "EalModel",
    "InterfaceModel",
    "MatchModel",
    "Mode",
    "PolicyModel",
    "RuleModel",
    "TapModel",
    "UringModel",
]

INTERFACES_MAX = 16
RULES_MAX = 256  # of one interface; the size of the kernel side's table
QUEUES_MAX = 64
PRIORITY_MAX = 1_000_000
DPDK_QUEUES_MAX = 16
EAL_MAX = 64  # arguments
DPDK_TEXT_MAX = 128  # characters of one argument, and of a port's

_INTERFACE = re.compile(r"[^\s/:%]{1,15}")
_RULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PORTS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


class Mode(StrEnum):
    """How the XDP program is attached."""

    AUTO = "auto"
    NATIVE = "native"
    GENERIC = "generic"


class CopyMode(StrEnum):
    """How frames pass between the device and the AF_XDP socket."""

    AUTO = "auto"
    ZEROCOPY = "zero-copy"
    COPY = "copy"


def _wrong(message: str, expected: str) -> PydanticCustomError:
    """A mistake in a value; hybrid.policy.load turns it into a problem with its place."""
    return PydanticCustomError("policy", "{message}", {"message": message, "expected": expected})


def _version(value: Any) -> Any:
    """Python holds true for 1; a policy does not."""
    if isinstance(value, (bool, float)):
        raise _wrong(f"{_shown(value)} is not a version of policies that this program knows", "version: 1")
    return value


def _interface_name(value: Any) -> Any:
    if isinstance(value, str) and (not _INTERFACE.fullmatch(value) or value in (".", "..")):
        raise _wrong(
            f"'{value[:40]}' cannot be the name of an interface",
            "1 to 15 characters without spaces, '/', ':' and '%', as `ip link` shows it",
        )
    return value


def _rule_name(value: Any) -> Any:
    if isinstance(value, str) and not _RULE_NAME.fullmatch(value):
        raise _wrong(
            f"'{value[:70]}' cannot be the name of a rule",
            "1 to 63 letters, digits, '-', '_' and '.', the first of them a letter or a digit",
        )
    return value


def _prefix(value: Any) -> IPv4Network | IPv6Network:
    """An address or a prefix, with no bits set beyond its length."""
    expected = "a prefix such as 10.0.0.0/8 or fd00::/8, or one address"
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value
    if not isinstance(value, str):
        raise _wrong(f"{_shown(value)} is not a prefix", expected + ", in quotes where YAML reads a number")
    if "%" in value:
        raise _wrong(f"'{value[:60]}' has a zone", "the address without '%' and what follows")
    address, slash, length = value.partition("/")
    try:
        base: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        raise _wrong(f"'{value[:60]}' is not a prefix", expected) from None
    if slash and not (length.isascii() and length.isdigit() and len(length) <= 3):
        raise _wrong(f"'{value[:60]}' has no prefix length after the '/'", expected)
    if slash and int(length) > base.max_prefixlen:
        raise _wrong(
            f"/{int(length)} is too long for an IPv{base.version} prefix", f"/0 to /{base.max_prefixlen}"
        )
    whole: IPv4Network | IPv6Network = ip_network((base, int(length) if slash else base.max_prefixlen), False)
    if whole.network_address != base:
        raise _wrong(
            f"{value} has bits set beyond its prefix length",
            f"{whole} for the whole network, or {base} for the one address",
        )
    return whole


def _port_range(value: Any) -> tuple[int, int]:
    """6379, or "40000-49999": both ends belong to it."""
    expected = 'one port such as 6379, or a range such as "40000-49999"'
    if isinstance(value, tuple):
        return value
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    parts = _PORTS.fullmatch(text.replace(" ", ""))
    if parts is None:
        if "," in text:
            raise _wrong(f"'{text[:40]}' is a list of ports", f"{expected}; one rule for each")
        raise _wrong(f"{_shown(value)} is not a port", expected)
    first = int(parts[1])
    last = int(parts[2]) if parts[2] else first
    for port in (first, last):
        if not 1 <= port <= 65535:
            raise _wrong(f"{port} is not a port", "1 to 65535")
    if last < first:
        raise _wrong(f"the range {first}-{last} is reversed, so it is empty", f'"{last}-{first}"')
    return first, last


def _queues(value: Any) -> Literal["all"] | tuple[int, ...]:
    """``all``, or a list of queue numbers."""
    expected = f"all, or a list such as [0, 1] of queues 0 to {QUEUES_MAX - 1}"
    if value == "all":
        return "all"
    if isinstance(value, tuple):
        return value
    if not isinstance(value, list) or not value:
        raise _wrong(f"{_shown(value)} does not say which queues", expected)
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < QUEUES_MAX:
            raise _wrong(f"{_shown(number)} is not a queue", expected)
        if value.count(number) > 1:
            raise _wrong(f"queue {number} is named twice", "each queue once")
    return tuple(sorted(value))


def _dpdk_text(value: Any) -> Any:
    """An argument handed on to DPDK as it stands."""
    if isinstance(value, str) and not (0 < len(value) <= DPDK_TEXT_MAX and value.isprintable()):
        raise _wrong(f"'{value[:40]}' cannot be handed to DPDK", f"1 to {DPDK_TEXT_MAX} printable characters")
    return value


def _local_address(value: Any) -> IPv4Interface | IPv6Interface:
    """An address with the length of its network."""
    expected = "an address with its network's length, such as 10.0.0.2/24"
    if isinstance(value, (IPv4Interface, IPv6Interface)):
        return value
    if not isinstance(value, str) or "/" not in value or "%" in value:
        raise _wrong(f"{_shown(value)} is not an address with a length", expected)
    try:
        return ip_interface(value)
    except ValueError:
        raise _wrong(f"'{value[:60]}' is not an address with a length", expected) from None


def _gateway(value: Any) -> IPv4Address | IPv6Address:
    if isinstance(value, (IPv4Address, IPv6Address)):
        return value
    try:
        return ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise _wrong(f"{_shown(value)} is not an address", "an address such as 10.0.0.1") from None


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{str(value)[:40]}'"


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class MatchModel(_Model):
    """What a frame must have for the rule to take it; all that is named must agree.

    - ``protocol``: ``tcp`` or ``udp``. Without it both match (and nothing else ever does: ARP, ND,
      ICMP and all other protocols are the kernel's by construction).
    - ``source``, ``destination``: a prefix or an address, of IPv4 or IPv6; both of one family.
      Without them any address of either family matches. Bits set beyond the length are an error.
    - ``destination_port``: a port or a range ``"first-last"``, both ends included. Needs ``protocol``.
    """

    protocol: Annotated[Protocol | None, Field(strict=False)] = None
    source: Annotated[IPv4Network | IPv6Network | None, BeforeValidator(_prefix)] = None
    destination: Annotated[IPv4Network | IPv6Network | None, BeforeValidator(_prefix)] = None
    destination_port: Annotated[tuple[int, int] | None, BeforeValidator(_port_range)] = None


class RuleModel(_Model):
    """One rule.

    - ``name``: what status and counters call it; unique on the interface.
    - ``match``: see above. At least one key.
    - ``to``: ``afxdp`` (the AF_XDP socket of the queue the frame arrived on; the kernel, where that
      queue has none), ``dpdk`` (the interface's DPDK port; the kernel, where no program has it),
      ``bypass`` (the interface's ``device``, whichever that is), ``uring`` (the kernel's sockets, which our
      programs use by io_uring), ``kernel`` (the kernel: an exception to a rule below it, and for one of our
      programs the same as ``uring``), or ``drop``.
    - ``fallback``: what a listener of ours has where the bypass cannot be had, or is lost. ``kernel``: it
      listens on the kernel's sockets as well. ``none`` (default): the kernel refuses what comes there.
    - ``priority``: the highest is tried first. Default: by order, 1000 for an interface's first rule,
      999 for its second, and so on.
    - ``allow_everything``: default false. A rule that takes SSH (TCP port 22) or DHCP (UDP ports 68
      and 546) from the kernel is refused, because it can lock people out of the host; true says that
      it is meant.
    """

    name: Annotated[str, BeforeValidator(_rule_name)]
    match: MatchModel
    to: Annotated[Target, Field(strict=False)]
    fallback: Annotated[Fallback, Field(strict=False)] = Fallback.NONE
    priority: Annotated[int, Field(ge=1, le=PRIORITY_MAX)] | None = None
    allow_everything: bool = False


class EalModel(_Model):
    """DPDK as a whole: it is set up once in a program.

    - ``eal``: arguments of rte_eal_init() as they stand. Without any: no hugepages and no files.
    """

    eal: Annotated[list[Annotated[str, BeforeValidator(_dpdk_text)]], Field(max_length=EAL_MAX)] = []


class DpdkModel(_Model):
    """The DPDK port of an interface.

    - ``via``: ``devmap`` (default: our XDP program owns the interface and redirects into a veth whose far
      end the port owns), ``af_xdp`` (DPDK's af_xdp port owns the interface and runs our program), ``whole``
      (the NIC is DPDK's; nothing is steered, and what is not the program's goes by an exception path).
    - ``port``: devargs of the port. Default: by ``via``.
    - ``queues``: how many queues the port has, one for each of a program's shards. Default 1.
    """

    via: Annotated[Via, Field(strict=False)] = Via.DEVMAP
    port: Annotated[str, BeforeValidator(_dpdk_text)] | None = None
    queues: Annotated[int, Field(ge=1, le=DPDK_QUEUES_MAX)] = 1


class TapModel(_Model):
    """Our end of a TAP device. The kernel has the other one, with addresses of its own.

    - ``addresses``: 1 to 8 of ours, each with its network's length.
    - ``gateway``: where what is not in these networks goes.
    """

    addresses: Annotated[
        list[Annotated[IPv4Interface | IPv6Interface, BeforeValidator(_local_address)]],
        Field(min_length=1, max_length=8),
    ]
    gateway: Annotated[IPv4Address | IPv6Address | None, BeforeValidator(_gateway)] = None


class UringModel(_Model):
    """The kernel's sockets by io_uring, for all of a program's ports that have them.

    - ``sqpoll``: default false. true: a kernel thread submits, at the cost of a core.
    - ``busy_poll``: default false. true: waiting polls the NIC's queue (NAPI).
    - ``zerocopy``: default true: large sends are not copied, where the kernel can.
    - ``strict``: default false. true: what is asked for and not obtained is an error.
    """

    sqpoll: bool = False
    busy_poll: bool = False
    zerocopy: bool = True
    strict: bool = False


class InterfaceModel(_Model):
    """One interface.

    - ``name``: as the kernel calls it. It must exist when the policy is applied, not when it is checked.
    - ``mode``: requested XDP attach mode. ``native`` runs in the driver, ``generic`` behind it in the
      kernel, on any device; ``auto`` (default) tries native first.
    - ``copy``: requested AF_XDP mode. ``zero-copy`` has the device read and write our memory, which few
      drivers can; ``copy`` has the kernel copy; ``auto`` (default) tries zero-copy first.
    - ``busy_poll``: default false. true requests SO_PREFER_BUSY_POLL: lower latency for a spinning
      application, at the cost of its core.
    - ``tx_checksum``: default false: checksums are left to a device that completes them in zero-copy mode.
      true: to the kernel as well, in copy mode, as for packets of its own. Not for a veth whose peer reads
      frames by AF_XDP or packet sockets, which would see them unfinished.
    - ``strict``: default false: where something other than requested was obtained, ``status`` says so.
      true: it is an error, and nothing stays attached.
    - ``queues``: ``all`` (default) or a list of receive queues that get a socket. Frames that a rule takes
      on another queue go to the kernel.
    - ``device``: what moves the frames: ``afxdp`` (default), ``dpdk``, or, where there is no XDP, ``packet``
      (a packet socket on the interface) or ``tap`` (a TAP device of that name, made when a program starts).
    - ``dpdk``, ``tap``: see above.
    - ``rules``: at most 256. An empty list attaches the program and leaves every frame to the kernel.
    """

    name: Annotated[str, BeforeValidator(_interface_name)]
    mode: Annotated[Mode, Field(strict=False)] = Mode.AUTO
    copy_mode: Annotated[CopyMode, Field(strict=False, alias="copy")] = CopyMode.AUTO
    busy_poll: bool = False
    tx_checksum: bool = False
    strict: bool = False
    queues: Annotated[Literal["all"] | tuple[int, ...], BeforeValidator(_queues)] = "all"
    device: Annotated[FrameDevice, Field(strict=False)] = FrameDevice.AFXDP
    dpdk: DpdkModel | None = None
    tap: TapModel | None = None
    rules: Annotated[list[RuleModel], Field(max_length=RULES_MAX)]


class PolicyModel(_Model):
    """A policy file.

    - ``version``: 1. A reader refuses a version that it does not know.
    - ``interfaces``: 1 to 16 interfaces, each once.
    - ``dpdk``, ``uring``: what is set up once in a program, see above.
    """

    version: Annotated[Literal[1], BeforeValidator(_version)]
    interfaces: Annotated[list[InterfaceModel], Field(min_length=1, max_length=INTERFACES_MAX)]
    dpdk: EalModel | None = None
    uring: UringModel | None = None
