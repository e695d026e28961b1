"""``hybrid doctor``: what this host can do, and how to mend what it cannot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hybrid.cli.output import table
from hybrid.cli.session import session
from hybrid.errors import HybridError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hybrid.doctor import Finding, Wanted

__all__ = ["command"]

_COLUMNS = ("group", "what", "here", "detail", "what to do")


def command(
    ctx: typer.Context,
    fix: Annotated[
        str | None,
        typer.Option(
            "--fix",
            metavar="STAGES",
            help="Mend these: hugepages, channels, offloads, irq, or all. hybrid clean undoes it.",
        ),
    ] = None,
    interface: Annotated[
        list[str] | None,
        typer.Option("--interface", metavar="NAME", help="Look at this one, not at those that are steered."),
    ] = None,
    hugepages: Annotated[
        int | None, typer.Option("--hugepages", min=0, metavar="N", help="So many should be free.")
    ] = None,
    queues: Annotated[
        int | None, typer.Option("--queues", min=1, metavar="N", help="So many receive queues are served.")
    ] = None,
    cores: Annotated[
        str | None, typer.Option("--cores", metavar="LIST", help="The cores that serve them: 2,3 or 2-5.")
    ] = None,
) -> None:
    """Say what this host can do. Exit code 0: the main job can run, 4: not, 5: only root can tell."""
    from hybrid.doctor import Wanted

    wanted = Wanted(tuple(interface or ()), hugepages, queues, _cores(cores))
    if fix is not None:
        _fix(ctx, _stages(fix), wanted)
    else:
        _examine(ctx, wanted)


def _examine(ctx: typer.Context, wanted: Wanted) -> None:
    from hybrid.doctor import examine, exit_code

    groups = examine(wanted)
    code = exit_code(found for group in groups.values() for found in group)
    verdict = {
        0: "this host can steer flows to AF_XDP and serve them",
        4: "this host cannot steer flows to AF_XDP until what is marked 'no!' is mended",
        5: "no obstacle was seen, but not everything could be looked at without privilege",
    }[code]
    session(ctx).output.emit(
        {"verdict": verdict, "exit_code": int(code), "findings": groups},
        table(_COLUMNS, [(name, *_row(found)) for name, group in groups.items() for found in group]),
        verdict,
    )
    raise typer.Exit(code)


def _fix(ctx: typer.Context, names: Sequence[str], wanted: Wanted) -> None:
    from hybrid.agent.changes import Journal
    from hybrid.doctor.stages import fix

    done = fix(names, wanted, Journal())
    rows = [(str(row.setting), row.before, row.requested, row.obtained) for row in done.changes]
    text: list[RenderableType] = [
        table(("changed", "before", "requested", "obtained"), rows) if rows else "nothing was changed",
        "",
        table(_COLUMNS[1:], map(_row, done.findings)),
    ]
    session(ctx).output.emit(
        {
            "changes": [change.as_dict() for change in done.changes],
            "failed": done.failed,
            "findings": done.findings,
        },
        *text,
    )
    if done.failed:
        raise HybridError(
            f"could not do all of it: {'; '.join(done.failed)}", "hybrid clean puts back what was changed"
        )
    if not done.complete:
        raise HybridError(
            "not everything that was asked for was obtained", "see what to do beside each of the findings"
        )


def _row(found: Finding) -> tuple[object, ...]:
    from hybrid.doctor import Outcome

    needed = "!" if found.needed and found.outcome is Outcome.NO else ""
    return found.name, found.outcome + needed, found.detail, found.remedy


def _stages(given: str) -> list[str]:
    from hybrid.doctor.stages import STAGES

    names = [name.strip() for name in given.split(",") if name.strip()]
    wrong = [name for name in names if name not in (*STAGES, "all")]
    if wrong or not names:
        raise UsageError(
            f"there is no stage {wrong[0]!r} to fix" if wrong else "--fix was given no stage",
            f"choose of {', '.join(STAGES)} with commas between them, or all",
        )
    return list(STAGES) if "all" in names else names


def _cores(given: str | None) -> frozenset[int]:
    from hybrid.ranges import format_ranges, parse_ranges

    try:
        cores = parse_ranges(given or "")
    except ValueError:
        raise UsageError(f"{given!r} is no list of cores", "as in 2,3 or 2-5") from None
    there = frozenset(range(os.cpu_count() or 1))
    if cores - there:
        raise UsageError(
            f"this host has no core {format_ranges(cores - there)}", f"it has {format_ranges(there)}"
        )
    return cores
