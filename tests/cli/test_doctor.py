"""`hybrid doctor`: what is seen is said, what can't be seen is inconclusive, and nothing is left behind."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybrid.cli import app
from hybrid.doctor import GROUPS, Finding, Outcome, exit_code, software
from hybrid.errors import ExitCode


def test_every_finding_that_is_not_yes_says_what_to_do_or_why_nothing_can_be() -> None:
    result = CliRunner().invoke(app, ["doctor", "--output", "json"])
    found = json.loads(result.stdout)
    assert result.exit_code == found["exit_code"]
    assert set(found["findings"]) == set(GROUPS)
    for finding in (finding for group in found["findings"].values() for finding in group):
        assert finding["detail"]
        assert finding["outcome"] == "yes" or finding["remedy"], finding


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([(Outcome.YES, True), (Outcome.NO, False)], ExitCode.OK),
        ([(Outcome.YES, True), (Outcome.INCONCLUSIVE, True)], ExitCode.PERMISSION),
        ([(Outcome.INCONCLUSIVE, True), (Outcome.NO, True)], ExitCode.UNSUPPORTED),
    ],
)
def test_the_exit_code_says_whether_the_main_job_can_run(
    outcomes: list[tuple[Outcome, bool]], code: ExitCode
) -> None:
    assert exit_code(Finding("x", outcome, "", needed) for outcome, needed in outcomes) is code


@pytest.mark.root
def test_without_privilege_what_cannot_be_seen_is_inconclusive() -> None:
    script = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\nfrom hybrid.cli import main\nmain()"
    )
    command = [sys.executable, "-P", "-c", script, "doctor", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    found = {f["name"]: f for group in json.loads(done.stdout)["findings"].values() for f in group}
    for name in ("CAP_NET_ADMIN", "AF_XDP socket", "XDP program", "XDP on veth"):
        assert (found[name]["outcome"], found[name]["remedy"]) == ("inconclusive", "sudo hybrid doctor")


@pytest.mark.root
def test_nothing_is_left_in_the_namespace_it_runs_in() -> None:
    def seen() -> tuple[list[tuple[int, str]], str, int]:
        own = str(Path("/proc/thread-self/ns/net").readlink())
        return socket.if_nameindex(), own, len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = seen()
    CliRunner().invoke(app, ["doctor"])
    assert seen() == before


def test_the_bcc_of_pypi_is_told_from_the_one_of_debian(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    importlib.invalidate_caches()
    found = next(finding for finding in software.probe() if finding.name == "python3-bpfcc")
    assert found.outcome is Outcome.NO
    assert "pip uninstall -y bcc" in (found.remedy or "")


def test_a_command_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *args, **kwargs: None)
    found = {finding.name: finding for finding in software.probe()}
    assert found["redis-benchmark"].remedy == "apt-get install -y redis-tools"
