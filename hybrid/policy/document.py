"""Reads the YAML of a policy into plain values and the place of each.

The bytes are hostile: their number, the depth and the count of nodes are bounded, and what YAML has
beyond mappings, lists and scalars (anchors, aliases, tags, merge keys, several documents) is
refused. Scalars are read by YAML 1.2's rules, without its 1.1 surprises: ``no`` is a text, and a
number with a leading zero, which one reader takes for octal and another for decimal, is neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from hybrid.policy.problem import Position, Problem

__all__ = ["BYTES_MAX", "DEPTH_MAX", "NODES_MAX", "Document", "Path", "read"]

BYTES_MAX = 256 * 1024
DEPTH_MAX = 16
NODES_MAX = 20_000

# A way through the document: ("interfaces", 0, "rules", 2, "to").
Path = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_ODD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|0[xob][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?([0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?|[-+]?[0-9]{1,40}[eE][-+]?[0-9]{1,3}"
)
_CONSTANTS: dict[str, bool | None] = {
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
}  # fmt: skip


@dataclass
class Document:
    """``value`` is plain; ``keys`` and ``values`` say where each key and value stands."""

    value: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def key(self, path: Path) -> Position:
        """Of the key that leads to ``path``, or of the nearest thing that there is."""
        return self.keys.get(path) or self.at(path)

    def at(self, path: Path) -> Position:
        """Of the value at ``path``, or of what would hold it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Position(1, 1))


class _Stop(Exception):  # noqa: N818 - not an error of its own: reading cannot go on
    """The document cannot be read any further; the problem is noted already."""


def read(data: bytes) -> Document:
    """Never raises: what is wrong is in ``problems``, all of it as far as the text could be read."""
    document = Document()
    try:
        _read(data, document)
    except _Stop:
        document.value = None
    return document


def _read(data: bytes, document: Document) -> None:
    if len(data) > BYTES_MAX:
        _stop(document, Position(1, 1), f"the file has {len(data)} bytes", f"at most {BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        document.lines = data.decode("utf-8", "replace").split("\n")
        _stop(document, _place(before), f"byte 0x{data[error.start]:02x} is not UTF-8", "text in UTF-8")
    document.lines = text.splitlines()
    try:
        _Builder(document, yaml.parse(text, Loader=yaml.SafeLoader)).build()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        code = ord(text[error.position])
        _stop(document, _place(before), f"character U+{code:04X} cannot stand in YAML", "printable text")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        _stop(document, _position(mark), f"this is not YAML: {message}", "a mapping of keys to values")


class _Builder:
    """Builds values from YAML's events, one at a time, so that a limit stops the reading itself."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self._document = document
        self._events = events
        self._nodes = 0

    def build(self) -> None:
        """The one document of the stream."""
        next(self._events)  # the stream begins
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            _stop(self._document, Position(1, 1), "the file is empty", "a policy: version and interfaces")
        self._document.value = self._node(next(self._events), (), 0)
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._stop(after, "a second document begins here", "one policy in a file")

    def _node(self, event: Any, path: Path, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            self._stop(event, f"the file holds more than {NODES_MAX} values", "a shorter policy")
        if depth > DEPTH_MAX:
            self._stop(event, f"values are nested more than {DEPTH_MAX} deep", "a policy, which is 6 deep")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._stop(event, "anchors and aliases (& and *) are not used in policies", "the value itself")
        if event.tag is not None:
            self._stop(event, f"tags ({event.tag[:40]}) are not used in policies", "the value alone")
        self._document.values[path] = _position(event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            made: list[Any] = []
            while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
                made.append(self._node(following, (*path, len(made)), depth + 1))
            return made
        return self._mapping(path, depth)

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent) or key.anchor is not None or key.tag is not None:
                self._stop(key, "a key is not a plain word", "key: value")
            name = key.value
            where = _position(key.start_mark)
            if name in made:
                line = self._document.keys[(*path, name)].line
                self._note(where, f"the key '{_short(name)}' stands here twice (first in line {line})",
                           "each key once")  # fmt: skip
                self._node(next(self._events), (*path, name, "again"), depth + 1)
                continue
            self._document.keys[(*path, name)] = where
            made[name] = self._node(next(self._events), (*path, name), depth + 1)
        return made

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0]:
            return text  # quoted, or a block
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _ODD_NUMBER.fullmatch(text):
            digits = text.replace("_", "").lstrip("0") or "0"
            plain = f"; write {digits}" if digits.isdigit() and len(digits) < 20 else ""
            self._note(
                _position(event.start_mark),
                f"'{_short(text)}' is one number to some readers of YAML, and another or a text to others",
                f"decimal digits without a leading zero{plain}",
            )
            return None
        return float(text) if _FLOAT.fullmatch(text) else text

    def _note(self, where: Position, message: str, expected: str) -> None:
        self._document.problems.append(Problem(where, message, expected))

    def _stop(self, event: Any, message: str, expected: str) -> NoReturn:
        _stop(self._document, _position(event.start_mark), message, expected)


def _stop(document: Document, where: Position, message: str, expected: str) -> NoReturn:
    document.problems.append(Problem(where, message, expected))
    raise _Stop


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)


def _place(before: str) -> Position:
    """The place that follows a text."""
    return Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _short(text: str) -> str:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return "".join(c if c.isprintable() else "?" for c in shown)
