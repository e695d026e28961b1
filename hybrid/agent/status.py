"""What is steered, by which rules, how often they hit, and which programs are in service. Reads only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hybrid.agent.changes import Change, Journal
from hybrid.agent.state import Applied, Namespace, Store, stored_files
from hybrid.bpf import Counters, Obtained, PinState, attached
from hybrid.errors import HybridError
from hybrid.launch.record import ShardRecord, records
from hybrid.policy import describe
from hybrid.ranges import format_ranges


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """One steered interface."""

    obtained: Obtained
    requested: dict[str, Any]
    counters: Counters
    sockets: tuple[int, ...]
    port: bool = False
    leased: bool = False

    @property
    def deviations(self) -> list[str]:
        """What was asked for and not obtained, in words."""
        said = []
        asked = str(self.requested.get("mode", self.obtained.requested))
        if asked not in ("auto", self.obtained.mode):
            said.append(f"{asked} mode was requested, {self.obtained.mode} obtained")
        if self.obtained.note:
            said.append(self.obtained.note)
        return said

    def as_dict(self) -> dict[str, Any]:
        """For ``--output json``."""
        return {
            "name": self.obtained.ifname,
            "requested": self.requested,
            "obtained": asdict(self.obtained),
            "deviations": self.deviations,
            "generation": self.counters.generation,
            "rules": [
                {
                    "name": row.rule.name,
                    "rule": describe(row.rule),
                    "packets": row.hit.packets,
                    "bytes": row.hit.bytes,
                    "no_socket_packets": row.no_socket.packets,
                    "no_socket_bytes": row.no_socket.bytes,
                }
                for row in self.counters.rules
            ],
            "reasons": {name: asdict(count) for name, count in self.counters.reasons.items()},
            "sockets": list(self.sockets),
            "dpdk_port": self.port,
            "dpdk_in_service": self.leased,
        }


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. ``changes``: settings that `hybrid doctor --fix` changed from here.

    ``leftovers`` are sentences about what a killed command left behind.
    """

    interfaces: tuple[InterfaceStatus, ...] = ()
    shards: tuple[ShardRecord, ...] = ()
    reserved_ports: str = ""
    changes: tuple[Change, ...] = ()
    leftovers: tuple[str, ...] = field(default_factory=tuple)
    unsteered: tuple[Applied, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For ``--output json``."""
        return {
            "interfaces": [interface.as_dict() for interface in self.interfaces],
            "shards": [
                {**shard.about, "stats": {k: v for k, v in shard.stats.items() if v}} for shard in self.shards
            ],
            "unsteered": [{**asked.as_dict(), "note": asked.note} for asked in self.unsteered],
            "reserved_ports": self.reserved_ports,
            "changes": [change.as_dict() for change in self.changes],
            "leftovers": list(self.leftovers),
        }


def gather(namespace: Namespace | None = None) -> Status:
    """Of the calling thread's network namespace; leftovers of the whole host."""
    here = namespace or Namespace.current()
    store = Store(here)
    remembered = store.load()
    interfaces: list[InterfaceStatus] = []
    leftovers: list[str] = []
    for pinned in attached():
        if pinned.state is PinState.UNREADABLE:
            leftovers.append(f"{pinned.directory}: {pinned.problem}")
        elif pinned.state is not PinState.ATTACHED or pinned.obtained is None:
            leftovers.append(f"{pinned.directory}: pins of an attach that is gone")
        elif pinned.obtained.netns == here.inode:
            asked = remembered.get(pinned.obtained.ifname)
            try:
                with pinned.open() as steering:
                    interfaces.append(
                        InterfaceStatus(
                            pinned.obtained,
                            asked.as_dict() if asked is not None else {},
                            steering.counters(),
                            tuple(steering.sockets()),
                            port := steering.port() != 0,
                            port and steering.leased(),
                        )
                    )
            except HybridError as error:
                leftovers.append(f"{pinned.directory}: {error.message}")
    shards: list[ShardRecord] = []
    for record in records():
        if not record.alive:
            leftovers.append(f"{record.path}: of a program that has ended")
        elif record.about.get("netns") == here.inode:
            shards.append(record)
    steered = {interface.obtained.ifname for interface in interfaces}
    unsteered = tuple(asked for name, asked in sorted(remembered.items()) if name not in steered)
    leftovers += [
        f"{stored.path}: remembers an interface of before the last boot"
        for stored in stored_files()
        if stored.namespace.boot != here.boot
    ]
    return Status(
        tuple(sorted(interfaces, key=lambda i: i.obtained.ifname)),
        tuple(shards),
        format_ranges(store.ports()),
        tuple(change for change in Journal().changes() if change.namespace == here),
        tuple(leftovers),
        unsteered,
    )
