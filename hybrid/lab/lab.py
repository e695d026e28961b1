"""The lab: a server and a client, each a network namespace, joined by a veth pair.

::

     namespace NAME-server                      namespace NAME-client
     hys0  10.77.0.1/24  fd77::1/64  <--veth--> hyc0  10.77.0.2/24  fd77::2/64

Whatever state a lab is in (none, whole, half made by a run that was killed, made with other
parameters), ``up`` makes it the one that was asked for, and ``down`` leaves nothing. Nothing is
touched that a lab did not make itself (hybrid.lab.state says how that is known).
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface
from types import TracebackType
from typing import Self

from hybrid.errors import BusyError, HybridError, PrivilegeError, UsageError
from hybrid.lab import link, netns
from hybrid.lab.side import Side
from hybrid.lab.state import State, locked

__all__ = ["MTU_MAX", "MTU_MIN", "QUEUES_MAX", "Lab", "LabStatus", "Phase", "SideStatus"]

QUEUES_MAX = 64
MTU_MIN, MTU_MAX = 1280, 65535  # IPv6 asks for 1280 (RFC 8200 section 5)

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")


class Phase(StrEnum):
    """What there is of a lab."""

    DOWN = "down"
    PARTIAL = "partial"  # `up` completes it, `down` removes it
    UP = "up"
    FOREIGN = "foreign"  # its names are taken by somebody else


@dataclass(frozen=True)
class SideStatus:
    """One side as it is. ``end`` is None where there is no interface or no privilege to look."""

    namespace: str
    exists: bool
    end: link.End | None
    processes: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class LabStatus:
    """The lab as it is."""

    name: str
    phase: Phase
    server: SideStatus
    client: SideStatus


class Lab:
    """One lab by name. As a context manager it is up inside the block::

        with Lab("t1", queues=2) as lab:
            lab.server.popen(["redis-server", "--port", "6379"])
            lab.client.run(["ping", "-c1", str(lab.server.ipv4)])

    and everything that was started and made is gone after it (a lab that was up before stays up).
    """

    def __init__(self, name: str = "hybrid", *, queues: int = 1, mtu: int = 1500) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be the name of a lab",
                "use up to 32 lower-case letters, digits, '-', '_' and '.'",
            )
        if not 1 <= queues <= QUEUES_MAX:
            raise UsageError(f"a lab cannot have {queues} queues", f"choose 1 to {QUEUES_MAX}")
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise UsageError(f"a lab cannot have an MTU of {mtu}", f"choose {MTU_MIN} to {MTU_MAX}")
        self.name = name
        self.queues = queues
        self.mtu = mtu
        self.server = Side(
            f"{name}-server", "hys0", IPv4Interface("10.77.0.1/24"), IPv6Interface("fd77::1/64")
        )
        self.client = Side(
            f"{name}-client", "hyc0", IPv4Interface("10.77.0.2/24"), IPv6Interface("fd77::2/64")
        )
        self._was_up = False

    @property
    def sides(self) -> dict[str, Side]:
        """Both sides by what they are called."""
        return {"server": self.server, "client": self.client}

    def up(self) -> list[str]:
        """Makes the lab, completes it, or brings it to these parameters. Returns what was done, if anything.

        BusyError: a namespace of that name was made by somebody else, or the pair must be made
        anew for another number of queues while an XDP program is attached to it.
        """
        with locked():
            state = State.load(self.name)
            self._refuse_foreign(state)
            done: list[str] = []
            state = state or State(self.name, self.queues, self.mtu)
            state.queues, state.mtu = self.queues, self.mtu
            state.save()
            for which, side in self.sides.items():
                if not netns.is_namespace(side.namespace):
                    netns.create(side.namespace, partial(_remember, state, which))
                    done.append(f"made {side.namespace}")
                side.call(link.prepare_namespace)
            done += self._make_pair()
            for side in self.sides.values():
                wanted = (side.network4, side.network6)
                done += side.call(partial(link.set_up, side.interface, self.mtu, wanted))
            for side in self.sides.values():
                side.call(partial(link.wait_until_running, side.interface))
            return done

    def down(self, *, kill: bool = False) -> list[str]:
        """Removes the lab. Returns what was removed, if anything.

        BusyError: processes still run inside, and ``kill`` does not say to end them; or a
        namespace of that name was made by somebody else.
        """
        with locked():
            state = State.load(self.name)
            self._refuse_foreign(state)
            if state is None:
                return []
            present = [side for side in self.sides.values() if netns.exists(side.namespace)]
            if kill:
                for side in present:
                    netns.end_processes(side.namespace)
            self._refuse_inhabited(present)
            done: list[str] = []
            for side in present:
                if netns.is_namespace(side.namespace):
                    side.call(partial(link.delete, side.interface))
                netns.remove(side.namespace)
                done.append(f"removed {side.namespace}")
            state.forget()
            return done

    def status(self) -> LabStatus:
        """The lab as it is; without the privilege to enter namespaces, as far as can be seen."""
        state = State.load(self.name)
        sides = {which: self._side_status(side) for which, side in self.sides.items()}
        exist = [side.exists for side in sides.values()]
        if state is None:
            phase = Phase.FOREIGN if any(exist) else Phase.DOWN
        elif all(exist) and all(side.end is not None and side.end.up for side in sides.values()):
            phase = Phase.UP
        else:
            phase = Phase.PARTIAL
        return LabStatus(self.name, phase, sides["server"], sides["client"])

    def _refuse_foreign(self, state: State | None) -> None:
        """Nothing that somebody else made is touched. What a killed run left half made is cleared away."""
        for which, side in self.sides.items():
            if not netns.exists(side.namespace):
                continue
            if state is not None and not netns.is_namespace(side.namespace):
                netns.remove(side.namespace)
                continue
            if state is None or netns.cookie_of(side.namespace) != state.cookies.get(which):
                raise BusyError(
                    f"a network namespace called {side.namespace} exists that no lab made",
                    f"choose another --name, or remove it: ip netns delete {side.namespace}",
                )

    def _refuse_inhabited(self, sides: list[Side]) -> None:
        for side in sides:
            inside = netns.processes_in(side.namespace)
            if inside:
                who = ", ".join(f"{command} ({pid})" for pid, command in inside[:4])
                more = f" and {len(inside) - 4} more" if len(inside) > 4 else ""
                raise BusyError(
                    f"{who}{more} still running in {side.namespace}",
                    f"end them, or let it be done: hybrid lab down --name {self.name} --kill",
                )

    def _make_pair(self) -> list[str]:
        """The veth pair with the right number of queues, which is fixed when a pair is made."""
        ends = [side.call(partial(link.inspect, side.interface)) for side in self.sides.values()]
        if all(end is not None and end.queues == self.queues for end in ends):
            return []
        for side, end in zip(self.sides.values(), ends, strict=True):
            if end is not None and end.xdp:
                raise BusyError(
                    f"{side.interface} has {end.queues} queues and must be made anew to have {self.queues}, "
                    "but an XDP program is attached to it",
                    f"detach it first: hybrid clean --netns {side.namespace}",
                )
        for side in self.sides.values():
            side.call(partial(link.delete, side.interface))
        make = partial(
            link.make_pair,
            self.server.interface,
            self.client.interface,
            netns.path_of(self.client.namespace),
            self.queues,
            f"hybrid lab {self.name}",
        )
        self.server.call(make)
        return [f"made {self.server.interface} and {self.client.interface} with {self.queues} queues"]

    def _side_status(self, side: Side) -> SideStatus:
        there = netns.is_namespace(side.namespace)
        end = None
        if there:
            with contextlib.suppress(PrivilegeError):
                end = side.call(partial(link.inspect, side.interface))
        return SideStatus(side.namespace, there, end, tuple(netns.processes_in(side.namespace)))

    def __enter__(self) -> Self:
        self._was_up = self.status().phase is Phase.UP
        try:
            self.up()
        except BaseException:
            with contextlib.suppress(HybridError):  # the first error is the one to tell
                self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        for side in self.sides.values():
            side.reap()
        if not self._was_up:
            self.down(kill=True)


def _remember(state: State, which: str, cookie: int) -> None:
    """Writes down a namespace as ours before it is there to be seen."""
    state.cookies[which] = cookie
    state.save()
