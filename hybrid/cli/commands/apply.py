"""``hybrid apply FILE``: brings this network namespace to what a policy asks, all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybrid.cli.output import table
from hybrid.cli.session import session
from hybrid.errors import ExitCode

if TYPE_CHECKING:
    from hybrid.agent.apply import Result

__all__ = ["command"]


def command(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy, in YAML.", show_default=False)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change; exit 3 if something would.")
    ] = False,
) -> None:
    """Steer the flows that a policy names; undo everything where a step fails."""
    from hybrid.agent.apply import Agent
    from hybrid.policy import compile_policy, load

    desired = compile_policy(load(file)).interfaces
    agent = Agent()
    result = agent.plan(desired) if dry_run else agent.apply(desired, str(file.resolve()))
    session(ctx).output.emit(_data(result, dry_run), *_text(result, dry_run))
    if dry_run and result.steps:
        raise typer.Exit(ExitCode.PLAN_HAS_CHANGES)


def _data(result: Result, dry_run: bool) -> dict[str, Any]:
    return {
        "applied": not dry_run,
        "changes": _lines(result),
        "without_bypass": result.without,
        "interfaces": [
            {
                "name": name,
                "mode_requested": there.applied.desired.mode if there.applied else None,
                "mode_obtained": there.obtained.mode,
                "note": there.obtained.note,
                "queues": there.obtained.queues,
                "rules": len(there.rules),
            }
            for name, there in sorted(result.present.items())
        ],
    }


def _lines(result: Result) -> list[str]:
    from hybrid.agent.plan import ReplaceRules

    lines: list[str] = []
    for step in result.steps:
        lines.append(str(step))
        lines += step.details() if isinstance(step, ReplaceRules) else []
    return lines


def _text(result: Result, dry_run: bool) -> list[Any]:
    lines = _lines(result) or ["nothing to change"]
    if dry_run:
        return lines
    rows = (
        (
            name,
            there.applied.desired.mode if there.applied else there.obtained.requested,
            there.obtained.mode,
            there.obtained.queues,
            len(there.rules),
            there.obtained.note,
        )
        for name, there in sorted(result.present.items())
    )
    lines += [
        f"{name} is not steered ({why}); its ports are on the kernel's sockets"
        for name, why in sorted(result.without.items())
    ]
    return [*lines, "", table(["interface", "requested", "obtained", ">queues", ">rules", "note"], rows)]
