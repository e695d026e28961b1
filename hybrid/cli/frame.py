"""The root of the command line: global options, and how every error reaches a person."""

from __future__ import annotations

import logging
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hybrid.cli.output import Format
from hybrid.cli.session import Session, session
from hybrid.cli.signals import Interruption
from hybrid.errors import ExitCode, HybridError, UsageError

__all__ = ["HybridGroup", "root"]

# Options that every command takes, before or after its name.
_EVERYWHERE = ("output", "netns")


class HybridGroup(TyperGroup):
    """The root command: gives each command the global options, and ends every run with an exit code."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        shared = [option for option in self.params if option.name in _EVERYWHERE]
        pending: list[Any] = list(self.commands.values())
        while pending:
            command = pending.pop()
            taken = {name for param in command.params for name in param.opts}
            command.params.extend(option for option in shared if not taken.intersection(option.opts))
            pending.extend(getattr(command, "commands", {}).values())

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command and leaves by SystemExit with the exit code of hybrid.errors, in either mode."""
        argv = list(sys.argv[1:] if args is None else args)
        given = extra.pop("obj", None)
        now = given if isinstance(given, Session) else Session()
        interruption = extra.pop("interruption", None) or Interruption()
        now.output.form = _requested_format(argv) or now.output.form
        try:
            # Not standalone: what goes wrong comes here and is told by us.
            code = super().main(argv, prog_name, complete_var, False, windows_expand_args, obj=now, **extra)
        except HybridError as error:
            now.output.error(error)
            code = error.exit_code
        except typer.TyperException as error:
            if error.format_message().startswith("Usage:"):  # a command without its arguments shows its help
                sys.stderr.write(error.format_message() + "\n")
            else:
                now.output.error(_usage(error))
            code = ExitCode.USAGE
        except typer.Abort:
            code = 1
        except Exception as error:
            unexpected = _report(error, argv)
            if now.debug:
                traceback.print_exc()
            now.output.error(unexpected)
            code = unexpected.exit_code
        if code == 130:  # typer's number for a KeyboardInterrupt
            code = interruption.exit_code
        sys.exit(code if isinstance(code, int) else 0)


def _requested_format(argv: Sequence[str]) -> Format | None:
    """``--output`` as given, before the command line is parsed: a usage error is printed in it too."""
    before = argv[: argv.index("--")] if "--" in argv else argv
    for word, following in zip(before, [*before[1:], ""], strict=False):
        value = following if word == "--output" else word.removeprefix("--output=")
        if word.startswith("--output") and value in list(Format):
            return Format(value)
    return None


def _usage(error: typer.TyperException) -> UsageError:
    """A mistake on the command line, said like every other error."""
    message = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hybrid"
    return UsageError(message[:1].lower() + message[1:], f"see {path} --help")


def _report(error: Exception, argv: Sequence[str]) -> HybridError:
    """Writes down all there is to know of an unexpected exception, and names the file."""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    text = "".join(traceback.format_exception(error))
    about = f"hybrid {version('hybrid')}, Python {platform.python_version()}, {platform.platform()}\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="hybrid-report-", suffix=".txt", delete=False, errors="backslashreplace"
        ) as file:
            file.write(f"{about}hybrid {' '.join(argv)}\n\n{text}")
    except OSError as failed:
        return HybridError(
            f"an unexpected error ended this ({what}), and no report could be written ({failed.strerror})",
            "set HYBRID_DEBUG=1 and run it again to see the whole of it",
        )
    return HybridError(
        f"an unexpected error ended this ({what}); the full report is in {file.name}",
        "please send that file with a bug report; HYBRID_DEBUG=1 prints it at once",
    )


def _set_output(ctx: typer.Context, value: Format | None) -> Format | None:
    if value is not None and not ctx.resilient_parsing:
        session(ctx).output.form = value
    return value


def _set_netns(ctx: typer.Context, value: str | None) -> str | None:
    if value is not None and not ctx.resilient_parsing:
        from hybrid.lab import netns

        netns.enter(value)
    return value


def _show_version(ctx: typer.Context, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        session(ctx).output.emit({"version": version("hybrid")}, f"hybrid {version('hybrid')}")
        raise typer.Exit


def root(
    ctx: typer.Context,
    output: Annotated[
        Format | None,
        typer.Option(
            "--output", callback=_set_output, expose_value=False, help="How results are printed on stdout."
        ),
    ] = None,
    netns: Annotated[
        str | None,
        typer.Option(
            "--netns",
            metavar="NAME",
            callback=_set_netns,
            expose_value=False,
            help="Work in this network namespace; the file system stays the same.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, expose_value=False, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A microsecond-scale datapath for the flows a policy names; everything else stays with the kernel."""
    level = logging.DEBUG if session(ctx).debug else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="hybrid: %(levelname)s: %(name)s: %(message)s")
