"""The one renderer: results on stdout as text or JSON, everything else on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hybrid.errors import HybridError

__all__ = ["Format", "Output", "table"]

_AS_TEXT = (Path, IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface)


class Format(StrEnum):
    """What ``--output`` takes."""

    TEXT = "text"
    JSON = "json"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """A plain table. A column whose name starts with ``>`` is aligned to the right (numbers).

    Where no column has a name there is no heading.

    Cells are shown as they are: square brackets in them are not markup.
    """
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        show_header=any(columns),
    )
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else Text(str(cell)) for cell in row))
    return made


def _plain(value: object) -> Any:
    """What JSON has no type for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class Output:
    """Where a command puts its result. Streams are looked up at each call, so that tests can swap them."""

    def __init__(self, form: Format = Format.TEXT) -> None:
        self.form = form

    def emit(self, data: object, *text: RenderableType) -> None:
        """Print the result of a command: ``data`` as one JSON document, or ``text``, part by part.

        ``data`` may hold dataclasses, enums, paths and addresses. A command calls this once; one
        that goes on for long may call it again: a document (one line each then) per call.
        """
        if self.form is Format.JSON:
            sys.stdout.write(json.dumps(data, default=_plain) + "\n")
            sys.stdout.flush()
            return
        # Piped output isn't cut to a terminal's width: a reader downstream wants whole cells.
        width = None if sys.stdout.isatty() else 200
        console = Console(file=sys.stdout, highlight=False, soft_wrap=False, width=width)
        for part in text:
            if isinstance(part, str):
                console.print(part, markup=False, soft_wrap=True)
            else:
                console.print(part)

    def note(self, sentence: str) -> None:
        """Progress or a warning for a person: stderr, in either format."""
        sys.stderr.write(f"hybrid: {sentence}\n")
        sys.stderr.flush()

    def error(self, error: HybridError) -> None:
        """The end of a failed command: sentence and remedy on stderr; with JSON the object on stdout too."""
        sys.stderr.write(f"hybrid: {error.message}\n")
        if error.remedy:
            sys.stderr.write(f"  what to do: {error.remedy}\n")
        sys.stderr.flush()
        if self.form is Format.JSON:
            self.emit({"error": error.as_dict()})
