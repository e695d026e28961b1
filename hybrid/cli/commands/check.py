"""``hybrid check FILE``: is this a valid policy? Needs no privilege and touches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybrid.cli.output import table
from hybrid.cli.session import session

__all__ = ["command"]


def command(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy in YAML.")]
) -> None:
    """Check a policy file without applying it. Exit code 0: valid, 1: not, 2: it cannot be read."""
    from hybrid.policy import compile_policy, describe, load

    policy = compile_policy(load(file))
    rows = [
        (interface.name, rule.name, describe(rule))
        for interface in policy.interfaces
        for rule in interface.rules
    ]
    session(ctx).output.emit(
        {"file": file, "valid": True, "interfaces": policy.interfaces},
        f"{file} is valid",
        table(("interface", "rule", "frames"), rows),
    )
