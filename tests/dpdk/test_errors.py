"""What cannot be had, each with one sentence that names the remedy, and the application still its own."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from hybrid.lab import Lab
from tests.dpdk.ports import failure
from tests.netns.peers import BUILD

pytestmark = pytest.mark.netns

FOLDER = BUILD / "tests" / "dpdk"
QUIET = "--no-huge --no-shconf --no-pci"


@pytest.mark.parametrize(
    ("eal", "port", "status", "says"),
    [
        (f"{QUIET} --frobnicate", "net_tap0", errno.EIO, ("--frobnicate", "eal arguments")),
        (f"{QUIET} --main-lcore 99", "net_tap0", errno.EIO, ("eal arguments",)),
        (f"{QUIET} --help", "net_tap0", errno.EINVAL, ("--help", "take it out")),
        (f"{QUIET} -d /nowhere.so", "net_tap0", errno.EIO, ("/nowhere.so",)),
        (QUIET, "net_nothing0", errno.ENODEV, ("net_nothing0", "librte-net-")),
        (QUIET, "net_af_packet0,iface=nowhere0", errno.ENODEV, ("net_af_packet0",)),
        (QUIET, "0000:99:00.0", errno.ENODEV, ("0000:99:00.0",)),
        (QUIET, "", errno.EINVAL, ("names no DPDK port",)),
    ],
)
def test_what_dpdk_refuses(lab: Lab, eal: str, port: str, status: int, says: tuple[str, ...]) -> None:
    told = failure(lab, port, DPDK_EAL=eal)
    assert told["status"] == -status, told
    for word in says:
        assert word in told["detail"]
    assert "\n" not in told["detail"]


def test_no_hugepages(lab: Lab) -> None:
    hide = 'mount -t tmpfs none /sys/kernel/mm/hugepages && exec "$@"'
    wrap = ("unshare", "-m", "sh", "-c", hide, "sh")
    told = failure(lab, "net_tap0", wrap=wrap, DPDK_EAL="--in-memory --no-pci")
    assert told["status"] == -errno.EIO
    for word in ("hugepage", "nr_hugepages", "--no-huge"):
        assert word in told["detail"]


@pytest.mark.parametrize(
    ("plugin", "status", "says"),
    [
        ("nowhere.so", errno.ENOENT, "libdpdk-dev"),
        ("other-build.so", errno.ELIBBAD, "another build"),
        ("other-dpdk.so", errno.ELIBBAD, "Debian's dpdk"),
        ("without-library.so", errno.ENOENT, "apt install dpdk"),
    ],
)
def test_a_plugin_that_does_not_fit(lab: Lab, tmp_path: Path, plugin: str, status: int, says: str) -> None:
    if (FOLDER / plugin).exists():
        shutil.copy(FOLDER / plugin, tmp_path)
    told = failure(lab, "net_tap0", HYBRID_DPDK_PLUGIN=str(tmp_path / plugin))
    assert told["status"] == -status, told
    assert says in told["detail"]


def test_too_few_frames(lab: Lab) -> None:
    told = failure(lab, "net_af_xdp0,iface=hys0", DPDK_FRAMES="2048")
    assert told["status"] == -errno.ENOMEM
    assert "frames = 8192" in told["detail"]
