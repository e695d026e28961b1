"""IRQ affinity: the interrupt of a queue goes to the core whose shard serves that queue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hybrid.agent.settings import Affinity
from hybrid.agent.state import Namespace
from hybrid.devices import interrupts
from hybrid.devices.interfaces import Interface
from hybrid.doctor.finding import Finding, Outcome
from hybrid.doctor.stages.stage import Checked, Wanted, remedy, subjects
from hybrid.launch.record import records
from hybrid.ranges import format_ranges

__all__ = ["check"]

_NAME = "irq"


def check(wanted: Wanted, root: Path) -> Iterator[Checked]:
    """One finding for each interface."""
    for subject in subjects(_NAME, wanted, root):
        yield subject if isinstance(subject, Checked) else _check(subject, wanted, root)


def _check(interface: Interface, wanted: Wanted, root: Path) -> Checked:
    name = interface.name
    queues = sorted(
        ((irq.queue, irq) for irq in interface.interrupts if irq.queue is not None), key=lambda row: row[0]
    )
    if not queues:
        return Checked(Finding(_NAME, Outcome.YES, f"{name}: its queues have no interrupts of their own"))
    cores = sorted(wanted.cores or _serving(interface.ifindex))
    if not cores:
        return Checked(
            Finding(
                _NAME,
                Outcome.INCONCLUSIVE,
                f"{name}: which cores serve it is not known: no program in service is bound to some",
                remedy=f"hybrid doctor --interface {name} --cores 1,2",
            )
        )
    wrong = []
    for place, (_, irq) in enumerate(queues):
        core = frozenset({cores[place % len(cores)]})
        if irq.cores != core:
            wrong.append((Affinity(irq.number, irq.action), format_ranges(core)))
    moved = "; irqbalance runs, and may move them" if interrupts.balancer(root) else ""
    if not wrong:
        detail = f"{name}: {len(queues)} queues' interrupts on cores {format_ranges(cores)}{moved}"
        return Checked(Finding(_NAME, Outcome.YES, detail))
    return Checked(
        Finding(
            _NAME,
            Outcome.NO,
            f"{name}: {len(wrong)} of {len(queues)} queues' interrupts are not on their core, "
            f"of {format_ranges(cores)}{moved}",
            remedy=remedy(_NAME, interface, f" --cores {format_ranges(cores)}"),
        ),
        tuple(wrong),
    )


def _serving(ifindex: int) -> frozenset[int]:
    """Cores that programs in service on the interface are bound to; none, if they may run anywhere."""
    inode, found = Namespace.current().inode, set[int]()
    for record in records():
        about = record.about
        devices = about.get("requested", [])
        if not record.alive or about.get("netns") != inode:
            continue
        if ifindex in [device.get("ifindex") for device in devices]:
            with suppress(OSError, TypeError):
                bound = os.sched_getaffinity(about["pid"])
                found |= bound if len(bound) < (os.cpu_count() or 1) else set()
    return frozenset(found)
