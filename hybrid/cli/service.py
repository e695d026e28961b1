"""What `hybrid serve` and `hybrid run` have in common: find the datapath, start the program, report, stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybrid.cli.commands.status import describe_device
from hybrid.cli.session import Session
from hybrid.errors import HybridError, PrivilegeError, UsageError

if TYPE_CHECKING:
    from hybrid.launch.datapath import Datapath, Interface
    from hybrid.launch.launcher import InService

__all__ = [
    "Backend",
    "BackendOption",
    "InterfaceOption",
    "OutliveOption",
    "PolicyOption",
    "UserOption",
    "run_program",
]


class Backend(StrEnum):
    """What a program's ports are on."""

    AUTO = "auto"
    URING = "uring"


BackendOption = Annotated[
    Backend,
    typer.Option(
        "--backend",
        help="auto: as the policy says. uring: the kernel's sockets for every port; wants no privilege.",
    ),
]
OutliveOption = Annotated[
    bool,
    typer.Option(
        "--outlive",
        help="The program goes on where this command is killed: with addresses and neighbours as they were, "
        "and nobody to give lost queues back.",
    ),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="Where nothing is applied: a policy whose fallbacks say what the kernel's sockets may serve.",
        show_default="what was applied",
    ),
]

InterfaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--interface",
        "-i",
        metavar="NAME",
        help="Use the queues of this steered interface only; may be given several times.",
        show_default="all that are steered",
    ),
]
UserOption = Annotated[
    str | None,
    typer.Option("--user", metavar="NAME", help="Run the program as this user.", show_default="this one"),
]


def run_program(
    session: Session,
    command: Sequence[str],
    interfaces: Sequence[str] | None,
    user: str | None,
    backend: Backend = Backend.AUTO,
    policy: Path | None = None,
    outlive: bool = False,
) -> int:
    """Runs it with the datapath of this network namespace. Its exit code."""
    from hybrid.launch.launcher import Launch

    if backend is Backend.URING and (interfaces or policy):
        raise UsageError(
            "--backend uring takes no policy and no interface", "leave out --policy and --interface"
        )
    with _datapath(session, interfaces or (), backend, policy) as datapath:
        found = list(datapath.interfaces)

        def ready(service: InService) -> None:
            session.output.emit(_data(command, found, service), *_text(found, service))

        datapath.check_free()
        return Launch(
            command=command,
            path=datapath,
            environ=session.environ,
            on_ready=ready,
            warn=session.output.note,
            user=user,
            outlives=outlive,
            about={"interfaces": [_attached(interface) for interface in found]},
        ).run()


def _datapath(session: Session, names: Sequence[str], backend: Backend, policy: Path | None) -> Datapath:
    """The one that was applied; the kernel's sockets where that is asked for, or all that can be had."""
    from hybrid.launch.applied import interfaces, without_bypass
    from hybrid.launch.datapath import Datapath
    from hybrid.policy import compile_policy, load

    if backend is Backend.URING:
        return Datapath.of_the_kernel()
    wanted = compile_policy(load(policy)).interfaces if policy is not None else ()
    try:
        found = interfaces(names)
        datapath = Datapath.open(found)
        why = "; ".join(f"{i.name}: {i.note}" for i in found if i.note) or "nothing is bypassed"
        if datapath.devices:
            return datapath
        if datapath.can_do_without:
            session.output.note(f"no bypass now ({why}): every port is on the kernel's sockets")
            return datapath
    except PrivilegeError as error:
        if policy is None:
            raise
        why = error.message
    except HybridError as error:
        if policy is None or error.errno is not None:
            raise
        why = error.message
    if wanted:
        found = [
            without_bypass(interface, why) for interface in wanted if not names or interface.name in names
        ]
    kernel = Datapath.of_the_kernel(found)
    if not kernel.can_do_without:
        raise HybridError(
            f"the bypass cannot be had ({why}), and some ports have no fallback",
            "fallback: kernel in their rules serves them by the kernel's sockets; strict: true forbids it",
        )
    session.output.note(f"no bypass ({why}): every port is on the kernel's sockets")
    return kernel


def _attached(interface: Interface) -> dict[str, Any]:
    return {
        "name": interface.name,
        "queues": list(interface.queues),
        "mode_requested": interface.attach_requested,
        "mode_obtained": interface.attach_obtained,
        "note": interface.note,
    }


def _data(command: Sequence[str], found: Sequence[Interface], service: InService) -> dict[str, Any]:
    return {
        "ready": True,
        "command": list(command),
        "pid": service.pid,
        "interfaces": [_attached(interface) for interface in found],
        "devices": [{"requested": asdict(asked), "obtained": asdict(got)} for asked, got in service.devices],
        "ports": [str(port) for port in service.ports],
        "placed": {str(port): placed for port in service.ports if (placed := service.placed(port))},
        "kernel": {"requested": service.kernel != 1, "obtained": service.kernel == 0},
    }


def _text(found: Sequence[Interface], service: InService) -> list[str]:
    ports = [
        f"{port} ({placed})" if (placed := service.placed(port)) else str(port) for port in service.ports
    ]
    lines = [f"ready: {', '.join(ports) or 'no port of its own'} (pid {service.pid})"]
    for interface in found:
        lines.append(
            f"  {interface.name}: {interface.attach_obtained} mode (requested {interface.attach_requested})"
            + (f"; {interface.note}" if interface.note else "")
        )
        lines += [
            f"    {describe_device(asdict(asked), asdict(got))}"
            for asked, got in service.devices
            if asked.ifindex == interface.ifindex
        ]
    return lines
