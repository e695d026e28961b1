"""Finds what `hybrid apply` prepared in this network namespace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hybrid.agent.apply import Agent
from hybrid.agent.plan import Present
from hybrid.agent.state import Applied
from hybrid.errors import HybridError
from hybrid.launch.control import Copy
from hybrid.launch.datapath import Interface
from hybrid.launch.tap import ROW
from hybrid.policy import CompiledInterface, CopyMode, FrameDevice

_COPY = {CopyMode.AUTO: Copy.AUTO, CopyMode.ZEROCOPY: Copy.ZEROCOPY, CopyMode.COPY: Copy.COPY}


def interfaces(names: Sequence[str] = ()) -> list[Interface]:
    """Those that a policy was applied to here; with ``names`` these alone. ``HybridError``: none are."""
    agent = Agent()
    present, remembered = agent.look(), agent.store.load()
    there = sorted(present.keys() | remembered.keys())
    for name in names:
        if name not in there:
            raise HybridError(
                f"{name} is not steered in this network namespace",
                "hybrid apply FILE, with a policy that names it",
            )
    found = [
        _steered(present[name]) if name in present else _unsteered(remembered[name])
        for name in there
        if not names or name in names
    ]
    if not found:
        raise HybridError(
            "nothing is steered in this network namespace",
            "hybrid apply FILE first; for another namespace: --netns NAME",
        )
    return found


def _steered(there: Present) -> Interface:
    obtained, asked = there.obtained, there.applied
    queues = tuple(range(obtained.queues))
    if asked is None:
        return Interface(
            name=obtained.ifname,
            ifindex=obtained.ifindex,
            queues=queues,
            attach_requested=obtained.requested,
            attach_obtained=obtained.mode,
            note=obtained.note,
            rules=there.rules,
        )
    wanted = asked.desired
    if wanted.queues is not None:
        queues = tuple(queue for queue in wanted.queues if queue < obtained.queues)
    return replace(
        without_bypass(wanted, obtained.note),
        name=obtained.ifname,
        ifindex=obtained.ifindex,
        queues=queues,
        attach_requested=wanted.mode,
        attach_obtained=obtained.mode,
        rules=there.rules,
    )


def _unsteered(asked: Applied) -> Interface:
    if asked.desired.steered:
        return without_bypass(asked.desired, asked.note or "the interface is not there")
    made = without_bypass(asked.desired, f"device {asked.desired.device}")
    if asked.desired.device is FrameDevice.TAP:  # made when the program starts
        return replace(made, ifindex=ROW, tap=asked.desired.tap, attach_obtained="tap", note="")
    return made


def without_bypass(wanted: CompiledInterface, note: str) -> Interface:
    """An interface whose bypass is not there now: its ports are where their fallbacks say."""
    return Interface(
        name=wanted.name,
        ifindex=0,
        queues=wanted.queues or (),
        attach_requested=wanted.mode if wanted.device is FrameDevice.AFXDP else str(wanted.device),
        attach_obtained="none",
        note=note,
        rules=wanted.rules,
        copy=_COPY[CopyMode(wanted.copy)],
        busy_poll=wanted.busy_poll,
        tx_checksum=wanted.tx_checksum,
        strict=wanted.strict,
        every_queue=wanted.queues is None,
        device=wanted.device,
        dpdk=wanted.dpdk,
        uring=wanted.uring,
    )
