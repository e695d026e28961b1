"""From the bytes of a policy file to a checked policy, or to every mistake in it with its place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError

from hybrid.errors import UsageError, from_errno
from hybrid.policy.check import check_devices, check_interfaces, check_rules
from hybrid.policy.device import FrameDevice, Via
from hybrid.policy.document import BYTES_MAX, Document, Path, read
from hybrid.policy.model import (
    DPDK_QUEUES_MAX,
    EAL_MAX,
    INTERFACES_MAX,
    PRIORITY_MAX,
    RULES_MAX,
    CopyMode,
    DpdkModel,
    EalModel,
    InterfaceModel,
    MatchModel,
    Mode,
    PolicyModel,
    RuleModel,
    TapModel,
    UringModel,
)
from hybrid.policy.problem import PolicyFileError, Problem, did_you_mean
from hybrid.policy.rule import Fallback, Protocol, Target

__all__ = ["load", "loads"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": tuple(Mode),
    "copy": tuple(CopyMode),
    "protocol": tuple(Protocol),
    "to": tuple(Target),
    "fallback": tuple(Fallback),
    "device": tuple(FrameDevice),
    "via": tuple(Via),
}

# What a key takes, in the words of an error.
_TAKES = {
    "version": "version: 1",
    "interfaces": f"interfaces: a list of 1 to {INTERFACES_MAX} interfaces",
    "name": "name: a text",
    "rules": f"rules: a list of at most {RULES_MAX} rules, which may be empty: []",
    "match": "match: a mapping of protocol, source, destination, destination_port",
    "to": "to: afxdp, dpdk, bypass, uring, kernel or drop",
    "eal": f"eal: a list of at most {EAL_MAX} arguments",
    "queues": f"queues: a whole number from 1 to {DPDK_QUEUES_MAX}",
    "addresses": "addresses: a list of 1 to 8 addresses such as 10.0.0.2/24",
    "priority": f"priority: a whole number from 1 to {PRIORITY_MAX}",
}

_FALSE_WORDS = ("no", "off", "n", "f", "0")
_TRUE_WORDS = ("yes", "on", "y", "t", "1")


def load(path: FilePath) -> PolicyModel:
    """Reads and checks a policy file.

    UsageError: it can't be read. PolicyFileError: it isn't a valid policy; holds all its mistakes.
    """
    try:
        # Non-blocking, so that a FIFO is refused and not waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            data = file.read(BYTES_MAX + 1) or b""
    except PermissionError as error:
        raise from_errno(error.errno or 0, f"read {path}") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"cannot read the policy {path}: {reason}", "name a policy file") from None
    return loads(data, str(path))


def loads(data: bytes, file: str = "policy") -> PolicyModel:
    """Checks the text of a policy; ``file`` is what errors call it. PolicyFileError, and no other."""
    document = read(data)
    if document.value is None:
        raise PolicyFileError(file, document.problems or [_not_a_policy(document)], document.lines)
    broken = set(_empty_values(document.value, (), document))
    broken.update(_structural(document, error) for error in _errors(PolicyModel, document.value))
    document.problems.extend(_contradictions(document, broken))
    if document.problems:
        raise PolicyFileError(file, document.problems, document.lines)
    return PolicyModel.model_validate(document.value)


def _not_a_policy(document: Document) -> Problem:
    return Problem(document.at(()), "there is no policy here", "a mapping with version and interfaces")


def _errors(model: type[BaseModel], value: Any) -> list[Any]:
    """What pydantic finds wrong, without its links."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _empty_values(value: Any, path: Path, document: Document) -> Iterator[Path]:
    """Notes keys and items that nothing follows: a slip, never taken for "any". Gives their paths."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, below in items:
        here = (*path, key)
        if below is not None:
            yield from _empty_values(below, here, document)
            continue
        yield here
        if _noted_at(document, here):
            continue
        if isinstance(key, str):
            said = Problem(
                document.key(here), f"'{key[:40]}' has no value", _TAKES.get(key, "a value, or no such key")
            )
        else:
            said = Problem(document.at(here), "this item of the list is empty", "a value, or no '-'")
        document.problems.append(said)


def _noted_at(document: Document, path: Path) -> bool:
    """True if the value was refused when it was read (an ambiguous number)."""
    return any(problem.position == document.at(path) for problem in document.problems)


def _structural(document: Document, error: Any) -> Path:
    """Notes one of pydantic's errors in our words. Returns the path that is broken."""
    path: Path = tuple(error["loc"])
    value = error["input"]
    kind: str = error["type"]
    last = path[-1] if path else ""
    if value is None and kind != "missing":
        return path  # said already: it has no value
    place = document.at(path)
    shown = _shown(value)
    match kind:
        case "missing":
            message = f"{_noun(path[:-1])} has no '{last}'"
            expected = _TAKES.get(str(last), str(last))
            place = document.at(path[:-1])
        case "extra_forbidden":
            keys = _keys(path[:-1])
            message = f"unknown key '{str(last)[:40]}' in {_noun(path[:-1])}"
            expected = f"{_one_of(keys)}{did_you_mean(last, keys)}"
            place = document.key(path)
        case "enum":
            choices = _CHOICES[str(last)]
            message = f"{shown} is not a value of '{last}'"
            expected = f"{_one_of(choices)}{did_you_mean(value, choices)}"
        case "literal_error":
            message = f"{shown} is not a version of policies that this program knows"
            expected = _TAKES["version"]
        case "bool_type":
            message = f"{shown} is neither true nor false"
            expected = "true or false"
            if str(value).lower() in _FALSE_WORDS + _TRUE_WORDS:
                expected = "false" if str(value).lower() in _FALSE_WORDS else "true"
        case "int_type" | "greater_than_equal" | "less_than_equal":
            message = f"{shown} is not a value of '{last}'"
            expected = _TAKES.get(str(last), "a whole number")
        case "string_type":
            message = f"{shown} is not a text"
            expected = "a text, in quotes where YAML reads something else"
        case "list_type":
            message = f"'{last}' is {shown}, not a list"
            expected = _TAKES.get(str(last), "a list")
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"{_noun(path)} is {shown}, not a mapping"
            expected = f"the keys {_one_of(_keys(path), 'and')}, each with its value"
        case "too_long" | "too_short":
            message = f"'{last}' has {len(value)} items"
            expected = _TAKES[str(last)]
        case "policy":
            message, expected = error["ctx"]["message"], error["ctx"]["expected"]
        case _:
            message, expected = f"{shown} does not fit here: {error['msg'].lower()}", "see docs/policy.md"
    document.problems.append(Problem(place, message, expected))
    return path


def _contradictions(document: Document, broken: set[Path]) -> Iterator[Problem]:
    """What whole rules get wrong together, also where other parts of the file are broken."""
    interfaces = document.value.get("interfaces") if isinstance(document.value, dict) else None
    if not isinstance(interfaces, list) or len(interfaces) > INTERFACES_MAX:
        return
    named: list[tuple[int, InterfaceModel]] = []
    for index, interface in enumerate(interfaces):
        base: Path = ("interfaces", index)
        if not isinstance(interface, dict):
            continue
        if isinstance(interface.get("name"), str) and (*base, "name") not in broken:
            named.append((index, InterfaceModel.model_construct(name=interface["name"])))
        rules = interface.get("rules")
        if not isinstance(rules, list) or len(rules) > RULES_MAX:
            continue
        if not any(path[: len(base)] == base for path in broken):
            for found in check_devices(InterfaceModel.model_validate(interface)):
                yield Problem(document.at((*base, *found.path)), found.message, found.expected)
        whole = [
            (at, RuleModel.model_validate(rule))
            for at, rule in enumerate(rules)
            if not any(path[: len(base) + 2] == (*base, "rules", at) for path in broken)
        ]
        for found in check_rules(whole):
            path = (*base, "rules", *found.path)
            yield Problem(document.at(path), found.message, found.expected)
    for found in check_interfaces(named):
        yield Problem(document.at(found.path), found.message, found.expected)


def _model(path: Path) -> type[BaseModel]:
    """The model of the mapping at a path."""
    if not path:
        return PolicyModel
    if len(path) == 2:
        return InterfaceModel
    sections: dict[str | int, type[BaseModel]] = {
        "match": MatchModel,
        "tap": TapModel,
        "uring": UringModel,
        "dpdk": EalModel if len(path) == 1 else DpdkModel,
    }
    return sections.get(path[-1], RuleModel)


def _noun(path: Path) -> str:
    names = {PolicyModel: "the policy", InterfaceModel: "this interface", RuleModel: "this rule"}
    return names.get(_model(path), str(path[-1]) if path else "")


def _keys(path: Path) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in _model(path).model_fields.items())


def _one_of(words: tuple[str, ...], last: str = "or") -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return f"'{text if len(text) <= 40 else text[:37] + '...'}'"
