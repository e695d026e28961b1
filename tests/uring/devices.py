"""What the tests of this folder need: the peers' application on a TAP device or a packet socket of its own.

Own-address mode and shared mode stand beside the kernel on ``hys0``; the TAP device is a link of its own
between the application and the kernel of the server's namespace.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid.lab import Lab
from hybrid.lab.side import Side
from tests.netns.peers import BUILD, PORT, App, Peer

FRAMES_APP = BUILD / "tests" / "uring" / "frames-app"
WITHOUT = str(BUILD / "tests" / "uring" / "without")
TAP = "tap7"
OFFLOAD = {"auto": 0, "no": 1, "must": 2}


@dataclass(frozen=True)
class Ends:
    """Our side's addresses, and the kernel's that talk to it."""

    ours: dict[int, str]
    theirs: dict[int, str]


TAP_ENDS = Ends({4: "10.88.0.2", 6: "fd88::2"}, {4: "10.88.0.1", 6: "fd88::1"})
OWN_ENDS = Ends({4: "10.77.0.9", 6: "fd77::9"}, {4: "10.77.0.2", 6: "fd77::2"})
SHARED_ENDS = Ends({4: "10.77.0.1", 6: "fd77::1"}, {4: "10.77.0.2", 6: "fd77::2"})
OUR_MAC = "02:00:00:00:77:09"


def tap_up(side: Side, tap: str) -> None:
    """Gives the kernel's end its addresses."""
    for command in (
        ["sysctl", "-q", "-w", f"net.ipv6.conf.{tap}.accept_dad=0"],
        ["ip", "link", "set", tap, "up"],
        ["ip", "addr", "add", f"{TAP_ENDS.theirs[4]}/24", "dev", tap],
        ["ip", "addr", "add", f"{TAP_ENDS.theirs[6]}/64", "dev", tap, "nodad"],
    ):
        side.run(command)


class DeviceApp(App):
    """``frames-app`` in the server's namespace; ``peer`` is the side whose kernel it talks to."""

    tap = TAP

    def __init__(
        self,
        lab: Lab,
        log: Path,
        kind: str,
        offload: str = "auto",
        mac: str | None = None,
        without: str | None = None,
    ) -> None:
        self._begin(lab, log)
        self.kind = kind
        self.ends = {"tap": TAP_ENDS, "own": OWN_ENDS, "shared": SHARED_ENDS}[kind]
        self.peer: Side = lab.server if kind == "tap" else lab.client
        shared = kind == "shared"
        self.mac = mac or (lab.server.mac if shared else OUR_MAC)
        self._arguments = [
            *((WITHOUT, without) if without else ()),
            str(FRAMES_APP),
            str(PORT),
            kind,
            TAP if kind == "tap" else lab.server.interface,
            self.mac,
            str(OFFLOAD[offload]),
            f"{self.ends.ours[4]}/24",
            f"{self.ends.ours[6]}/64",
        ]
        if shared:  # the kernel's neighbours, which our stack does not ask for itself
            for family in (4, 6):
                self._arguments += ["via", self.ends.theirs[family], lab.client.mac]
        if kind != "tap":  # a lab turns these off
            features = [word for name in ("tx", "sg", "gso", "tso") for word in (name, "on")]
            lab.client.run(["ethtool", "-K", lab.client.interface, *features])
            lab.client.run(["ethtool", "-K", lab.client.interface, "tx-udp-segmentation", "on"])
        self.start()

    def start(self) -> None:
        """Returns when it listens."""
        self._spawn(self._arguments)
        self.obtained = self.result("obtained")
        assert "detail" not in self.obtained, self.obtained["detail"]
        assert self.result("")["status"] == 0
        self.pid = self.launcher.pid
        self.interface_up()

    def interface_up(self) -> None:
        """The kernel's end of what the application has made."""
        if self.kind == "tap":
            tap_up(self.side, self.tap)

    def dial(self, order: str = "", family: int = 4) -> Peer:
        """The kernel connects to us."""
        return Peer.dial(self.peer, self.ends.ours[family], order, PORT)

    def kernel_packets(self) -> int:
        """How many the kernel's end of the wire has sent, a merged one counted once."""
        interface = TAP if self.kind == "tap" else self.peer.interface
        shown = json.loads(self.peer.run(["ip", "-s", "-j", "link", "show", interface]).stdout)
        return int(shown[0]["stats64"]["tx"]["packets"])

    def leave(self) -> None:
        """Ends it, if it has not ended."""
        with suppress(BrokenPipeError):
            self.stop()


def failure(lab: Lab, *arguments: str, wrap: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the application says that it failed of."""
    command = [*wrap, str(FRAMES_APP), str(PORT), *arguments]
    done = lab.server.run(command, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return document
