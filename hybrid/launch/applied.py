"""Finds what `hybrid apply` prepared in this network namespace."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid.agent.apply import Agent
from hybrid.agent.plan import Present
from hybrid.errors import HybridError
from hybrid.launch.control import Copy
from hybrid.launch.datapath import Interface
from hybrid.policy import CopyMode

_COPY = {CopyMode.AUTO: Copy.AUTO, CopyMode.ZEROCOPY: Copy.ZEROCOPY, CopyMode.COPY: Copy.COPY}


def interfaces(names: Sequence[str] = ()) -> list[Interface]:
    """Those steered here; with ``names`` these alone. ``HybridError``: there are none."""
    present = Agent().look()
    for name in names:
        if name not in present:
            raise HybridError(
                f"{name} is not steered in this network namespace",
                "hybrid apply FILE, with a policy that names it",
            )
    found = [_interface(there) for name, there in sorted(present.items()) if not names or name in names]
    if not found:
        raise HybridError(
            "nothing is steered in this network namespace",
            "hybrid apply FILE first; for another namespace: --netns NAME",
        )
    return found


def _interface(there: Present) -> Interface:
    obtained, asked = there.obtained, there.applied
    queues = tuple(range(obtained.queues))
    if asked is not None and asked.queues is not None:
        queues = tuple(queue for queue in asked.queues if queue < obtained.queues)
    return Interface(
        name=obtained.ifname,
        ifindex=obtained.ifindex,
        queues=queues,
        attach_requested=asked.mode if asked is not None else obtained.requested,
        attach_obtained=obtained.mode,
        note=obtained.note,
        rules=there.rules,
        copy=_COPY[CopyMode(asked.copy)] if asked is not None else Copy.AUTO,
        busy_poll=asked is not None and asked.busy_poll,
        strict=asked is not None and asked.strict,
    )
