"""Writes the conformance matrix into README.md, from the last whole run of tests/backends.

::

    .venv/bin/pytest tests/backends      # leaves build/backends-matrix.json
    python3 tools/matrix.py              # rewrites the block between the two matrix comments

A number is how many tests passed, as server and as client together; what did not pass is said beside it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
RESULT = TOP / "build" / "backends-matrix.json"
BLOCK = re.compile(r"(<!-- matrix: [^\n]* -->\n).*?(<!-- end of matrix -->)", re.DOTALL)


def cell(counts: Mapping[str, int] | None) -> str:
    """One cell; empty: that pair is not tested in it."""
    if counts is None:
        return ""
    others = [f"{counts[what]} {what}" for what in ("failed", "skipped") if counts[what]]
    return ", ".join([str(counts["passed"]), *others])


def render(result: Mapping[str, Any]) -> str:
    """The table."""
    groups: Mapping[str, str] = result["groups"]
    lines = ["| backend | against | " + " | ".join(groups.values()) + " |", "|---" * (len(groups) + 2) + "|"]
    for row in result["rows"]:
        cells = [cell(row["cells"].get(group)) for group in groups]
        lines.append(f"| {row['backend']} | {row['against']} | " + " | ".join(cells) + " |")
    return re.sub(r" +\|", " |", "\n".join(lines)) + "\n"


def replace(text: str, table: str) -> str:
    """The page with this table in its block."""
    changed, count = BLOCK.subn(lambda match: f"{match[1]}{table}{match[2]}", text)
    if count != 1:
        raise SystemExit("README.md has no block between <!-- matrix: ... --> and <!-- end of matrix -->")
    return changed


def main() -> int:
    """Rewrites the page."""
    if not RESULT.exists():
        print(f"there is no {RESULT.relative_to(TOP)}: run .venv/bin/pytest tests/backends", file=sys.stderr)
        return 1
    readme = TOP / "README.md"
    readme.write_text(replace(readme.read_text(), render(json.loads(RESULT.read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
