"""A policy as the rest of the program uses it, made from the model, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from hybrid.errors import PolicyError
from hybrid.policy.check import check_devices, check_interfaces, check_rules, effective_priority
from hybrid.policy.device import DpdkPort, FrameDevice, Tap, Uring, Via
from hybrid.policy.model import CopyMode, InterfaceModel, Mode, PolicyModel
from hybrid.policy.rule import Fallback, Rule, Target

__all__ = [
    "CompiledInterface",
    "CompiledPolicy",
    "InterfaceDiff",
    "PolicyDiff",
    "compile_policy",
    "describe",
    "diff",
]


@dataclass(frozen=True, slots=True)
class CompiledInterface:
    """What is requested of one interface. ``queues`` None: all. ``rules`` in the order they are tried.

    ``uring`` is the same in all interfaces of a policy, and so are the EAL arguments in ``dpdk``.
    """

    name: str
    rules: tuple[Rule, ...]
    mode: Mode = Mode.AUTO
    copy: CopyMode = CopyMode.AUTO
    busy_poll: bool = False
    tx_checksum: bool = False
    strict: bool = False
    queues: tuple[int, ...] | None = None
    device: FrameDevice = FrameDevice.AFXDP
    dpdk: DpdkPort | None = None
    tap: Tap | None = None
    uring: Uring = field(default_factory=Uring)

    @property
    def steered(self) -> bool:
        """Whether our program is attached to it."""
        return self.device.steered and (self.dpdk is None or self.dpdk.via is Via.DEVMAP)


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """All interfaces, in the order of the file."""

    interfaces: tuple[CompiledInterface, ...] = ()

    def interface(self, name: str) -> CompiledInterface | None:
        """By name."""
        return next((found for found in self.interfaces if found.name == name), None)


def compile_policy(policy: PolicyModel) -> CompiledPolicy:
    """Turns a policy into rows for the steering table. Pure.

    PolicyError: the rules contradict each other (hybrid.policy.check); a policy that came from
    ``load`` has been checked already and compiles.
    """
    numbered = list(enumerate(policy.interfaces))
    findings = list(check_interfaces(numbered))
    for _, interface in numbered:
        findings.extend(check_rules(list(enumerate(interface.rules))))
        findings.extend(check_devices(interface))
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise PolicyError(f"the policy cannot be used: {findings[0].message}{more}", findings[0].expected)
    return CompiledPolicy(tuple(_interface(interface, policy) for interface in policy.interfaces))


def _interface(model: InterfaceModel, policy: PolicyModel) -> CompiledInterface:
    rules = [
        Rule(
            name=rule.name,
            priority=effective_priority(rule, index),
            to=_target(rule.to, model.device),
            protocol=rule.match.protocol,
            source=rule.match.source,
            destination=rule.match.destination,
            ports=rule.match.destination_port,
            fallback=rule.fallback,
        )
        for index, rule in enumerate(model.rules)
    ]
    return CompiledInterface(
        name=model.name,
        rules=tuple(sorted(rules, key=lambda rule: -rule.priority)),
        mode=model.mode,
        copy=model.copy_mode,
        busy_poll=model.busy_poll,
        tx_checksum=model.tx_checksum,
        strict=model.strict,
        queues=None if model.queues == "all" else tuple(model.queues),
        device=model.device,
        dpdk=_dpdk(model, policy, rules),
        tap=None
        if model.tap is None
        else Tap(tuple(model.tap.addresses), str(model.tap.gateway) if model.tap.gateway else ""),
        uring=Uring() if policy.uring is None else Uring(**policy.uring.model_dump()),
    )


def _target(to: Target, device: FrameDevice) -> Target:
    """What ``bypass`` means there."""
    meant = {FrameDevice.AFXDP: Target.AFXDP, FrameDevice.DPDK: Target.DPDK}
    return meant.get(device, to) if to is Target.BYPASS else to


def _dpdk(model: InterfaceModel, policy: PolicyModel, rules: Sequence[Rule]) -> DpdkPort | None:
    """The port that is asked for; none where no rule and no key speak of one."""
    asked = model.dpdk
    wanted = model.device is FrameDevice.DPDK or any(rule.to is Target.DPDK for rule in rules)
    if asked is None and not wanted:
        return None
    eal = tuple(policy.dpdk.eal) if policy.dpdk is not None else ()
    return DpdkPort(eal=eal) if asked is None else DpdkPort(asked.via, asked.port or "", asked.queues, eal)


def describe(rule: Rule) -> str:
    """A rule in a line: "tcp from 10.0.0.0/8 port 6379 -> afxdp (priority 1000)"."""
    words = [rule.protocol.value if rule.protocol else "tcp or udp"]
    if rule.source is not None:
        words.append(f"from {rule.source}")
    if rule.destination is not None:
        words.append(f"to {rule.destination}")
    if rule.ports is not None:
        first, last = rule.ports
        words.append(f"port {first}" if first == last else f"ports {first}-{last}")
    fallback = "" if rule.fallback is Fallback.NONE else f", fallback {rule.fallback}"
    return f"{' '.join(words)} -> {rule.to}{fallback} (priority {rule.priority})"


@dataclass(frozen=True, slots=True)
class InterfaceDiff:
    """What changes on one interface. ``settings`` maps what differs to (old, new)."""

    name: str
    old: CompiledInterface | None
    new: CompiledInterface | None
    settings: Mapping[str, tuple[object, object]]
    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    changed: tuple[tuple[Rule, Rule], ...]

    @property
    def rules_only(self) -> bool:
        """True if the interface stays attached as it is and a flip of generations is all there is to do."""
        return self.old is not None and self.new is not None and not self.settings

    def lines(self) -> Iterator[str]:
        """For people: "+ rule redis: ...", one line a change."""
        if self.old is None or self.new is None:
            yield f"{'+' if self.old is None else '-'} interface {self.name}"
        for setting, (old, new) in self.settings.items():
            yield f"~ {self.name} {setting}: {_text(old)} -> {_text(new)}"
        for rule in self.removed:
            yield f"- {self.name} rule {rule.name}: {describe(rule)}"
        for before, after in self.changed:
            yield f"~ {self.name} rule {after.name}: {describe(before)}  =>  {describe(after)}"
        for rule in self.added:
            yield f"+ {self.name} rule {rule.name}: {describe(rule)}"


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """What changes from one policy to another; only interfaces that change are listed."""

    interfaces: tuple[InterfaceDiff, ...]

    def __bool__(self) -> bool:
        return bool(self.interfaces)

    def lines(self) -> Iterator[str]:
        """For people, one line a change; none where there is nothing to do."""
        for interface in self.interfaces:
            yield from interface.lines()


def diff(old: CompiledPolicy, new: CompiledPolicy) -> PolicyDiff:
    """What has to change for ``new`` to be in force where ``old`` is. Pure. Rules are told apart by name."""
    names = list(dict.fromkeys(found.name for found in (*old.interfaces, *new.interfaces)))
    pairs = ((name, old.interface(name), new.interface(name)) for name in names)
    return PolicyDiff(tuple(_diff_interface(name, was, will) for name, was, will in pairs if was != will))


def _diff_interface(name: str, old: CompiledInterface | None, new: CompiledInterface | None) -> InterfaceDiff:
    settings: dict[str, tuple[object, object]] = {}
    if old is not None and new is not None:
        for key in fields(CompiledInterface):
            was, will = getattr(old, key.name), getattr(new, key.name)
            if key.name not in ("name", "rules") and was != will:
                settings[key.name] = (was, will)
    before = _by_name(old.rules if old is not None else ())
    after = _by_name(new.rules if new is not None else ())
    return InterfaceDiff(
        name=name,
        old=old,
        new=new,
        settings=settings,
        added=tuple(rule for key, rule in after.items() if key not in before),
        removed=tuple(rule for key, rule in before.items() if key not in after),
        changed=tuple((before[key], rule) for key, rule in after.items() if before.get(key, rule) != rule),
    )


def _by_name(rules: Sequence[Rule]) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules}


def _text(value: object) -> str:
    if value is None:
        return "all"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return str(value)
