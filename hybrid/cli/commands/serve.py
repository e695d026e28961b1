"""``hybrid serve kv|echo|relay``: the programs that come with this package, on the steered interfaces."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

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
from hybrid.errors import UnsupportedError

__all__ = ["app", "program"]

app = typer.Typer(
    help="Start a server that comes with hybrid, on the flows steered here.", no_args_is_help=True
)

# The server's own options are handed on to it.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def program(name: str) -> str:
    """Where an installed program is."""
    path = Path(str(importlib.resources.files("hybrid"))) / "bin" / name
    if not path.is_file():
        raise UnsupportedError(
            f"{name} is not part of this installation", "install hybrid anew: pip install, or tools/setup"
        )
    return str(path)


# Each is a program of examples/, installed beside this package, and what its command says of itself.
PROGRAMS = {
    "kv": "The key-value server for Redis clients. Its own options may follow (-- --help lists them).",
    "echo": "The echo server. Its own options may follow (-- --help lists them).",
    "relay": "The relay: takes connections here and forwards them, as in -- --port 80 --to 10.0.0.9:8080.",
}


def _add(name: str, about: str) -> None:
    @app.command(name, help=about, context_settings=_PASS_ON)
    def serve(
        ctx: typer.Context,
        interface: InterfaceOption = None,
        user: UserOption = None,
        backend: BackendOption = Backend.AUTO,
        policy: PolicyOption = None,
        outlive: OutliveOption = False,
    ) -> None:
        command = [program(f"hybrid-{name}"), *ctx.args]
        raise typer.Exit(run_program(session(ctx), command, interface, user, backend, policy, outlive))


for _name, _about in PROGRAMS.items():
    _add(_name, _about)
