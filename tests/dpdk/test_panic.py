"""Where DPDK calls rte_panic or rte_exit, which end a process, the application gets an error and goes on."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

from hybrid.lab import Lab
from tests.dpdk.ports import DpdkApp, failure
from tests.netns.peers import BUILD, until

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def eal() -> Iterator[str]:
    """EAL takes no plugin from below a folder that everybody may write to, as a checkout in /tmp is."""
    with tempfile.TemporaryDirectory(dir="/run", prefix="hybrid-panic-") as folder:
        plugin = shutil.copy(BUILD / "tests" / "dpdk" / "panic.so", folder)
        yield f"--no-huge --no-shconf --no-pci -d {plugin}"


@pytest.mark.parametrize("where", ["start", "exit", "attach"])
def test_an_attach_fails_with_what_was_said(lab: Lab, eal: str, where: str) -> None:
    told = failure(lab, "net_tap0", DPDK_EAL=eal, PANIC_AT=where)
    assert told["status"] == -errno.EIO
    assert "provoked" in told["detail"]
    assert "start the program again" in told["detail"]


@pytest.mark.parametrize("where", ["burst", "thread"])
def test_the_device_is_lost_and_the_application_stays(
    lab: Lab, eal: str, dpdk_app_for: Callable[..., DpdkApp], where: str
) -> None:
    app = dpdk_app_for(lab, "af_packet", DPDK_EAL=eal, PANIC_AT=where)
    ping = ["ping", "-c", "1", "-W", "1", app.ends.ours[4]]  # for something to arrive
    until(
        lambda: lab.client.run(ping, check=False) and app.stats()["devices_lost"] == 1,
        "the loss of the device",
    )
    assert app.stop() == 0
