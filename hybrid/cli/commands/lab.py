"""``hybrid lab up|down|status``: two network namespaces to try things out in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from hybrid.cli.output import table
from hybrid.cli.session import session

if TYPE_CHECKING:
    from hybrid.lab import LabStatus, SideStatus

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="A server and a client namespace joined by a veth pair.")

Name = Annotated[
    str, typer.Option("--name", help="Which lab; its namespaces are NAME-server and NAME-client.")
]


@app.command()
def up(
    ctx: typer.Context,
    name: Name = "hybrid",
    queues: Annotated[int, typer.Option("--queues", help="Receive and transmit queues of each end.")] = 1,
    mtu: Annotated[int, typer.Option("--mtu", help="Bytes per IP packet.")] = 1500,
) -> None:
    """Make the lab, or complete or change the one there is. Needs root."""
    from hybrid.lab import Lab

    lab = Lab(name, queues=queues, mtu=mtu)
    done = lab.up()
    status = lab.status()
    headline = f"lab {name} is up" + ("" if done else " (nothing had to be changed)")
    session(ctx).output.emit({"done": done, "lab": status}, headline, _sides(status))


@app.command()
def down(
    ctx: typer.Context,
    name: Name = "hybrid",
    kill: Annotated[bool, typer.Option("--kill", help="End the processes that still run inside.")] = False,
) -> None:
    """Remove the lab and all that is in it. Needs root."""
    from hybrid.lab import Lab

    done = Lab(name).down(kill=kill)
    session(ctx).output.emit({"done": done}, f"lab {name} is down" + ("" if done else " (there was none)"))


@app.command()
def status(ctx: typer.Context, name: Name = "hybrid") -> None:
    """Show what there is of the lab."""
    from hybrid.lab import Lab

    found = Lab(name).status()
    session(ctx).output.emit(found, f"lab {name}: {found.phase}", _sides(found))


def _sides(status: LabStatus) -> RenderableType:
    columns = ("namespace", "interface", "state", "mac", "addresses", ">queues", ">mtu", "xdp", "processes")
    return table(columns, (_row(side) for side in (status.server, status.client) if side.exists))


def _row(side: SideStatus) -> tuple[object, ...]:
    processes = ", ".join(f"{command} ({pid})" for pid, command in side.processes)
    end = side.end
    if end is None:
        return (side.namespace, "-", "", "", "", "", "", "", processes)
    state = "up" if end.up else "down"
    if end.offloads_on:
        state += ", offloads on: " + " ".join(end.offloads_on)
    shown = " ".join(a for a in end.addresses if not a.startswith("fe80:"))
    xdp = "attached" if end.xdp else "none"
    return (side.namespace, end.interface, state, end.mac, shown, end.queues, end.mtu, xdp, processes)
