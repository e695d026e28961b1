"""What a stage is asked for, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hybrid.agent.settings import Setting
from hybrid.agent.state import Namespace, Store
from hybrid.devices.interfaces import Interface, interfaces
from hybrid.doctor.finding import Finding, Outcome

__all__ = ["Checked", "Wanted", "remedy", "subjects"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for; empty and None: what the policy and the programs in service need."""

    interfaces: tuple[str, ...] = ()
    hugepages: int | None = None
    queues: int | None = None
    cores: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Checked:
    """A finding, and what would mend it. ``busy`` says why it must not be mended now; empty: it may be."""

    finding: Finding
    steps: tuple[tuple[Setting, str], ...] = ()
    busy: Callable[[], str] = str


def subjects(stage: str, wanted: Wanted, root: Path) -> Iterator[Interface | Checked]:
    """The interfaces that were named, or else those that are steered here; a finding if that is none."""
    there = {interface.name: interface for interface in interfaces(root)}
    names = wanted.interfaces or tuple(Store(Namespace.current()).load())
    if not names:
        yield Checked(
            Finding(
                stage,
                Outcome.INCONCLUSIVE,
                "no interface is steered in this network namespace, and none was named",
                remedy="hybrid doctor --interface NAME",
            )
        )
    yield from (there[name] for name in names if name in there)


def remedy(stage: str, interface: Interface, options: str = "") -> str:
    """The command that mends it."""
    return f"sudo hybrid doctor --fix {stage} --interface {interface.name}{options}"
