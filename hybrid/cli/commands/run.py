"""``hybrid run -- PROGRAM ARGS``: any program written on hybrid.h (or hybrid.Shard.served())."""

from __future__ import annotations

from typing import Annotated

import typer

from hybrid.cli.service import (
    Backend,
    BackendOption,
    InterfaceOption,
    OutliveOption,
    PolicyOption,
    UserOption,
    run_program,
)
from hybrid.cli.session import session

__all__ = ["command"]


def command(
    ctx: typer.Context,
    program: Annotated[
        list[str], typer.Argument(metavar="-- PROGRAM [ARGS]...", help="What to run.", show_default=False)
    ],
    interface: InterfaceOption = None,
    user: UserOption = None,
    backend: BackendOption = Backend.AUTO,
    policy: PolicyOption = None,
    outlive: OutliveOption = False,
) -> None:
    """Run a program on the flows that are steered here, without privileges of its own."""
    raise typer.Exit(run_program(session(ctx), program, interface, user, backend, policy, outlive))
