"""One interface's steering: attach, rules, sockets, counters, detach."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hybrid._native import ffi, lib
from hybrid.bpf._call import close_handle, invoke, new_handle, object_file, string
from hybrid.bpf.bpffs import ensure_bpffs, pin_directory
from hybrid.bpf.inspect import inspect, interface_index
from hybrid.bpf.model import XDP_MODES, Count, Counters, Obtained, RuleCount, XdpMode
from hybrid.bpf.rules import from_c, to_c
from hybrid.errors import BusyError, HybridError, UsageError
from hybrid.policy.rule import Rule

if TYPE_CHECKING:
    from hybrid._native import CData


class Steering:
    """A handle on a steering program. Closing it leaves what is attached.

    Threads may share one, but not while one of them upgrades or closes it.
    """

    def __init__(self, handle: CData, directory: Path | None) -> None:
        self._handle = handle
        self.directory = directory

    # ---- making one ----

    @classmethod
    def attach(cls, ifname: str, mode: XdpMode | str = XdpMode.AUTO) -> Self:
        """Steers an interface, with no rules at first.

        A bpffs is mounted where there is none. Where the interface is steered already, its steering
        is opened, and the program exchanged for this installation's if it is another; rules, counters
        and sockets stay. ``BusyError``: the interface has somebody else's XDP program, or ours in a
        mode other than ``mode``.
        """
        wanted = XdpMode(mode)
        ifindex = interface_index(ifname)
        ensure_bpffs()
        directory = pin_directory(ifname)
        out = new_handle()
        try:
            arguments = (ifindex, _path(object_file()), XDP_MODES.index(wanted), _path(directory), out)
            invoke(lib.hy_steer_attach, *arguments)
        except BusyError as error:
            if error.errno != errno.EEXIST:
                raise BusyError(error.message, _busy_remedy(ifname), errno=error.errno) from None
        else:
            return cls(out[0], directory)
        steering = cls.open(ifname)
        try:
            obtained = steering.obtained
            if wanted not in (XdpMode.AUTO, obtained.mode):
                raise BusyError(
                    f"{ifname} is steered in {obtained.mode} mode already, and {wanted} was asked for",
                    "detach it first: `hybrid clean`",
                )
            steering.upgrade()
        except BaseException:
            steering.close()
            raise
        return steering

    @classmethod
    def open(cls, ifname: str) -> Self:
        """The steering that an interface has. ``HybridError`` with ``errno`` ENOENT: it has none."""
        try:
            return cls.open_pinned(pin_directory(ifname))
        except HybridError as error:
            if error.errno != errno.ENOENT:
                raise
            remedy = "steer it by a policy: `hybrid apply FILE`"
            raise HybridError(f"{ifname} is not steered", remedy, errno=errno.ENOENT) from None

    @classmethod
    def open_pinned(cls, directory: Path) -> Self:
        """By the directory of its pins; its interface may be in any network namespace."""
        out = new_handle()
        invoke(lib.hy_steer_open, _path(directory), out)
        return cls(out[0], directory)

    @classmethod
    def adopt(cls, ifname: str) -> Self:
        """The program that DPDK's driver attached from :func:`dpdk_object`, with no rules at first.

        Nothing of it is pinned: rules and counters live as long as the DPDK port does.
        """
        out = new_handle()
        remedy = "open the port with xdp_prog= and the path that hybrid.bpf.dpdk_object() gives"
        invoke(lib.hy_steer_adopt, interface_index(ifname), out, remedy=remedy)
        return cls(out[0], None)

    @classmethod
    def load(cls, program: Path | None = None) -> Self:
        """Loaded and attached to nothing, for :meth:`test_run`."""
        out = new_handle()
        invoke(lib.hy_steer_load, _path(program or object_file()), out)
        return cls(out[0], None)

    # ---- its life ----

    @property
    def obtained(self) -> Obtained:
        """What was asked for at the attach, and what it came to."""
        info = ffi.new("hy_steer_info *")
        status = lib.hy_steer_info_get(self._live, info)
        if status < 0:
            raise HybridError("the kernel does not answer about the steering program", errno=-status)
        return Obtained(
            ifname=string(info.ifname),
            ifindex=info.ifindex,
            netns=info.netns,
            requested=XDP_MODES[info.requested],
            mode=XDP_MODES[info.obtained],
            note=string(info.note),
            fragments=bool(info.fragments),
            queues=info.queues,
            program_id=info.program_id,
            link_id=info.link_id,
            tag=bytes(ffi.buffer(info.tag)).hex(),
            layout=(info.major, info.minor),
        )

    def upgrade(self, program: Path | None = None) -> bool:
        """Exchanges the attached program for this installation's, if it differs; no frame goes unsteered."""
        return bool(invoke(lib.hy_steer_upgrade, self._live, _path(program or object_file())))

    def detach(self) -> None:
        """Takes the program off the interface and removes its pins. The kernel has every frame again."""
        invoke(lib.hy_steer_detach, self._live)

    def close(self) -> None:
        """Frees the handle. What is attached stays. May be called again."""
        handle, self._handle = self._handle, ffi.NULL
        close_handle(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- rules and counters ----

    def replace_rules(self, rules: Sequence[Rule]) -> None:
        """Replaces all rules at once. On return no frame is under the old ones any more.

        A rule whose name and match stay the same keeps its counters.
        """
        if len(rules) > lib.HY_STEER_RULES:
            raise UsageError(
                f"{len(rules)} rules are more than the {lib.HY_STEER_RULES} that one interface takes",
                "join rules that differ only in adjacent ports or prefixes",
            )
        invoke(lib.hy_steer_replace, self._live, to_c(rules), len(rules))

    def counters(self) -> Counters:
        """A snapshot, summed over CPUs."""
        out = ffi.new("hy_steer_counters *")
        invoke(lib.hy_steer_counters_get, self._live, out)
        rules = tuple(
            RuleCount(rule=from_c(out.rules[i]), hit=_count(out.hit[i]), no_socket=_count(out.no_socket[i]))
            for i in range(out.rule_count)
        )
        reasons = {name: _count(out.reasons[i]) for i, name in enumerate(reason_names())}
        return Counters(generation=out.generation, rules=rules, reasons=reasons)

    def rules(self) -> list[Rule]:
        """The rules in force, in the order tried."""
        return [counted.rule for counted in self.counters().rules]

    # ---- sockets ----

    def enter(self, queue: int, fd: int) -> None:
        """Puts an AF_XDP socket into service for the queue that it is bound to."""
        invoke(
            lib.hy_steer_enter, self._live, queue, fd, remedy="open the device's socket on that queue first"
        )

    def leave(self, queue: int) -> None:
        """Takes the queue's socket out of service; its frames are the kernel's again."""
        invoke(lib.hy_steer_leave, self._live, queue)

    def sockets(self) -> list[int]:
        """The queues that have a socket in service."""
        bits = ffi.new("uint64_t *")
        invoke(lib.hy_steer_sockets, self._live, bits)
        return [queue for queue in range(lib.HY_STEER_QUEUES) if bits[0] >> queue & 1]

    # ---- the DPDK port ----

    def set_port(self, near: str) -> None:
        """Redirects what rules send to DPDK into a veth, whose near end is named, and back from it."""
        invoke(lib.hy_steer_port_set, self._live, interface_index(near), remedy="`hybrid apply` once more")

    def port(self) -> int:
        """The number of that near end; 0: there is none (any more)."""
        out = ffi.new("uint32_t *")
        invoke(lib.hy_steer_port_get, self._live, out)
        return int(out[0])

    def lease(self, fd: int) -> None:
        """Puts the port into service for as long as somebody holds this unbound AF_XDP socket."""
        invoke(lib.hy_steer_lease, self._live, fd)

    def leased(self) -> bool:
        """Whether some program has the port in service."""
        return bool(invoke(lib.hy_steer_leased, self._live))

    def look_for_kernel_flows(self, look: bool) -> None:
        """Whether rules with a fallback leave to the kernel the connections that it has."""
        invoke(lib.hy_steer_kernel_flows, self._live, look)

    # ---- tests ----

    def test_run(self, frame: bytes, *, ifindex: int = 0, queue: int = 0, repeat: int = 1) -> tuple[int, int]:
        """Runs the program over a frame: the XDP action of the last run and the mean ns of one."""
        action, duration = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        invoke(
            lib.hy_steer_test_run,
            *(self._live, ffi.from_buffer(frame), len(frame), ifindex, queue, repeat, action, duration),
        )
        return action[0], duration[0]

    @property
    def _live(self) -> CData:
        if self._handle == ffi.NULL:
            raise HybridError("this steering handle has been closed", "open it again")
        return self._handle


def reason_names() -> list[str]:
    """The reasons that frames are counted under, in the order of the program's own enum."""
    return [string(lib.hy_steer_reason_name(i)) for i in range(lib.hy_steer_reason_count())]


def reason_help() -> dict[str, str]:
    """What each reason means, in a sentence."""
    return {name: string(lib.hy_steer_reason_help(i)) for i, name in enumerate(reason_names())}


def _count(count: CData) -> Count:
    return Count(packets=count.packets, bytes=count.bytes)


def _path(path: Path) -> bytes:
    return str(path).encode()


def _busy_remedy(ifname: str) -> str:
    program = inspect(ifname)
    if program is None:
        return "try again"
    return f"if it may go, remove it: `{program.removal(ifname)}`"
