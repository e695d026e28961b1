"""The habits that a reader of this code relies on, held by a test and not by good intentions."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
NOT_OURS = {".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__"}
LINES_MAX = 700


def ours(*endings: str) -> list[Path]:
    """Every file of the checkout with one of these endings, caches and build folders left out."""
    return sorted(
        path
        for path in TOP.rglob("*")
        if path.is_file()
        and path.name.endswith(endings)
        and not any(part in NOT_OURS or part.startswith("build") for part in path.relative_to(TOP).parts[:-1])
    )


def name(path: Path) -> str:
    return str(path.relative_to(TOP))


C_FILES = ours(".c", ".h")
CODE = ours(".c", ".h", ".py")
TEXTS = ours(".c", ".h", ".py", ".md", ".yaml", ".toml", ".build", ".txt", ".options") + [
    path for path in (TOP / "tools").iterdir() if path.is_file() and path.suffix == ""
]


def test_a_c_file_says_its_licence_and_then_what_it_is() -> None:
    wrong = []
    for path in C_FILES:
        first, second = [*path.read_text().splitlines(), "", ""][:2]
        # What NAME.c is for may stand in NAME.h.
        told = second.startswith("/*") or (path.suffix == ".c" and second.endswith(f'/{path.stem}.h"'))
        # What is loaded into the kernel, and the headers that it shares, is also under the kernel's licence.
        kernels = path.is_relative_to(TOP / "hybrid/bpf") or path.name.endswith(".bpf.c")
        dual = kernels and "(GPL-2.0-only OR BSD-2-Clause)"
        licences = {
            f"/* SPDX-License-Identifier: {licence} */" for licence in ("Apache-2.0", dual) if licence
        }
        if path.name.endswith(".bpf.c"):
            licences = {f"/* SPDX-License-Identifier: {dual} */"}
        if first not in licences or not told:
            wrong.append(name(path))
    assert wrong == []


def test_a_file_holds_one_idea() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in CODE}
    assert {path: lines for path, lines in lengths.items() if lines > LINES_MAX} == {}


def test_nothing_is_left_for_later() -> None:
    # Put together, so that this line does not find itself.
    left = re.compile(
        "|".join(["TO" + "DO", "FIX" + "ME", r"\bX" + "XX", r"\bHA" + "CK", "NotImple" + "mentedError"])
    )
    assert [f"{name(p)}: {m[0]}" for p in CODE for m in left.finditer(p.read_text())] == []


def test_no_path_of_one_machine() -> None:
    machine = re.compile("/(?:" + "|".join(["wo" + "rk", "fa" + "rm", "ro" + "ot", "ho" + "me"]) + r")/\w+")
    assert [f"{name(p)}: {m[0]}" for p in TEXTS for m in machine.finditer(p.read_text())] == []


def test_a_python_module_says_what_it_is_for() -> None:
    undocumented = [
        name(p)
        for p in ours(".py")
        if p.is_relative_to(TOP / "hybrid") and not p.read_text().startswith('"""')
    ]
    assert undocumented == []


def test_the_version_stands_in_one_place() -> None:
    stated = re.search(r"version: '([^']+)'", (TOP / "meson.build").read_text())
    assert stated
    assert version("hybrid") == stated[1], "the installed package is of another version: run tools/setup"
    assert stated[1] not in (TOP / "pyproject.toml").read_text().split("[project.optional")[0]
    assert f"## [{stated[1]}]" in (TOP / "CHANGELOG.md").read_text()


def test_the_abi_of_the_library_is_the_abi_of_its_header() -> None:
    header = re.search(r"HY_ABI = (\d+)", (TOP / "hybrid/core/hybrid.h").read_text())
    build = re.search(r"hy_abi = '(\d+)'", (TOP / "meson.build").read_text())
    assert header and build
    assert header[1] == build[1]


def test_every_debian_package_has_a_reason() -> None:
    lines = [
        line
        for line in (TOP / "tools/packages.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+\s+# \S.*", line)] == []


def test_every_python_requirement_is_bounded() -> None:
    project = (TOP / "pyproject.toml").read_text()
    wanted = re.findall(r'"([A-Za-z][A-Za-z0-9_.-]+)([<>=~!][^"]*)?"', project.split("[project.scripts]")[0])
    loose = [f"{package}{bounds}" for package, bounds in wanted if bounds and "<" not in bounds]
    assert loose == []
