"""Runs every check of the project and counts them. Called by ``tools/test``, which has done the set-up.

A *stage* runs some tool and gives back *cases*: each linter is one, each cmocka test, each fuzz
target, each pytest test. Everything is counted together, skips are listed with their reasons,
and the last line is ``N passed, N failed, N skipped``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

TOP = Path(__file__).resolve().parent.parent
BIN = TOP / ".venv" / "bin"
C_FOLDERS = ("hybrid", "examples", "tests")
FUZZ_SECONDS = 5

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was checked. ``detail`` is why it failed or was skipped."""

    name: str
    outcome: Outcome
    detail: str = ""


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Runs a command whose output goes to the terminal; its exit code."""
    return subprocess.run(command, cwd=TOP, env={**os.environ, **(env or {})}, check=False).returncode


def linter(name: str, command: Sequence[str | Path]) -> Case:
    """One linter as one case; what it says is printed only if it found something."""
    if shutil.which(str(command[0])) is None:
        return Case(name, "failed", f"{command[0]} is not installed; run tools/setup")
    began = time.monotonic()
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    outcome: Outcome = "passed" if done.returncode == 0 else "failed"
    print(f"  {name}: {outcome} ({time.monotonic() - began:.1f} s)", flush=True)
    if done.returncode == 0:
        return Case(name, "passed")
    print((done.stdout + done.stderr).rstrip(), flush=True)
    return Case(name, "failed", f"exit code {done.returncode}; see its findings above")


# ---- stages -----------------------------------------------------------------


def lint(_: Sequence[str]) -> list[Case]:
    """Layout, lint and types of Python; layout and static analysis of C."""
    sources = sorted(
        p for folder in C_FOLDERS for ending in ("c", "h") for p in (TOP / folder).rglob(f"*.{ending}")
    )
    return [
        linter("ruff check", [BIN / "ruff", "check", "--quiet", "."]),
        linter("ruff format", [BIN / "ruff", "format", "--check", "--quiet", "."]),
        linter("mypy --strict hybrid", [BIN / "mypy", "--no-error-summary"]),
        linter(
            "mypy --strict tools",
            [BIN / "mypy", "--no-error-summary", "tools/run_tests.py", "tools/shown.py", "tools/matrix.py"],
        ),
        linter("clang-format", ["clang-format", "--dry-run", "-Werror", *sources]),
        clang_tidy(),
    ]


def clang_tidy() -> Case:
    """Every C file that the build compiles, except what the build itself wrote.

    It takes minutes, so what was found clean is remembered by its content: its own, that of every
    header it includes, and the configuration.
    """
    build = TOP / "build"
    seen_clean = build / "clang-tidy.clean"
    clean = set(seen_clean.read_text().split()) if seen_clean.exists() else set()
    keys = {file: key for file, key in tidy_keys(build).items() if key not in clean}
    began = time.monotonic()

    def check(file: Path) -> str:
        # The build's warnings are the compiler's business: here they are neither errors nor shown.
        # With asserts, which the build leaves out: they tell the analyser what holds.
        flags = ["--extra-arg=-Wno-error", "--extra-arg=-UNDEBUG"]
        command: list[str | Path] = ["clang-tidy", "--quiet", "-p", build, *flags, file]
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            clean.add(keys[file])
        return "" if done.returncode == 0 else done.stdout + done.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = [text for text in pool.map(check, keys) if text]
    seen_clean.write_text("\n".join(sorted(clean)))
    seconds = time.monotonic() - began
    outcome: Outcome = "failed" if findings else "passed"
    print(f"  clang-tidy: {outcome} ({len(keys)} new or changed files, {seconds:.1f} s)", flush=True)
    if not findings:
        return Case("clang-tidy", "passed")
    # A finding in a header is found again from each file that includes it.
    print("\n".join(dict.fromkeys("".join(findings).splitlines())))
    return Case("clang-tidy", "failed", f"findings in {len(findings)} files, see above")


def tidy_keys(build: Path) -> dict[Path, str]:
    """Each C file of ours that the build compiles, with a digest of all that clang-tidy looks at."""
    command: list[str | Path] = ["ninja", "-C", build, "-t", "deps"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    database: list[dict[str, str]] = json.loads((build / "compile_commands.json").read_text())
    flags = {(Path(row["directory"]) / row["file"]).resolve(): row["command"] for row in database}
    ours = {file for file in flags if any(file.is_relative_to(TOP / folder) for folder in C_FOLDERS)}
    settings = b"".join(path.read_bytes() for path in (TOP / ".clang-tidy", TOP / "tests" / ".clang-tidy"))
    content: dict[Path, bytes] = {}
    keys = {}
    for block in listed.split("\n\n"):
        names = [(build / line.strip()).resolve() for line in block.splitlines()[1:]]
        if not names or names[0] not in ours:
            continue
        digest = hashlib.sha256(settings + flags[names[0]].encode())
        for name in names:
            if name not in content:
                content[name] = hashlib.sha256(name.read_bytes()).digest()
            digest.update(content[name])
        keys[names[0]] = digest.hexdigest()
    return dict(sorted(keys.items()))


def unit(_: Sequence[str]) -> list[Case]:
    """The C unit tests as built for use."""
    command: list[str | Path] = [BIN / "meson", "test", "-C", TOP / "build", "--no-rebuild"]
    return meson_cases("unit", command, TOP / "build")


def sanitize(_: Sequence[str]) -> list[Case]:
    """The C unit tests under the address and undefined-behaviour sanitizers."""
    return meson_cases("sanitize", [TOP / "tools" / "sanitize"], TOP / "build-sanitize")


def meson_cases(stage: str, command: Sequence[str | Path], build: Path) -> list[Case]:
    """Runs ``meson test`` with cmocka made to speak TAP, and counts each of its cases."""
    log = build / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    code = run([*command, "--print-errorlogs"], {"CMOCKA_MESSAGE_OUTPUT": "TAP"})
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    cases = [case for row in rows for case in test_program_cases(stage, row)]
    if code != 0 and not any(case.outcome == "failed" for case in cases):
        cases.append(Case(stage, "failed", f"exit code {code}; see above"))
    return cases


def test_program_cases(stage: str, row: Mapping[str, str]) -> Iterator[Case]:
    """The cases of one test program, from its row of meson's log. A crash is a failed case of its own."""
    program = f"{stage}:{row['name'].split(' / ')[-1]}"
    seen: list[Case] = []
    for number, rest in re.findall(r"^(ok|not ok)\b\s*(.*)$", row.get("stdout", ""), re.MULTILINE):
        name, _, directive = re.sub(r"^\d+\s*(- )?", "", rest).partition("#")
        if directive.strip().upper().startswith("SKIP"):
            # cmocka writes the name after the word.
            text = directive.strip()[len("SKIP") :].strip()
            seen.append(
                Case(f"{program}:{name.strip() or text}", "skipped", "the test says it cannot run here")
            )
        else:
            seen.append(Case(f"{program}:{name.strip()}", "passed" if number == "ok" else "failed"))
    yield from seen
    if row["result"] in ("OK", "EXPECTEDFAIL"):
        if not seen:
            yield Case(program, "passed")
    elif row["result"] == "SKIP":
        if not seen:
            yield Case(program, "skipped", "the program says it cannot run here")
    elif not any(case.outcome == "failed" for case in seen):
        yield Case(program, "failed", f"{row['result'].lower()}, after {len(seen)} cases")


def fuzz(_: Sequence[str]) -> list[Case]:
    """A few seconds of each fuzz target, from its seeds; the generator's own seed is fixed."""
    listed = subprocess.run(
        [TOP / "tools" / "fuzz", "--list"], cwd=TOP, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        print(listed.stdout + listed.stderr)
        return [Case("fuzz", "failed", "the fuzz targets did not build; see above")]
    cases = []
    for target in listed.stdout.split():
        code = run([TOP / "tools" / "fuzz", target, str(FUZZ_SECONDS), "-seed=1", "-verbosity=0"])
        detail = "" if code == 0 else "the input that does it is in build-fuzz; see above"
        cases.append(Case(f"fuzz:{target}", "failed" if code else "passed", detail))
        print(f"  {target}: {cases[-1].outcome}", flush=True)
    return cases


def pytest(arguments: Sequence[str]) -> list[Case]:
    """The tests written in Python: simulated stacks, namespaces, real peers, the command line."""
    with tempfile.TemporaryDirectory(prefix="hybrid-test-") as folder:
        report = Path(folder) / "report.xml"
        code = run([BIN / "pytest", f"--junitxml={report}", *arguments])
        cases = list(junit_cases(report)) if report.exists() else []
    if code != 0 and not any(case.outcome == "failed" for case in cases):
        why = "no test matches" if code == 5 else f"pytest ended with exit code {code}; see above"
        cases.append(Case("pytest", "failed", why))
    return cases


def junit_cases(report: Path) -> Iterator[Case]:
    """The cases of a pytest report."""
    for row in ElementTree.parse(report).iter("testcase"):
        name = f"{row.get('classname', '')}::{row.get('name', '')}"
        failed = [e for e in row if e.tag in ("failure", "error")]
        skipped = row.find("skipped")
        if failed:
            yield Case(
                name,
                "failed",
                (failed[0].get("message") or "").splitlines()[0] if failed[0].get("message") else "",
            )
        elif skipped is not None:
            yield Case(name, "skipped", skipped.get("message") or "no reason given")
        else:
            yield Case(name, "passed")


STAGES: dict[str, Callable[[Sequence[str]], list[Case]]] = {
    "lint": lint,
    "unit": unit,
    "sanitize": sanitize,
    "fuzz": fuzz,
    "pytest": pytest,
}


# ---- the run ----------------------------------------------------------------


def close(cases: Sequence[Case], times: Mapping[str, float]) -> int:
    """Prints what was skipped and why, what failed, and the count; the exit code."""
    print("\n==== summary", flush=True)
    print("  " + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in times.items()))
    skips = Counter(case.detail for case in cases if case.outcome == "skipped")
    if skips:
        print("skipped, and why:")
        for reason, often in skips.most_common():
            names = [case.name for case in cases if case.outcome == "skipped" and case.detail == reason]
            print(f"  {often} x {reason}  ({names[0]}{', ...' if often > 1 else ''})")
    failures = [case for case in cases if case.outcome == "failed"]
    if failures:
        print("failed:")
        for case in failures:
            print(f"  {case.name}  {case.detail}".rstrip())
    total = Counter(case.outcome for case in cases)
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped", flush=True)
    return 1 if failures or not cases else 0


def stage_names(text: str) -> list[str]:
    """The stages that ``--only`` names, in the order in which they run."""
    names = set(text.split(","))
    unknown = names - set(STAGES)
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}"
        )
    return [name for name in STAGES if name in names]


def main() -> int:
    """Runs the stages that were asked for."""
    parser = argparse.ArgumentParser(
        prog="tools/test",
        description="Set-up, then every check there is. What it does not know itself goes to pytest, "
        "and then, unless --only says otherwise, pytest is all that runs.",
        epilog="stages: "
        + "; ".join(f"{name}: {(stage.__doc__ or '').strip()}" for name, stage in STAGES.items()),
    )
    parser.add_argument("--only", type=stage_names, metavar="STAGE[,STAGE]", help="run these stages")
    options, arguments = parser.parse_known_args()
    stages: list[str] = options.only or (["pytest"] if arguments else list(STAGES))

    # A SIGTERM unwinds like Ctrl-C, so that what a stage started is waited for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cases: list[Case] = []
    times: dict[str, float] = {}
    try:
        for stage in stages:
            print(f"\n==== {stage}", flush=True)
            began = time.monotonic()
            cases += STAGES[stage](arguments)
            times[stage] = time.monotonic() - began
    except KeyboardInterrupt:
        print("\nstopped by a signal; nothing counted", file=sys.stderr)
        return 130
    return close(cases, times)


if __name__ == "__main__":
    sys.exit(main())
