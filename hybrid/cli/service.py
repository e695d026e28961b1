"""What `hybrid serve` and `hybrid run` have in common: find the datapath, start the program, report, stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybrid.cli.commands.status import describe_device
from hybrid.cli.session import Session

if TYPE_CHECKING:
    from hybrid.launch.datapath import Interface
    from hybrid.launch.launcher import InService

__all__ = ["InterfaceOption", "UserOption", "run_program"]

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
    session: Session, command: Sequence[str], interfaces: Sequence[str] | None, user: str | None
) -> int:
    """Runs it with the datapath of this network namespace. Its exit code."""
    from hybrid.launch.applied import interfaces as find
    from hybrid.launch.datapath import Datapath
    from hybrid.launch.launcher import Launch

    found = find(interfaces or ())

    def ready(service: InService) -> None:
        session.output.emit(_data(command, found, service), *_text(found, service))

    with Datapath.open(found) as datapath:
        datapath.check_free()
        return Launch(
            command=command,
            path=datapath,
            environ=session.environ,
            on_ready=ready,
            warn=session.output.note,
            user=user,
            about={"interfaces": [_attached(interface) for interface in found]},
        ).run()


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
    }


def _text(found: Sequence[Interface], service: InService) -> list[str]:
    where = ", ".join(str(port) for port in service.ports) or "no port of its own"
    lines = [f"ready: {where} (pid {service.pid})"]
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
