"""Brings a network namespace to what a policy asks: look, plan, do, verify; undone where a step fails."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from hybrid.agent import ports
from hybrid.agent.desired import comparable, in_order, outgoing
from hybrid.agent.plan import (
    Attach,
    Detach,
    Forget,
    Present,
    Remember,
    ReplaceRules,
    ReservePorts,
    Step,
    plan,
)
from hybrid.agent.state import Applied, Namespace, Store, locked
from hybrid.bpf import PinState, Steering, XdpMode, attached, ensure_bpffs, inspect
from hybrid.errors import BusyError, HybridError, RolledBackError
from hybrid.policy import CompiledInterface, Rule

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What was (or would be) changed, and what each interface obtained."""

    steps: tuple[Step, ...]
    present: dict[str, Present]


class Agent:
    """Works on the calling thread's network namespace."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store(Namespace.current())

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
                found[name] = Present(pinned.obtained, rules, tuple(steering.sockets()), remembered.get(name))
        return found

    def plan(self, desired: Sequence[CompiledInterface]) -> Result:
        """What :meth:`apply` would do, with everything checked that can be without doing it."""
        present = self.look()
        for wanted in desired:
            self._check(wanted, present.get(wanted.name))
        wanted_rules = [comparable(wanted) for wanted in desired]
        steps = plan(wanted_rules, present, self.store.load(), ports.read(), self.store.ports())
        for step in steps:
            if isinstance(step, Detach) and present[step.ifname].sockets:
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
            done: list[tuple[Step, Undo]] = []
            try:
                for step in result.steps:
                    done.append((step, self._do(step, policy)))
                self._verify(desired)
            except BaseException as error:
                self._undo(done, error)
                raise
            return Result(result.steps, self.look())

    # -- before -----------------------------------------------------------------------

    def _check(self, wanted: CompiledInterface, there: Present | None) -> None:
        try:
            socket.if_nametoindex(wanted.name)
        except OSError:
            raise HybridError(
                f"there is no interface {wanted.name!r} in this network namespace",
                "see those there are: ip link; for another namespace: --netns NAME",
            ) from None
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
                Steering.attach(step.desired.name, step.desired.mode).close()
                return lambda: self._detach(step.desired.name)
            case Detach():
                return self._do_detach(step)
            case ReplaceRules():
                self._replace(step.desired.name, step.desired.rules)
                return lambda: self._replace(step.desired.name, step.before)
            case Remember():
                return self._do_remember(step, policy)
            case Forget():
                store.forget(step.applied.ifname)
                return lambda: store.save(step.applied)

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
        with Steering.open(wanted.name) as steering:
            obtained = steering.obtained
        self.store.save(
            Applied(
                ifname=wanted.name,
                policy=policy,
                mode=wanted.mode,
                copy=wanted.copy,
                busy_poll=wanted.busy_poll,
                strict=wanted.strict,
                queues=wanted.queues,
                outgoing=outgoing(wanted),
                obtained=obtained.mode,
                note=obtained.note,
            )
        )
        before = step.before
        return lambda: self.store.save(before) if before else self.store.forget(wanted.name)

    # -- after ---------------------------------------------------------------------------

    def _verify(self, desired: Sequence[CompiledInterface]) -> None:
        """Reads back what the kernel has."""
        present = self.look()
        for wanted in desired:
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
