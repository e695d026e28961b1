"""The C library as a C programmer meets it: installed, found by pkg-config, used without Python."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
MESON = TOP / ".venv/bin/meson"

PROGRAM = """
#include <hybrid.h>
#include <stdio.h>

int main(void) {
  hy_shard *shard;
  hy_config config;
  hy_config_default(&config);
  config.clock = HY_CLOCK_VIRTUAL;
  int rc = hy_shard_open(&config, &shard);
  printf("%d %s\\n", HY_ABI, hy_strerror(rc));
  if (rc == 0)
    hy_shard_close(shard);
  return rc < 0;
}
"""


def output(*command: str | Path, environ: dict[str, str]) -> str:
    """Of a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty root into which the build has been installed."""
    root = tmp_path_factory.mktemp("root")
    output(MESON, "install", "-C", TOP / "build", "--no-rebuild", "--quiet", "--destdir", root, environ={})
    return root


def test_a_c_program_builds_by_pkg_config_and_runs_without_python(root: Path, tmp_path: Path) -> None:
    [pc] = root.rglob("hybrid.pc")
    environ = {"PKG_CONFIG_PATH": str(pc.parent), "PKG_CONFIG_SYSROOT_DIR": str(root)}
    flags = output("pkg-config", "--cflags", "--libs", "hybrid", environ=environ).split()
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(PROGRAM)
    output("cc", "-Wall", "-Wextra", "-Werror", source, "-o", program, *flags, environ={})
    [library] = root.rglob("libhybrid.so.1")
    assert output(program, environ={"LD_LIBRARY_PATH": str(library.parent)}) == "1 no error\n"


def test_the_library_gives_nothing_away_but_its_interface(root: Path) -> None:
    [library] = root.rglob("libhybrid.so.1")
    names = {
        line.split()[-1] for line in output("nm", "-D", "--defined-only", library, environ={}).splitlines()
    }
    assert names
    # And what a plugin may use: marked so where it is declared.
    headers = "".join(path.read_text() for path in (TOP / "hybrid").rglob("*.h"))
    plugin = set(re.findall(r"^HY_PLUGIN\b[^;]*?(\w+)\((?!\()[^();]*\);", headers, re.MULTILINE))
    assert {name for name in names if not name.startswith("hy_")} <= plugin
