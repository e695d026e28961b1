"""The command line's frame: global options, errors as sentences, exit codes."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import hybrid.errors
from hybrid.cli import COMMANDS, app
from hybrid.cli.frame import HybridGroup, root
from hybrid.cli.output import Format, Output, table
from hybrid.cli.session import Session, session
from hybrid.errors import (
    BusyError,
    ExitCode,
    HybridError,
    PrivilegeError,
    RolledBackError,
    UnsupportedError,
    UsageError,
    from_errno,
)


def frame(command: Callable[..., None]) -> typer.Typer:
    """A command line with the command `try` and, below `noun`, the command `verb`."""
    made = typer.Typer(cls=HybridGroup, callback=root, rich_markup_mode=None, add_completion=False)
    made.command("try")(command)
    noun = typer.Typer(callback=lambda: None)
    noun.command("verb")(command)
    made.add_typer(noun, name="noun")
    return made


def run(command: Callable[..., None], *argv: str, **environ: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(frame(command), list(argv), obj=Session(environ=environ))
    return result.exit_code, result.stdout, result.stderr


def shows(ctx: typer.Context) -> None:
    """Shows a number."""
    session(ctx).output.emit({"n": 1}, "one")


@pytest.mark.parametrize(
    "argv",
    [
        ["--output", "json", "try"],
        ["try", "--output", "json"],
        ["try", "--output=json"],
        ["noun", "verb", "--output", "json"],
        ["noun", "--output", "json", "verb"],
    ],
)
def test_every_command_takes_output_wherever_it_stands(argv: list[str]) -> None:
    assert run(shows, *argv) == (0, '{"n": 1}\n', "")


def test_text_is_the_default() -> None:
    assert run(shows, "try") == (0, "one\n", "")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (HybridError, 1),
        (UsageError, 2),
        (UnsupportedError, 4),
        (PrivilegeError, 5),
        (BusyError, 6),
        (RolledBackError, 7),
    ],
)
def test_an_error_is_a_sentence_a_remedy_and_its_exit_code(kind: type[HybridError], code: int) -> None:
    def fails() -> None:
        raise kind("hys0 is gone", "ip link shows what there is")

    assert run(fails, "try") == (
        code,
        "",
        "hybrid: hys0 is gone\n  what to do: ip link shows what there is\n",
    )


def test_with_json_an_error_is_an_object_on_stdout() -> None:
    def fails() -> None:
        raise from_errno(-16, "open queue 0 of hys0", "hybrid status")

    code, out, err = run(fails, "try", "--output", "json")
    assert code == 6
    assert json.loads(out)["error"] == {
        "kind": "BusyError",
        "message": "cannot open queue 0 of hys0: device or resource busy",
        "remedy": "hybrid status",
        "exit_code": 6,
        "errno": "EBUSY",
    }
    assert err.startswith("hybrid: cannot open queue 0")


@pytest.mark.parametrize("argv", [["nope"], ["try", "--nope"], ["try", "word"], ["try", "--output", "xml"]])
def test_a_mistake_on_the_command_line_is_a_sentence_too(argv: list[str]) -> None:
    code, out, err = run(shows, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("hybrid: ")
    assert "--help" in err.splitlines()[-1]


def test_a_mistake_on_the_command_line_is_json_where_json_was_asked_for() -> None:
    code, out, _ = run(shows, "try", "--nope", "--output", "json")
    assert (code, json.loads(out)["error"]["kind"]) == (2, "UsageError")


def test_an_unexpected_error_names_the_report_and_shows_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run(breaks, "try")
    (report,) = tmp_path.iterdir()
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert str(report) in err
    assert "ZeroDivisionError: by nothing" in report.read_text()
    assert "Traceback" in run(breaks, "try", HYBRID_DEBUG="1")[2]


def test_where_no_report_can_be_written_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    code, _, err = run(breaks, "try")
    assert code == 1
    assert "no report could be written" in err


def test_a_command_ends_with_the_code_it_chooses() -> None:
    def chooses() -> None:
        raise typer.Exit(ExitCode.PLAN_HAS_CHANGES)

    assert run(chooses, "try") == (3, "", "")


def test_what_follows_a_double_dash_is_not_ours() -> None:
    def passes(ctx: typer.Context, words: list[str]) -> None:
        session(ctx).output.emit(words, " ".join(words))

    assert run(passes, "try", "--", "program", "--output", "json") == (0, "program --output json\n", "")


def test_cells_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.TEXT).emit(None, table(("address", ">n"), [("[fd77::1]:80", 5)]))
    assert "[fd77::1]:80  5" in capsys.readouterr().out


def test_a_network_namespace_that_does_not_exist_is_a_sentence() -> None:
    code, _, err = run(shows, "try", "--netns", "no-such-namespace")
    assert code == 1
    assert "there is no network namespace called no-such-namespace" in err


INTERRUPTED = """
import os, signal, sys, typer
from hybrid.cli import frame, signals
from hybrid.cli.frame import HybridGroup, root
def command():
    try:
        print("up", flush=True)
        signal.pause()
    finally:
        print("down", flush=True)
app = typer.Typer(cls=HybridGroup, callback=root)
app.command("a")(command)
app.command("b")(command)
interruption = signals.Interruption()
interruption.install()
app(["a"], interruption=interruption)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_and_ends_quietly(number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-P", "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "down\n", "")


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.split()[0]) == (0, "hybrid")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 3


def test_the_commands_of_the_table_are_those_of_the_folder() -> None:
    folder = Path(str(import_module("hybrid.cli.commands").__file__)).parent
    there = {f"hybrid.cli.commands.{path.stem}" for path in folder.glob("[a-z]*.py")}
    assert there <= set(COMMANDS.values())


def test_the_exception_tree_is_the_one_that_is_drawn() -> None:
    tree = ast.parse(Path(hybrid.errors.__file__).read_text())
    drawn = (ast.get_docstring(tree) or "").replace("+--", "").split("An error is")[0]
    for kind in HybridError.__subclasses__():
        if kind.__module__ == "hybrid.errors":
            assert f"{kind.__name__} " in drawn
            assert str(int(kind.exit_code)) in drawn.split(kind.__name__, 1)[1].split("\n")[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what an ordinary user is told")
def test_an_ordinary_user_is_told_to_use_sudo() -> None:
    script = "import os; os.setuid(65534)\nfrom hybrid.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "lab", "up"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1] == "  what to do: run it with sudo"
