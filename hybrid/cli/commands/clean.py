"""``hybrid clean``: takes away what hybrid made, and what killed commands left."""

from __future__ import annotations

from typing import Annotated

import typer

from hybrid.cli.session import session
from hybrid.errors import HybridError

__all__ = ["command"]


def command(
    ctx: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Of every network namespace, not of this one alone.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also under a program in service: its ports go to the kernel.")
    ] = False,
) -> None:
    """Remove what hybrid made and put back the settings it changed; nothing else."""
    from hybrid.agent.clean import clean

    done = clean(everything=everything, force=force)
    lines = [f"removed {what}" for what in done.removed]
    lines += [f"put back {what}" for what in done.restored]
    lines += [f"left alone: {what}" for what in done.left]
    session(ctx).output.emit(done, *(lines or ["nothing to remove"]))
    if done.failed:
        raise HybridError(f"could not undo {'; '.join(done.failed)}", "run it as root: sudo hybrid clean")
