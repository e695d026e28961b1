"""Channels: as many receive queues as are served.

The card spreads flows over all of its queues (RSS), and a flow that lands on a queue without a socket is the
kernel's: too many queues lose flows of the bypass, too few leave cores idle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hybrid.agent.settings import Channels
from hybrid.agent.state import Namespace, Store
from hybrid.bpf import PinState, attached
from hybrid.devices.interfaces import Interface
from hybrid.doctor.finding import Finding, Outcome
from hybrid.doctor.stages.stage import Checked, Wanted, remedy, subjects
from hybrid.errors import HybridError
from hybrid.ranges import format_ranges

__all__ = ["check"]

_NAME = "channels"


def check(wanted: Wanted, root: Path) -> Iterator[Checked]:
    """One finding for each interface."""
    for subject in subjects(_NAME, wanted, root):
        yield subject if isinstance(subject, Checked) else _check(subject, wanted)


def _check(interface: Interface, wanted: Wanted) -> Checked:
    now, name = interface.channels, interface.name
    if now is None or not now.receiving_max:
        return Checked(Finding(_NAME, Outcome.YES, f"{name}: its driver leaves nothing to choose"))
    queues, why = _target(interface, wanted)
    detail = f"{name}: receive queues {now.receiving}, at most {now.receiving_max}; {queues} wanted, {why}"
    if queues > now.receiving_max:
        fewer = f"hybrid doctor --interface {name} --queues {now.receiving_max}"
        return Checked(Finding(_NAME, Outcome.NO, detail, remedy=fewer))
    if now.receiving == queues:
        spread = interface.rss_queues
        if spread is None or spread == tuple(range(queues)):
            return Checked(Finding(_NAME, Outcome.YES, detail))
        detail = f"{detail}; but the card spreads flows over {format_ranges(spread)} alone (RSS)"
        return Checked(Finding(_NAME, Outcome.NO, detail, remedy=f"ethtool -X {name} equal {queues}"))
    asked = "" if wanted.queues is None else f" --queues {wanted.queues}"
    found = Finding(_NAME, Outcome.NO, detail, remedy=remedy(_NAME, interface, asked))
    if now.combined_max:
        value = Channels.value(queues, now.rx, now.tx)
    else:
        value = Channels.value(0, queues, min(queues, now.tx_max))
    return Checked(found, ((Channels(name, interface.ifindex), value),), partial(_busy, name))


def _target(interface: Interface, wanted: Wanted) -> tuple[int, str]:
    if wanted.queues is not None:
        return wanted.queues, "as asked for"
    if wanted.cores:
        return len(wanted.cores), "one for each core named"
    steered = Store(Namespace.current()).load().get(interface.name)
    if steered is not None and steered.desired.queues:
        return max(steered.desired.queues) + 1, "those of the policy"
    assert interface.channels is not None
    cores = len(os.sched_getaffinity(0))
    return min(cores, interface.channels.receiving_max), f"for {cores} cores"


def _busy(name: str) -> str:
    """A change of the number resets every queue, under whoever is in service there."""
    inode = Namespace.current().inode
    try:
        for pinned in attached():
            there = pinned.obtained
            if pinned.state is not PinState.ATTACHED or there is None:
                continue
            if (there.netns, there.ifname) == (inode, name):
                with pinned.open() as steering:
                    served = steering.sockets()
                if served:
                    return f"{name}: a program is in service on it; end it first (hybrid status names it)"
    except HybridError as error:
        return f"{name}: {error.message}"
    return ""
