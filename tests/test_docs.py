"""What the documents say is so: their commands exist, and what they show was printed by the command beside it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hybrid.cli import COMMANDS

TOP = Path(__file__).resolve().parent.parent
HYBRID = Path(sys.executable).with_name("hybrid")


def load_shown() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shown", TOP / "tools/shown.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["shown"] = module
    spec.loader.exec_module(module)
    return module


shown = load_shown()
PAGES = {page: page.read_text() for page in shown.documents()}


def command_lines() -> list[str]:
    """Every line of a ``sh`` block, its comment and ``sudo`` taken off."""
    blocks = [block for text in PAGES.values() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.removeprefix("sudo ") for line in lines if line and not line.startswith("#")]


def test_the_first_screen_has_both_commands() -> None:
    first_screen = PAGES[TOP / "README.md"].splitlines()[:40]
    assert {"sudo tools/quickstart", "sudo tools/test"} <= {
        line.partition(" #")[0].strip() for line in first_screen
    }


def test_every_tool_that_a_page_names_is_there_and_can_be_run() -> None:
    named = {tool for text in PAGES.values() for tool in re.findall(r"\btools/[a-z_]+(?:\.[a-z]+)?\b", text)}
    assert named
    missing = [tool for tool in named if not (TOP / tool).exists()]
    assert missing == []
    # Scripts are run, what has an ending is read or given to an interpreter.
    assert [tool for tool in named if "." not in tool and not os.access(TOP / tool, os.X_OK)] == []


def test_every_hybrid_command_that_a_page_shows_exists_with_its_options() -> None:
    helps: dict[str, str] = {}
    wrong = []
    for line in command_lines():
        given = re.sub(r"^(HYBRID_\w+=\S+ )?(\.venv/bin/)?", "", line).split()
        if not given or given[0] != "hybrid":
            continue
        rest = re.sub(r"^(--(output|netns) \S+ )*", "", " ".join(given[1:])).split()
        if not rest or rest[0].startswith("-"):
            continue
        name = " ".join(rest[:2]) if rest[0] in ("lab", "serve", "bench") and len(rest) > 1 else rest[0]
        if rest[0] not in COMMANDS:
            wrong.append(f"{line}: no such command")
            continue
        if name not in helps:
            asked = [str(HYBRID), *name.split(), "--help"]
            helps[name] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        options = [word.partition("=")[0] for word in rest if word.startswith("--") and word != "--"]
        wrong += [f"{line}: no option {option}" for option in options if option not in helps[name]]
    assert wrong == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page, text in PAGES.items()
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_backend_has_its_row() -> None:
    rows = re.findall(r"^\| `?([^|`]+?)`? +\| *(works|not yet)", PAGES[TOP / "README.md"], re.MULTILINE)
    assert len(rows) >= 4
    assert ("AF_XDP", "works") in rows


@pytest.mark.parametrize(
    "block", list(shown.shown()), ids=lambda block: f"{block.document.name}: {block.command}"
)
def test_what_is_shown_is_what_is_printed(block: object, request: pytest.FixtureRequest) -> None:
    command = shown.words(block.command)  # type: ignore[attr-defined]
    text = block.text  # type: ignore[attr-defined]
    if "quickstart" in command[0]:
        if os.geteuid() != 0:
            pytest.skip("needs root: network namespaces and XDP programs are privileged")
        # The same story, cut short, in a lab of its own; the set-up has been run.
        mine = f"docs{os.getpid()}"
        policy = "examples/policies/redis.yaml"
        command = [str(HYBRID), "demo", policy, "--requests", "20000", "--name", mine]
        text = text.replace("quickstart", mine)
    if "hybrid-server" in command and os.geteuid() != 0:
        pytest.skip("needs root: network namespaces and XDP programs are privileged")
    printed = shown.output_of(command)
    if block.varies:  # type: ignore[attr-defined]
        printed, text = shown.outline(printed), shown.outline(text)
    assert shown.shape(printed) == shown.shape(text)
