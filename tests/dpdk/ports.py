"""What the tests of this folder need: the peers' application on a DPDK port of its own.

``af_packet`` and ``af_xdp`` stand on ``hys0`` of the server's namespace and talk to the client's kernel; ``tap`` is a
link between the application and the kernel of the server's namespace; ``memif`` joins two applications.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid.lab import Lab
from tests.netns.peers import BUILD, PORT
from tests.uring.devices import FRAMES_APP, OUR_MAC, OWN_ENDS, SHARED_ENDS, TAP_ENDS, DeviceApp

PLUGIN = BUILD / "libhybrid-dpdk.so"
TAP = "hydtap0"


@dataclass(frozen=True)
class Kind:
    """A driver, and how its port is named and addressed."""

    devargs: str
    mac: str = "-"


KINDS = {
    "af_packet": Kind("net_af_packet0,iface=hys0", OUR_MAC),
    "af_xdp": Kind("net_af_xdp0,iface=hys0"),
    "tap": Kind(f"net_tap0,iface={TAP}"),
}


class DpdkApp(DeviceApp):
    """``frames-app`` on a DPDK port. ``peer`` is the side whose kernel it talks to."""

    tap = TAP

    def __init__(
        self,
        lab: Lab,
        log: Path,
        kind: str,
        *,
        devargs: str | None = None,
        shared: bool = False,
        **environment: str,
    ) -> None:
        """``shared``: on the kernel's own address, with its neighbours, as the policy's flows are."""
        self._begin(lab, log)
        self.kind = kind
        self.ends = SHARED_ENDS if shared else TAP_ENDS if kind == "tap" else OWN_ENDS
        self.peer = lab.server if kind == "tap" else lab.client
        self._arguments = [
            "env",
            *(f"{name}={value}" for name, value in environment.items()),
            str(FRAMES_APP),
            str(PORT),
            "dpdk",
            devargs or KINDS[kind].devargs,
            lab.server.mac if shared else KINDS[kind].mac,
            "0",
            f"{self.ends.ours[4]}/24",
            f"{self.ends.ours[6]}/64",
        ]
        if shared:
            for family in (4, 6):
                self._arguments += ["via", self.ends.theirs[family], lab.client.mac]
        self.start()


def failure(lab: Lab, devargs: str, *, wrap: tuple[str, ...] = (), **environment: str) -> dict[str, Any]:
    """What the application says that it failed of. It must have ended by itself, and with 1."""
    command = [*wrap, str(FRAMES_APP), "7000", "dpdk", devargs, "-", "0", "10.88.0.2/24"]
    done = lab.server.run(
        command, check=False, stdin=subprocess.DEVNULL, env={**os.environ, **environment}, timeout=60
    )
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return document
