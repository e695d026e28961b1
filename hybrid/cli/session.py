"""What a command is given besides its own arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import typer

from hybrid.cli.output import Output

__all__ = ["Session", "session"]


@dataclass
class Session:
    """One run of the command line: its environment and where results go.

    A test passes its own: ``CliRunner().invoke(app, [...], obj=Session(environ={...}))``.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    output: Output = field(default_factory=Output)

    @property
    def debug(self) -> bool:
        """HYBRID_DEBUG=1: debug logs, and tracebacks for unexpected errors."""
        return self.environ.get("HYBRID_DEBUG", "") not in ("", "0")


def session(ctx: typer.Context) -> Session:
    """The session of a running command."""
    found = ctx.find_object(Session)
    assert found is not None, "the root callback makes one before any command runs"
    return found
