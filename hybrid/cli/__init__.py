"""The command line: one file per command, one line per command here.

To add a command
----------------
1. ``hybrid/cli/commands/NAME.py`` (or any importable module: a backend may keep its own) with
   either a function ``command`` or, for a noun with verbs below it, a ``typer.Typer`` called
   ``app``::

       from typing import Annotated
       import typer
       from hybrid.cli.output import table
       from hybrid.cli.session import session

       def command(ctx: typer.Context, interface: Annotated[str, typer.Argument()] = "") -> None:
           \"\"\"The first line of this docstring is what `hybrid --help` shows.\"\"\"
           rows = ...                              # heavy imports go in here, not at the top
           session(ctx).output.emit(rows, table(["name", ">packets"], ((r.name, r.packets) for r in rows)))

2. one line in ``COMMANDS`` below.

The frame does the rest. Every command has ``--output text|json`` and ``--netns NAME``, before or
after its name. ``output.emit(data, *text)`` prints the result in the form that was asked for;
``output.note(sentence)`` says something on the way, on stderr. A command fails by raising a
``HybridError`` (never by printing): sentence, remedy and exit code follow from it. It ends with
another code by ``raise typer.Exit(code)``. Ctrl-C and SIGTERM arrive as KeyboardInterrupt: leave
through ``with`` and ``finally``, don't catch it. A command that starts a program takes that program's
arguments after ``--``; options behind it are not looked at.

Tests run it in-process: ``typer.testing.CliRunner().invoke(app, ["status"], obj=Session(environ={}))``.
"""

from __future__ import annotations

from importlib import import_module

import typer

from hybrid.cli.frame import HybridGroup, root
from hybrid.cli.signals import Interruption

__all__ = ["COMMANDS", "app", "main"]

# name: module. In the order of `hybrid --help`.
COMMANDS: dict[str, str] = {
    "apply": "hybrid.cli.commands.apply",
    "status": "hybrid.cli.commands.status",
    "clean": "hybrid.cli.commands.clean",
    "serve": "hybrid.cli.commands.serve",
    "run": "hybrid.cli.commands.run",
    "lab": "hybrid.cli.commands.lab",
    "check": "hybrid.cli.commands.check",
    "doctor": "hybrid.cli.commands.doctor",
    "devices": "hybrid.cli.commands.devices",
    "bench": "hybrid.cli.commands.bench",
    "demo": "hybrid.cli.commands.demo",
}


def _build() -> typer.Typer:
    made = typer.Typer(
        name="hybrid",
        cls=HybridGroup,
        callback=root,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, module in COMMANDS.items():
        found = import_module(module)
        if hasattr(found, "app"):
            made.add_typer(found.app, name=name)
        else:
            made.command(name)(found.command)
    return made


app = _build()


def main() -> None:
    """The ``hybrid`` command."""
    interruption = Interruption()
    interruption.install()
    app(prog_name="hybrid", interruption=interruption)
