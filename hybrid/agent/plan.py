"""The difference between what a policy asks and what is there, as steps. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hybrid.agent.desired import has_port, outgoing
from hybrid.agent.ports import spread
from hybrid.agent.state import Applied
from hybrid.bpf import Obtained, XdpMode
from hybrid.policy import CompiledInterface, FrameDevice, Rule, describe
from hybrid.ranges import format_ranges


@dataclass(frozen=True, slots=True)
class Present:
    """An interface as it is: its program, the rules in force, the queues with a socket, what was asked.

    ``port``: its rules are redirected into the veth of a DPDK port, and that is there.
    """

    obtained: Obtained
    rules: tuple[Rule, ...]
    sockets: tuple[int, ...]
    applied: Applied | None
    port: bool = False
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Attach:
    """Load the program and attach it."""

    desired: CompiledInterface

    def __str__(self) -> str:
        return f"{self.desired.name}: attach the steering program ({self.desired.mode} mode)"


@dataclass(frozen=True, slots=True)
class Detach:
    """Take the program away; the kernel has every frame again."""

    ifname: str
    why: str

    def __str__(self) -> str:
        return f"{self.ifname}: detach the steering program ({self.why})"


@dataclass(frozen=True, slots=True)
class ReplaceRules:
    """Exchange all rules at once."""

    desired: CompiledInterface
    before: tuple[Rule, ...]

    def __str__(self) -> str:
        return f"{self.desired.name}: replace the rules at once"

    def details(self) -> list[str]:
        """One line for each rule that comes, goes or changes."""
        old = {rule.name: rule for rule in self.before}
        new = {rule.name: rule for rule in self.desired.rules}
        gone = [f"  - {name}: {describe(rule)}" for name, rule in old.items() if new.get(name) != rule]
        come = [f"  + {name}: {describe(rule)}" for name, rule in new.items() if old.get(name) != rule]
        return gone + come or ["  ~ the same rules in another order"]


@dataclass(frozen=True, slots=True)
class MakePort:
    """Make the veth of the DPDK port and redirect into it."""

    desired: CompiledInterface

    def __str__(self) -> str:
        return f"{self.desired.name}: make the veth of its DPDK port"


@dataclass(frozen=True, slots=True)
class RemovePort:
    """Take the veth away."""

    ifname: str

    def __str__(self) -> str:
        return f"{self.ifname}: remove the veth of its DPDK port"


@dataclass(frozen=True, slots=True)
class Remember:
    """Note what the policy asks of the sockets, for programs started from now on."""

    desired: CompiledInterface
    before: Applied | None

    def __str__(self) -> str:
        words = [f"copy {self.desired.copy}"]
        words.append("all queues" if self.desired.queues is None else f"queues {list(self.desired.queues)}")
        words += ["busy polling"] if self.desired.busy_poll else []
        words += ["checksums left to the kernel"] if self.desired.tx_checksum else []
        words += ["strict"] if self.desired.strict else []
        words += [] if self.desired.device is FrameDevice.AFXDP else [f"device {self.desired.device}"]
        return f"{self.desired.name}: socket options for programs started from now on: {', '.join(words)}"


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove what was noted of an interface."""

    applied: Applied

    def __str__(self) -> str:
        return f"{self.applied.ifname}: forget the policy"


@dataclass(frozen=True, slots=True)
class ReservePorts:
    """Change which local ports the kernel does not hand out by itself."""

    before: frozenset[int]
    after: frozenset[int]
    ours_before: frozenset[int]
    ours_after: frozenset[int]

    def __str__(self) -> str:
        said = format_ranges(self.ours_after)
        return f"reserve local ports {said} for steered connections" if said else "release local ports"


Step = Attach | Detach | ReplaceRules | MakePort | RemovePort | Remember | Forget | ReservePorts


def _line(rule: Rule) -> str:
    return f"{rule.name} (priority {rule.priority}): {describe(rule)}"


def plan(
    desired: Sequence[CompiledInterface],
    present: Mapping[str, Present],
    remembered: Mapping[str, Applied],
    reserved: frozenset[int],
    ours: frozenset[int],
    veths: Collection[str] = (),
) -> list[Step]:
    """Steps in the order they are to be done. None: nothing to change.

    Ports come first and interfaces that the policy no longer names last, so that at no time a frame
    is steered whose port the kernel may still hand out.
    """
    steps: list[Step] = []
    names = {wanted.name for wanted in desired}
    others = reserved - ours
    wanted_ports = spread(range_ for wanted in desired for range_ in outgoing(wanted))
    after = others | wanted_ports
    if after != reserved or wanted_ports - others != ours:
        steps.append(ReservePorts(reserved, after, ours, wanted_ports - others))
    for wanted in desired:
        steps += _interface(wanted, present.get(wanted.name), remembered.get(wanted.name))
    for name in sorted(present.keys() - names):
        steps.append(Detach(name, "the policy does not name it"))
    wants_port = {wanted.name for wanted in desired if has_port(wanted)}
    steps += [RemovePort(name) for name in sorted(set(veths) - wants_port)]
    for name in sorted(remembered.keys() - names):
        steps.append(Forget(remembered[name]))
    return steps


def _interface(wanted: CompiledInterface, there: Present | None, remembered: Applied | None) -> list[Step]:
    steps: list[Step] = []
    before: tuple[Rule, ...] = ()
    if not wanted.steered:
        if there is not None:
            steps.append(Detach(wanted.name, f"its device is {wanted.device} now"))
        return steps if _same(wanted, remembered) else [*steps, Remember(wanted, remembered)]
    if there is not None and XdpMode(wanted.mode) not in (XdpMode.AUTO, there.obtained.mode):
        steps.append(Detach(wanted.name, f"it is in {there.obtained.mode} mode, {wanted.mode} is asked for"))
        there = None
    if there is None:
        steps.append(Attach(wanted))
    else:
        before = there.rules
    if before != wanted.rules:
        steps.append(ReplaceRules(wanted, before))
    if has_port(wanted) and (there is None or not there.port):
        steps.append(MakePort(wanted))
    if steps or not _same(wanted, remembered):
        steps.append(Remember(wanted, remembered))
    return steps


def _same(wanted: CompiledInterface, remembered: Applied | None) -> bool:
    return remembered is not None and remembered.desired == wanted
