"""``hybrid doctor``: what this host can do, and how to mend what it cannot."""

from __future__ import annotations

import typer

from hybrid.cli.output import table
from hybrid.cli.session import session

__all__ = ["command"]


def command(ctx: typer.Context) -> None:
    """Say what this host can do. Exit code 0: the main job can run, 4: not, 5: only root can tell."""
    from hybrid.doctor import Outcome, examine, exit_code

    groups = examine()
    code = exit_code(found for group in groups.values() for found in group)
    verdict = {
        0: "this host can steer flows to AF_XDP and serve them",
        4: "this host cannot steer flows to AF_XDP until what is marked 'no!' is mended",
        5: "no obstacle was seen, but not everything could be looked at without privilege",
    }[code]
    rows = [
        (
            group,
            found.name,
            found.outcome + ("!" if found.needed and found.outcome is Outcome.NO else ""),
            found.detail,
            found.remedy,
        )
        for group, findings in groups.items()
        for found in findings
    ]
    session(ctx).output.emit(
        {"verdict": verdict, "exit_code": int(code), "findings": groups},
        table(("group", "what", "here", "detail", "what to do"), rows),
        verdict,
    )
    raise typer.Exit(code)
