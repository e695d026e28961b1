"""What the host has to be set to for a bypass, in stages: checked, fixed, and undone by `hybrid clean`.

A stage is a function that looks and gives, for each thing it looked at, a finding and the steps that would
mend it: a setting and the value that it should have. It changes nothing; :func:`fix` does, one stage
after the other, writes every change into the journal (hybrid.agent.changes), and looks again. A new stage
is a file and a line in ``STAGES``, whose order is that in which they are fixed: queues before interrupts,
which come and go with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybrid.agent.changes import Change, Journal
from hybrid.agent.state import Namespace, locked
from hybrid.devices.interfaces import find
from hybrid.doctor.finding import Finding, Outcome
from hybrid.doctor.privileges import has
from hybrid.doctor.stages import channels, hugepages, irq, offloads
from hybrid.doctor.stages.stage import Checked, Wanted
from hybrid.errors import HybridError, PrivilegeError

__all__ = ["STAGES", "Fixed", "Wanted", "check", "fix"]

STAGES: Mapping[str, Callable[[Wanted, Path], Iterator[Checked]]] = {
    "hugepages": hugepages.check,
    "channels": channels.check,
    "offloads": offloads.check,
    "irq": irq.check,
}


@dataclass
class Fixed:
    """What was changed, what could not be, in words, and how the stages stand now."""

    changes: list[Change] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is left to mend."""
        return not self.failed and all(found.outcome is Outcome.YES for found in self.findings)


def check(wanted: Wanted, names: Sequence[str] = (), root: Path = Path("/")) -> Iterator[Finding]:
    """Every stage, or those named. ``HybridError``: an interface that was named is not there."""
    for name in wanted.interfaces:
        find(name, root)
    for name, stage in STAGES.items():
        if not names or name in names:
            try:
                yield from (checked.finding for checked in stage(wanted, root))
            except HybridError as error:
                yield Finding(
                    name, Outcome.INCONCLUSIVE, error.message, remedy=error.remedy or "sudo hybrid doctor"
                )


def fix(names: Sequence[str], wanted: Wanted, journal: Journal) -> Fixed:
    """Mends the stages named. ``PrivilegeError``: this takes root, and nothing was changed."""
    if not has("CAP_NET_ADMIN") or not has("CAP_SYS_ADMIN"):
        raise PrivilegeError("changing the host's settings takes root", "sudo hybrid doctor --fix ...")
    for name in wanted.interfaces:
        find(name, journal.root)
    done = Fixed()
    here = Namespace.current()
    with locked(journal.folder.parent):
        for name, stage in STAGES.items():
            if name in names:
                for checked in list(stage(wanted, journal.root)):
                    _mend(checked, journal, here, done)
    done.findings = list(check(wanted, names, journal.root))
    return done


def _mend(checked: Checked, journal: Journal, here: Namespace, done: Fixed) -> None:
    if checked.steps and (busy := checked.busy()):
        done.failed.append(busy)
        return
    for setting, value in checked.steps:
        try:
            change = journal.make(setting, value, here)
        except HybridError as error:
            remedy = f" ({error.remedy})" if error.remedy else ""
            done.failed.append(f"{setting}: {error.message}{remedy}")
        else:
            done.changes += [change] if change is not None else []
