"""`hybrid check`: a policy file is looked at without privilege."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from hybrid.cli import app

VALID = """version: 1
interfaces:
  - name: hys0
    rules:
      - {name: redis, match: {protocol: tcp, destination_port: 6379}, to: afxdp}
"""


def check(tmp_path: Path, text: str, *more: str) -> tuple[int, str, str]:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["check", str(path), *more])
    return result.exit_code, result.stdout, result.stderr


def test_a_valid_file_is_shown_as_the_rules_it_makes(tmp_path: Path) -> None:
    code, out, _ = check(tmp_path, VALID)
    assert code == 0
    assert "tcp port 6379 -> afxdp (priority 1000)" in out


def test_the_json_form_has_the_rules(tmp_path: Path) -> None:
    code, out, _ = check(tmp_path, VALID, "--output", "json")
    assert code == 0
    (interface,) = json.loads(out)["interfaces"]
    assert interface["rules"][0]["ports"] == [6379, 6379]


def test_an_invalid_file_ends_with_1_and_each_place(tmp_path: Path) -> None:
    code, out, err = check(tmp_path, VALID.replace("tcp", "tpc").replace("afxdp", "afxpd"))
    assert (code, out) == (1, "")
    assert "p.yaml:5:41: 'tpc' is not a value of 'protocol'" in err
    assert "did you mean 'afxdp'?" in err


def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "no such file or directory" in result.stderr
