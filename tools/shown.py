"""What the documents show a reader: every block of output with the command that printed it.

A block is marked by a comment above it::

    <!-- output of: hybrid check examples/policies/redis.yaml -->
    ```
    ...
    ```

``tests/test_docs.py`` runs the commands again and compares, numbers aside. Where the output is of one machine
(``output on one machine of``) it compares the headings only: the lines that are not indented. A command in a
namespace of the lab (``hybrid-server``) gets a lab with two queues, and a `hybrid clean` after it.

Run by itself (as root, since the quickstart is among them) this rewrites the blocks with what the commands
print now.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(
    r"<!-- output (?P<where>on one machine )?of: (?P<command>[^\n]+?) -->\n+```[a-z]*\n(?P<text>.*?)```",
    re.DOTALL,
)
_LAB = "hybrid-server"
_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One block: where it stands, the command as a person types it, and the output as the document has it.

    ``varies``: the output is of one machine.
    """

    document: Path
    command: str
    text: str
    varies: bool


def documents() -> list[Path]:
    """Every page for people."""
    return sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("**/*.md")])


def shown() -> Iterator[Shown]:
    """Every marked block of every page."""
    for document in documents():
        for match in _BLOCK.finditer(document.read_text()):
            yield Shown(document, match["command"], match["text"], match["where"] is not None)


def words(command: str) -> list[str]:
    """The command as this checkout runs it."""
    given = shlex.split(command.removeprefix("sudo "))
    if given[0] == "hybrid":
        given[0] = ".venv/bin/hybrid"
    return [str(TOP / given[0]), *given[1:]]


def output_of(command: Sequence[str]) -> str:
    """What it prints on both streams, without the lines of the set-up."""
    if _LAB not in command:
        return _output_of(command)
    name = f"shown{os.getpid()}"
    hybrid, there = str(TOP / ".venv/bin/hybrid"), f"{name}-server"
    try:
        _output_of([hybrid, "lab", "up", "--name", name, "--queues", "2"])
        return _output_of([there if word == _LAB else word for word in command]).replace(there, _LAB)
    finally:
        _output_of([hybrid, "--netns", there, "clean", "--force"])
        _output_of([hybrid, "lab", "down", "--name", name, "--kill"])


def _output_of(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith("set-up: ")]
    return "\n".join(lines).strip("\n").replace(f"{TOP}/", "") + "\n"


def shape(text: str) -> str:
    """The text with every number, and the space that aligns it, made the same."""
    return re.sub(r"[ \t]+", " ", re.sub(r"-?\d[\d,.]*", "N", text)).strip()


def outline(text: str) -> str:
    """The lines that are not indented."""
    return "\n".join(line for line in text.splitlines() if line and not line.startswith(" "))


def _as_printed_now(match: re.Match[str]) -> str:
    print(f"running: {match['command']}", file=sys.stderr)
    start = match.start("text") - match.start()
    return match[0][:start] + output_of(words(match["command"])) + "```"


def main() -> None:
    """Rewrites every marked block."""
    for document in documents():
        before = document.read_text()
        after = _BLOCK.sub(_as_printed_now, before)
        if after != before:
            document.write_text(after)


if __name__ == "__main__":
    main()
