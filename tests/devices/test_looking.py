"""`hybrid devices`: what is there is said, what is not there is no error, and looking changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hybrid.cli import app
from hybrid.devices import dpdk, frames, hugepages, interrupts, netdev, uring
from hybrid.devices.interfaces import Interface, find, interfaces
from hybrid.errors import HybridError
from hybrid.lab import Lab

# Runs the command line as a user who may do nothing; SETUP is done before.
_UNPRIVILEGED = """
import os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
from hybrid.cli import main
main()
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def devices() -> Any:
    result = CliRunner().invoke(app, ["devices", "--output", "json"])
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_every_backend_has_its_part() -> None:
    assert set(devices()) == {
        "interfaces", "hugepages", "dpdk", "io_uring", "tap", "packet_socket", "rdma",
    }  # fmt: skip
    text = CliRunner().invoke(app, ["devices"]).stdout
    headings = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert headings == [
        "AF_XDP", "hugepages", "DPDK", "io_uring", "frames without XDP", "RDMA (no backend yet)",
    ]  # fmt: skip


@pytest.mark.root
def test_it_runs_without_privilege_and_says_what_it_could_not_open() -> None:
    command = [sys.executable, "-P", "-c", _UNPRIVILEGED, "devices", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["packet_socket"]["denied"]
    assert "CAP_NET_RAW" in found["packet_socket"]["problem"]
    assert [row["name"] for row in found["interfaces"]] == [row["name"] for row in devices()["interfaces"]]


@pytest.mark.netns
def test_an_interface_of_another_namespace_is_seen_with_its_queues_and_xdp_features(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(queues=2)
    found: Interface = lab.sides["server"].call(lambda: find("hys0"))
    assert (found.driver, found.kind, found.link, found.device) == ("veth", "veth", "up", None)
    assert found.channels is not None
    assert (found.channels.receiving, found.channels.receiving_max) == (2, 2)
    assert found.interrupts == ()
    assert not found.xdp_program
    if found.features is None:
        pytest.skip("this kernel has no netdev netlink family (Linux 6.3)")
    assert {"basic", "redirect"} <= set(found.features.xdp)
    assert "zero-copy" not in found.features.xdp


@pytest.mark.netns
def test_an_interface_that_is_down_says_so(make_lab: Callable[..., Lab]) -> None:
    def down() -> list[Interface]:
        subprocess.run(["ip", "link", "set", "hys0", "down"], check=True)
        return interfaces()

    assert [found.link for found in make_lab().sides["server"].call(down)] == ["down"]


def test_a_name_that_is_no_interface_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(HybridError, match="no interface 'nope0'") as caught:
        find("nope0")
    assert "hybrid devices" in (caught.value.remedy or "")


def test_a_kernel_without_the_netdev_family_has_no_features_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(netdev, "_FAMILY", "no such family")
    assert netdev.features() == {}
    assert netdev.queues() == {}
    assert caplog.records == []


def test_feature_words_are_read_bit_by_bit() -> None:
    assert netdev._names(netdev._XDP, 0b0101011) == ("basic", "redirect", "zero-copy", "multi-buffer")
    assert netdev._names(netdev._XDP, None) == ()


def test_hugepages_are_counted_by_node_and_pages_on_their_way_out_are_not_reserved_ones(
    tmp_path: Path,
) -> None:
    for node, (total, free, surplus) in {0: (8, 3, 0), 1: (6, 0, 2)}.items():
        folder = tmp_path / f"sys/devices/system/node/node{node}/hugepages/hugepages-2048kB"
        write(folder / "nr_hugepages", f"{total}\n")
        write(folder / "free_hugepages", f"{free}\n")
        write(folder / "surplus_hugepages", f"{surplus}\n")
    assert hugepages.pools(tmp_path) == [
        hugepages.Pool(2048, 0, total=8, free=3),
        hugepages.Pool(2048, 1, total=4, free=0),
    ]


def test_a_kernel_without_numa_or_without_hugepages_is_no_error(tmp_path: Path) -> None:
    assert hugepages.pools(tmp_path) == []
    assert hugepages.default_kib(tmp_path) is None
    folder = tmp_path / "sys/kernel/mm/hugepages/hugepages-1048576kB"
    for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
        write(folder / name, "0\n")
    assert hugepages.pools(tmp_path) == [hugepages.Pool(1048576, None, 0, 0)]


@pytest.mark.parametrize(
    ("action", "queue"),
    [
        ("virtio2-input.0", 0),
        ("virtio2-output.0", None),
        ("virtio2-config", None),
        ("eth0-TxRx-3", 3),
        ("ens5-Tx-Rx-7", 7),
        ("i40e-enp1s0f0-TxRx-12", 12),
        ("mlx5_comp5@pci:0000:3b:00.0", 5),
        ("mlx5_async@pci:0000:3b:00.0", None),
        ("eth1-rx-1", 1),
        ("eth1-tx-1", None),
    ],
)
def test_an_interrupts_queue_is_read_from_its_name(tmp_path: Path, action: str, queue: int | None) -> None:
    device = tmp_path / "sys/devices/pci0000:00/0000:00:03.0"
    write(device / "msi_irqs/38", "msix\n")
    (device / "virtio2").mkdir()
    write(tmp_path / "sys/kernel/irq/38/actions", f"{action}\n")
    write(tmp_path / "proc/irq/38/smp_affinity_list", "0-1\n")
    # The interrupts of a virtio device are those of the device that it is a function of.
    for folder in (device, device / "virtio2"):
        (found,) = interrupts.of_device(folder, tmp_path)
        assert found == interrupts.Interrupt(38, action, queue, frozenset({0, 1}))


def test_dpdk_is_found_by_its_files_and_cards_by_the_driver_that_has_them(tmp_path: Path) -> None:
    assert dpdk.look(tmp_path).abi is None
    for release in ("9.0", "23.0"):
        folder = tmp_path / f"usr/lib/x86_64-linux-gnu/dpdk/pmds-{release}"
        for name in ("librte_net_memif.so.23.0", "librte_net_tap.so.23", "librte_crypto_null.so.23"):
            write(folder / name, "")
    for address, kind in (("0000:3b:00.0", "0x020000"), ("0000:5e:00.0", "0x010802")):
        device = tmp_path / "sys/bus/pci/drivers/vfio-pci" / address
        write(device / "class", f"{kind}\n")
        write(device / "numa_node", "1\n")
    found = dpdk.look(tmp_path)
    assert found.abi == "23.0"
    assert found.drivers == ("memif", "tap")
    assert found.bound == (dpdk.BoundDevice("0000:3b:00.0", "vfio-pci", 1),)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("int hybrid_dpdk_plugin;", "loads"),
        ("", "undefined symbol: hybrid_dpdk_plugin"),
        ("void __attribute__((constructor)) end(void) { __builtin_trap(); }", "by signal"),
        ("extern void nowhere(void); void (*p)(void) = nowhere;", "undefined symbol"),
        ("extern void exit(int); void __attribute__((constructor)) end(void) { exit(3); }", "code 3"),
    ],
)
def test_a_plugin_that_ends_its_process_does_not_end_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, word: str
) -> None:
    write(tmp_path / "plugin.c", source + "\n")
    built = tmp_path / "libhybrid-dpdk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", built, tmp_path / "plugin.c"], check=True)
    monkeypatch.setenv("HYBRID_DPDK_PLUGIN", str(built))
    found = dpdk.look().plugin
    assert found is not None
    assert word in (found.problem or "loads")


def test_the_plugin_is_looked_for_beside_the_library_in_use() -> None:
    assert list(dpdk._libhybrid_folder().glob("libhybrid.so*"))


@pytest.mark.parametrize(
    ("setting", "word"), [("2", "for everybody"), ("1", "io_uring_group"), ("0", "seccomp")]
)
def test_where_io_uring_is_forbidden_it_is_said_by_what(tmp_path: Path, setting: str, word: str) -> None:
    write(tmp_path / "proc/sys/kernel/io_uring_disabled", f"{setting}\n")
    found = run_without_io_uring(
        f"from pathlib import Path; from hybrid.devices import uring; found = uring.look(Path({str(tmp_path)!r})); "
        "print(found.problem); print(found.remedy)"
    )
    problem, remedy = found.splitlines()
    assert word in problem
    assert ("sysctl" in remedy) == (setting != "0")


def test_a_seccomp_filter_shows_in_doctor_and_devices() -> None:
    for command in ("doctor", "devices"):
        script = f"import sys; sys.argv = ['hybrid', {command!r}]; from hybrid.cli import main; main()"
        assert "seccomp" in run_without_io_uring(script)


def run_without_io_uring(script: str) -> str:
    """What a Python script prints where a seccomp filter refuses io_uring_setup with EPERM."""
    # A classic BPF program: load the system call's number; 425 on every architecture.
    forbid = (
        "import ctypes, struct\n"
        "code = struct.pack('=' + 'HBBI' * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 425, 6, 0, 0, 0x00050001, 6, 0, 0, 0x7fff0000)\n"
        "held = ctypes.create_string_buffer(code)\n"
        "program = struct.pack('HxxxxxxQ', 4, ctypes.addressof(held))\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0\n"
        "assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", forbid + script], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_io_uring_says_what_it_has() -> None:
    found = uring.look()
    if found.problem:
        pytest.skip(f"io_uring: {found.problem}")
    assert found.opcodes > 0
    assert found.features["single_issuer"] or not found.features["defer_taskrun"]


def test_without_a_tun_device_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    assert frames.tap(tmp_path).remedy == "modprobe tun"
    write(tmp_path / "dev/net/tun", "")
    assert "no TUN/TAP device" in frames.tap(tmp_path).problem


def test_looking_leaves_no_descriptor_open() -> None:
    devices()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    devices()
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208
