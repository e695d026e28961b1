"""Brings a network namespace to what a policy asks: look, plan, do, verify; undone where a step fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from hybrid.agent import ports, veth
from hybrid.agent.desired import can_do_without, comparable, has_port, in_order
from hybrid.agent.plan import (
    Attach,
    Detach,
    Forget,
    MakePort,
    Present,
    Remember,
    RemovePort,
    ReplaceRules,
    ReservePorts,
    Step,
    plan,
)
from hybrid.agent.state import Applied, Namespace, Store, locked
from hybrid.bpf import PinState, Steering, XdpMode, attached, ensure_bpffs, inspect
from hybrid.devices.ethtool import interface_number
from hybrid.errors import BusyError, HybridError, RolledBackError
from hybrid.policy import CompiledInterface, FrameDevice, Rule

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What was (or would be) changed, what each interface obtained, and why some could not be steered."""

    steps: tuple[Step, ...]
    present: dict[str, Present]
    without: dict[str, str] = field(default_factory=dict)


class Agent:
    """Works on the calling thread's network namespace."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store(Namespace.current())
        self._without: dict[str, str] = {}  # interfaces that go on without their bypass, and why

    def look(self) -> dict[str, Present]:
        """Every interface of this namespace that is steered by us."""
        remembered = self.store.load()
        found: dict[str, Present] = {}
        for pinned in attached():
            if pinned.state is not PinState.ATTACHED or pinned.obtained is None:
                continue
            if pinned.obtained.netns != self.store.namespace.inode:
                continue
            name = pinned.obtained.ifname
            with pinned.open() as steering:
                rules = in_order(steering.rules())
                port = steering.port() != 0
                found[name] = Present(
                    pinned.obtained,
                    rules,
                    tuple(steering.sockets()),
                    remembered.get(name),
                    port,
                    port and steering.leased(),
                )
        return found

    def plan(self, desired: Sequence[CompiledInterface]) -> Result:
        """What :meth:`apply` would do, with everything checked that can be without doing it."""
        present = self.look()
        for wanted in desired:
            self._check(wanted, present.get(wanted.name))
        wanted_rules = [comparable(wanted) for wanted in desired]
        veths = [name for name, _near in veth.all_of_them()]
        steps = plan(wanted_rules, present, self.store.load(), ports.read(), self.store.ports(), veths)
        for step in steps:
            if isinstance(step, Detach) and (present[step.ifname].sockets or present[step.ifname].leased):
                raise BusyError(
                    f"{step.ifname} has to be detached ({step.why}), and a program is in service on it",
                    "end the program first; hybrid status names it",
                )
        return Result(tuple(steps), present)

    def apply(self, desired: Sequence[CompiledInterface], policy: str) -> Result:
        """Does it. ``RolledBackError``: a step failed, and those before it were undone."""
        with locked(self.store.folder.parent):
            ensure_bpffs()
            result = self.plan(desired)
            self._without.clear()
            done: list[tuple[Step, Undo]] = []
            try:
                for step in result.steps:
                    done.append((step, self._do(step, policy)))
                self._verify(desired)
            except BaseException as error:
                self._undo(done, error)
                raise
            return Result(result.steps, self.look(), dict(self._without))

    def restore(self, name: str) -> Present | None:
        """Steers an interface again that has come back, as the policy that was applied last asks.

        ``None``: it is not there, or nothing was applied to it. Rules count anew.
        """
        applied = self.store.load().get(name)
        if applied is None or not applied.desired.steered or not interface_number(name):
            return None
        with locked(self.store.folder.parent):
            there = self.look().get(name)
            if there is None:
                wanted = comparable(applied.desired)
                self._check(wanted, None)
                for step in (Attach(wanted), ReplaceRules(wanted, ())):
                    self._do(step, applied.policy)
                if has_port(wanted):
                    self._do(MakePort(wanted), applied.policy)
                self._do(Remember(wanted, applied), applied.policy)
                there = self.look().get(name)
        return there

    # -- before -----------------------------------------------------------------------

    def _check(self, wanted: CompiledInterface, there: Present | None) -> None:
        if not wanted.steered and wanted.device is not FrameDevice.PACKET:
            return  # made when a program starts, or not the kernel's at all
        if not interface_number(wanted.name):
            if can_do_without(wanted):
                return
            raise HybridError(
                f"there is no interface {wanted.name!r} in this network namespace",
                "see those there are: ip link; for another namespace: --netns NAME",
            )
        if there is None:
            program = inspect(wanted.name)
            if program is not None:
                raise BusyError(
                    f"{wanted.name} has an XDP program of somebody else's: "
                    f"{program.name or 'without a name'} (id {program.program_id})",
                    f"if it may go, remove it: {program.removal(wanted.name)}",
                )

    # -- the steps ----------------------------------------------------------------------

    def _do(self, step: Step, policy: str) -> Undo:
        """Does one step; returns what takes it back."""
        store = self.store
        match step:
            case ReservePorts():
                # Remembered before it is done: a kill in between must not leave ports nobody knows of.
                store.save_ports(step.ours_before | step.ours_after)
                ports.write(step.after)
                store.save_ports(step.ours_after)
                return lambda: self._restore_ports(step)
            case Attach():
                return self._do_attach(step)
            case Detach():
                return self._do_detach(step)
            case ReplaceRules() | MakePort() if step.desired.name in self._without:
                return _nothing
            case ReplaceRules():
                self._replace(step.desired.name, step.desired.rules)
                return lambda: self._replace(step.desired.name, step.before)
            case MakePort():
                return self._do_make_port(step)
            case RemovePort():
                veth.remove(step.ifname)
                return _nothing  # only where nothing redirects into it any more
            case Remember():
                return self._do_remember(step, policy)
            case Forget():
                store.forget(step.applied.ifname)
                return lambda: store.save(step.applied)

    def _do_attach(self, step: Attach) -> Undo:
        """Where the bypass cannot be had and every port has a fallback, goes on without it and says so."""
        name = step.desired.name
        try:
            Steering.attach(name, step.desired.mode).close()
        except BusyError:
            raise
        except HybridError as error:
            if not can_do_without(step.desired):
                raise
            self._without[name] = error.message
            return _nothing
        return lambda: self._detach(name)

    def _do_make_port(self, step: MakePort) -> Undo:
        name = step.desired.name
        assert step.desired.dpdk is not None
        made = not veth.exists(name)
        veth.make(name, step.desired.dpdk.queues)
        with Steering.open(name) as steering:
            steering.set_port(veth.ends(name)[0])
        return lambda: veth.remove(name) if made else None

    def _restore_ports(self, step: ReservePorts) -> None:
        ports.write(step.before)
        self.store.save_ports(step.ours_before)

    def _detach(self, name: str) -> None:
        with Steering.open(name) as steering:
            steering.detach()

    def _replace(self, name: str, rules: Sequence[Rule]) -> None:
        with Steering.open(name) as steering:
            steering.replace_rules(rules)

    def _do_detach(self, step: Detach) -> Undo:
        with closing(Steering.open(step.ifname)) as steering:
            mode, rules = steering.obtained.mode, steering.rules()
            steering.detach()

        def attach_again() -> None:
            with Steering.attach(step.ifname, mode) as steering:
                steering.replace_rules(rules)

        return attach_again

    def _do_remember(self, step: Remember, policy: str) -> Undo:
        wanted = step.desired
        obtained, note = "", self._without.get(wanted.name, "")
        if wanted.steered and not note:
            with Steering.open(wanted.name) as steering:
                obtained, note = steering.obtained.mode, steering.obtained.note
        self.store.save(Applied(wanted, policy, obtained, note))
        before = step.before
        return lambda: self.store.save(before) if before else self.store.forget(wanted.name)

    # -- after ---------------------------------------------------------------------------

    def _verify(self, desired: Sequence[CompiledInterface]) -> None:
        """Reads back what the kernel has."""
        present = self.look()
        for wanted in desired:
            if not wanted.steered or wanted.name in self._without:
                continue
            there = present.get(wanted.name)
            if there is None or there.rules != comparable(wanted).rules:
                raise HybridError(
                    f"the kernel does not hold the rules of {wanted.name} that were given to it",
                    "see hybrid status; another process may have changed them",
                )
            beyond = [queue for queue in wanted.queues or () if queue >= there.obtained.queues]
            if beyond:
                raise HybridError(
                    f"{wanted.name} has {there.obtained.queues} receive queues, and no queue {beyond[0]}",
                    f"correct `queues` in the policy, or give it more: ethtool -L {wanted.name}",
                )
            if wanted.strict and XdpMode(wanted.mode) not in (XdpMode.AUTO, there.obtained.mode):
                raise HybridError(
                    f"{wanted.name}: {wanted.mode} mode was asked for, {there.obtained.mode} obtained",
                    "allow it with strict: false, or choose another mode",
                )

    def _undo(self, done: list[tuple[Step, Undo]], cause: BaseException) -> None:
        failed = []
        for step, undo in reversed(done):
            try:
                undo()
            except HybridError as error:
                failed.append(f"{step} ({error.message})")
        if not isinstance(cause, HybridError) or not done:
            return
        if failed:
            raise HybridError(
                f"{cause.message}; not everything could be put back: {'; '.join(failed)}",
                "see hybrid status; hybrid clean removes all of it",
            ) from cause
        raise RolledBackError(
            f"{cause.message}; everything was put back as it was", cause.remedy, errno=cause.errno
        ) from cause


def _nothing() -> None:
    """Takes back a step that has changed nothing."""
