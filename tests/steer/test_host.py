"""What the host lacks is said in one sentence, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybrid._native import ffi, lib
from hybrid.bpf import Steering, ensure_bpffs
from hybrid.bpf.bpffs import ROOT
from hybrid.errors import HybridError, PrivilegeError

from .lab import run


def test_ensure_bpffs_is_idempotent() -> None:
    ensure_bpffs()
    assert ensure_bpffs() is False
    assert ROOT.is_dir()


def test_a_bpffs_is_mounted_where_there_is_none(tmp_path: Path) -> None:
    error = ffi.new("hy_steer_error *")
    try:
        assert lib.hy_steer_bpffs(str(tmp_path).encode(), error) == 1
        assert lib.hy_steer_bpffs(str(tmp_path).encode(), error) == 0
        assert run("stat", "-f", "-c", "%T", str(tmp_path)).strip() == "bpf_fs"
    finally:
        run("umount", str(tmp_path), check=False)


def test_a_mount_namespace_whose_pins_would_vanish_is_refused() -> None:
    script = (
        "from hybrid.bpf import ensure_bpffs\n"
        "from hybrid.errors import HybridError\n"
        "try:\n    ensure_bpffs()\n"
        "except HybridError as error:\n"
        "    print(error.message, error.remedy, int(error.exit_code), sep='|')\n"
    )
    ensure_bpffs()
    away = 'while umount /sys/fs/bpf 2>/dev/null; do :; done; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", away, "sh", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message, remedy, code = done.stdout.strip().split("|")
    assert "/sys/fs/bpf" in message
    assert "nsenter" in remedy
    assert code == "4"


def test_without_the_privilege_it_says_so() -> None:
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(65534)
        status = 1
        try:
            Steering.load()
        except PrivilegeError as error:
            status = 0 if error.message and "root" in (error.remedy or "") else 2
        except BaseException:
            status = 3
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_object_that_is_missing_or_no_program_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.o").write_bytes(b"\x7fELF" + b"\0" * 64)
    for name in ("missing.o", "broken.o"):
        with pytest.raises(HybridError, match=name):
            Steering.load(tmp_path / name)
    out, err = capfd.readouterr()
    assert (out, err) == ("", ""), "libbpf's printing is caught"


def test_a_closed_handle_says_so() -> None:
    steering = Steering.load()
    steering.close()
    steering.close()
    with pytest.raises(HybridError, match="closed"):
        steering.counters()


def test_every_reason_has_words() -> None:
    count = lib.hy_steer_reason_count()
    names = [ffi.string(lib.hy_steer_reason_name(i)).decode() for i in range(count)]
    assert len(set(names)) == count
    assert all(ffi.string(lib.hy_steer_reason_help(i)) for i in range(count))
    assert lib.hy_steer_reason_name(count) == ffi.NULL
    assert lib.hy_steer_reason_help(count) == ffi.NULL
