"""The command line, run as a person does, in the server's namespace of a lab."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybrid.lab import Lab
from tests.netns.peers_fixtures import app, app_for, apps, family, meet  # noqa: F401

HYBRID = str(Path(sys.executable).with_name("hybrid"))
WITHIN_S = 30


class Serving:
    """A `hybrid serve` or `hybrid run` that is under way."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]

    def until(self, word: str) -> str:
        """Waits until it has said something."""
        deadline = time.monotonic() + WITHIN_S
        while word not in self.said:
            assert self.process.poll() is None, f"it ended without saying {word!r}: {self.said}"
            assert time.monotonic() < deadline, f"it never said {word!r}: {self.said}"
            time.sleep(0.02)
        return self.said

    def ready(self) -> dict[str, Any]:
        self.until('"ready"')
        return next(document for document in self.documents() if "ready" in document)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WITHIN_S)


class Cli:
    """``hybrid`` in the server's namespace."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.serving: list[Serving] = []

    @property
    def server(self) -> Any:
        return self.lab.sides["server"]

    @property
    def client(self) -> Any:
        return self.lab.sides["client"]

    def __call__(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.server.run(
            [HYBRID, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        if code is not None:
            assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self("--output", "json", *arguments).stdout)

    def policy(self, *rules: str, interface: str = "hys0", **settings: str) -> str:
        """Writes a policy file of one interface; a rule is ``NAME PROTOCOL PORTS``."""
        lines = ["version: 1", "interfaces:", f"  - name: {interface}"]
        lines += [f"    {key}: {value}" for key, value in settings.items()]
        lines += ["    rules:" if rules else "    rules: []"]
        for rule in rules:
            name, protocol, ports = rule.split()
            match = f'{{protocol: {protocol}, destination_port: "{ports}"}}'
            lines += [f"      - name: {name}", f"        match: {match}", "        to: afxdp"]
        path = self.folder / f"policy-{len(list(self.folder.iterdir()))}.yaml"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    def start(self, *arguments: str) -> Serving:
        log = self.folder / f"log-{len(self.serving)}"
        with log.open("wb") as file:
            process = self.server.popen([HYBRID, "--output", "json", *arguments], stdout=file, stderr=file)
        serving = Serving(process, log)
        self.serving.append(serving)
        return serving

    def stop(self) -> None:
        for serving in self.serving:
            if serving.process.poll() is None:
                serving.process.kill()
                serving.process.wait()
        self("clean", "--force", code=None)


@pytest.fixture
def cli(make_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Cli]:
    made = Cli(make_lab(), tmp_path)
    yield made
    made.stop()


def ended(pid: int) -> bool:
    """Waits for the end of a process that is not ours."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            return bool(select.select([fd], [], [], WITHIN_S)[0])
        finally:
            os.close(fd)
    return True
