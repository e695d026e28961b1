"""A listener with a fallback outlives its bypass, which it has again when its interface is back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.netns.conftest import HYBRID, WITHIN_S, Cli, Serving, ended

pytestmark = pytest.mark.netns
SERVER, PORT = "10.77.0.1", 6379
SERVED_WITHIN_S = 0.1
POLICY = """
version: 1
interfaces:
  - name: hys0
    rules:
      - name: kv
        match: {protocol: tcp, destination_port: 6379}
        to: afxdp
        fallback: kernel
      - name: admin
        match: {protocol: tcp, destination_port: 7000}
        to: uring
"""


def write(cli: Cli, text: str = POLICY) -> str:
    path = cli.folder / "fallback.yaml"
    path.write_text(text)
    return str(path)


def dial(timeout: float = 5) -> socket.socket:
    return socket.create_connection((SERVER, PORT), timeout=timeout)


def ping(conn: socket.socket) -> bool:
    conn.sendall(b"PING\r\n")
    return conn.recv(100) == b"+PONG\r\n"


def pinged() -> bool:
    with dial() as conn:
        return ping(conn)


def served(cli: Cli) -> tuple[Serving, dict[str, Any]]:
    cli("apply", write(cli))
    serving = cli.start("serve", "kv")
    return serving, serving.ready()


def shard(cli: Cli) -> dict[str, Any]:
    (found,) = cli.json("status")["shards"]
    return dict(found)


def delete(cli: Cli) -> None:
    cli.server.run(["ip", "link", "del", "hys0"], check=True)


def create_again(cli: Cli) -> float:
    """The same name and addresses, another interface. When it was there."""
    for line in (
        f"ip link add hys0 type veth peer name hyc0 netns {cli.client.namespace}",
        "ethtool -K hys0 tx off",
    ):
        cli.server.run(line.split(), check=True, capture_output=True)
    for line in ("ethtool -K hyc0 tx off", "ip addr add 10.77.0.2/24 dev hyc0", "ip link set hyc0 up"):
        cli.client.run(line.split(), check=True, capture_output=True)
    for line in ("ip addr add 10.77.0.1/24 dev hys0", "ip link set hys0 up"):
        cli.server.run(line.split(), check=True)
    return time.monotonic()


def first_answer(back: float) -> tuple[float, socket.socket]:
    """How long after ``back`` a new connection is answered, and that connection."""
    while time.monotonic() < back + WITHIN_S:
        with contextlib.suppress(OSError):
            conn = dial(0.02)
            conn.settimeout(5)
            if ping(conn):
                return time.monotonic() - back, conn
            conn.close()
    raise AssertionError("nobody answers")


def test_ready_and_status_say_which_backend_a_port_has(cli: Cli) -> None:
    _serving, ready = served(cli)
    assert ready["placed"] == {"tcp *:6379": "bypass, fallback kernel"}
    assert ready["kernel"] == {"requested": True, "obtained": True}
    assert cli.client.call(pinged)
    status = cli.json("status")
    assert status["interfaces"][0]["rules"][0]["packets"] > 0
    (found,) = status["shards"]
    assert found["placed"] == ready["placed"]
    (queue,) = found["devices"]
    assert (queue["interface"], queue["kind"], queue["in_service"]) == ("hys0", "afxdp", True)
    assert "fallback_accepts" not in found["stats"]
    text = cli("status").stdout
    assert "tcp *:6379 (bypass, fallback kernel)" in text
    assert "afxdp in use since" in text


def test_a_deleted_interface_falls_back_at_once_and_is_bypassed_again_when_it_is_back(cli: Cli) -> None:
    serving, _ready = served(cli)
    bypassed = cli.client.call(dial)
    assert ping(bypassed)
    delete(cli)
    serving.until("queue 0 was lost")
    assert cli.json("status")["interfaces"] == []
    lost = shard(cli)
    assert lost["devices_lost"] == 1
    assert lost["stats"]["devices_lost"] == 1
    assert not lost["devices"][0]["in_service"]

    serving.process.send_signal(signal.SIGSTOP)  # no bypass while the fallback is measured
    try:
        back = create_again(cli)
        took, fallen_back = cli.client.call(lambda: first_answer(back))
        print(f"served by the fallback {took * 1e3:.1f} ms after the interface was back")
        assert took < SERVED_WITHIN_S
    finally:
        serving.process.send_signal(signal.SIGCONT)
    serving.until("queue 0 is bypassed again")
    with fallen_back:
        (interface,) = cli.json("status")["interfaces"]
        assert interface["sockets"] == [0]
        before = interface["reasons"]["redirected"]["packets"]
        assert ping(fallen_back), "a connection that the kernel has stays with it"
        assert cli.client.call(pinged)
        (interface,) = cli.json("status")["interfaces"]
        assert interface["reasons"]["redirected"]["packets"] > before
        assert interface["reasons"]["kernel-flow"]["packets"] > 0
    returned = shard(cli)
    assert (returned["devices_lost"], returned["devices_returned"]) == (1, 1)
    assert returned["stats"]["fallback_accepts"] >= 1
    assert returned["devices"][0]["in_service"]
    assert "queues lost: 1, come back: 1" in cli("status").stdout
    with bypassed, pytest.raises(OSError):
        bypassed.settimeout(2)
        if not ping(bypassed):
            raise ConnectionResetError


def test_with_nothing_stopped_somebody_answers_within_the_time(cli: Cli) -> None:
    serving, _ready = served(cli)
    for _ in range(2):
        delete(cli)
        back = create_again(cli)
        took, conn = cli.client.call(lambda at=back: first_answer(at))
        conn.close()
        print(f"served {took * 1e3:.1f} ms after the interface was back")
        assert took < SERVED_WITHIN_S
        deadline = time.monotonic() + WITHIN_S
        while not all(queue["in_service"] for queue in shard(cli)["devices"]):
            assert time.monotonic() < deadline, serving.said


def test_without_the_interface_it_starts_on_the_kernels_sockets_and_takes_the_bypass_later(cli: Cli) -> None:
    delete(cli)
    applied = cli.json("apply", write(cli))
    assert "hys0" in applied["without_bypass"]
    serving = cli.start("serve", "kv")
    ready = serving.ready()
    assert ready["devices"] == []
    assert ready["kernel"]["obtained"]
    assert "no bypass now" in serving.said
    assert cli.json("status")["unsteered"][0]["ifname"] == "hys0"
    back = create_again(cli)
    took, conn = cli.client.call(lambda: first_answer(back))
    conn.close()
    assert took < SERVED_WITHIN_S
    serving.until("queue 0 is bypassed again")
    assert cli.client.call(pinged)
    assert cli.json("status")["interfaces"][0]["rules"][0]["packets"] > 0


def test_strict_is_not_content_with_a_fallback(cli: Cli) -> None:
    delete(cli)
    strict = POLICY.replace("- name: hys0", "- name: hys0\n    strict: true")
    done = cli("apply", write(cli, strict), code=1)
    assert "no interface 'hys0'" in done.stderr


def test_any_program_runs_on_the_kernels_sockets_without_policy_or_privilege(cli: Cli) -> None:
    serving = cli.start("serve", "kv", "--backend", "uring")
    ready = serving.ready()
    assert ready["placed"] == {"tcp *:6379": "kernel"}
    assert cli.client.call(pinged)
    assert serving.end() == 0
    code = f"import os, sys; os.setgid(65534); os.setuid(65534); os.execv({HYBRID!r}, sys.argv[1:])"
    command = [sys.executable, "-c", code, "hybrid", "--output", "json", "serve", "kv", "--backend", "uring"]
    log = cli.folder / "unprivileged"
    with log.open("wb") as file:
        process = cli.server.popen(command, stdout=file, stderr=file)
    try:
        Serving(process, log).ready()
        assert cli.client.call(pinged)
    finally:
        process.terminate()
        assert process.wait(WITHIN_S) == 0


def test_a_policy_says_what_may_be_served_where_nothing_is_applied(cli: Cli) -> None:
    serving = cli.start("serve", "kv", "--policy", write(cli))
    assert serving.ready()["placed"] == {"tcp *:6379": "kernel"}
    assert cli.client.call(pinged)
    serving.end()
    without = write(cli, POLICY.replace("        fallback: kernel\n", ""))
    refused = cli.start("serve", "kv", "--policy", without)
    assert refused.process.wait(WITHIN_S) == 1
    assert "some ports have no fallback" in refused.said


def test_a_program_that_outlives_its_launcher_serves_on_by_its_bypass(cli: Cli) -> None:
    cli("apply", write(cli))
    serving = cli.start("serve", "kv", "--outlive")
    pid = serving.ready()["pid"]
    try:
        assert cli.client.call(pinged)
        serving.process.kill()
        serving.process.wait()
        before = cli.json("status")["interfaces"][0]["reasons"]["redirected"]["packets"]
        assert cli.client.call(pinged)
        status = cli.json("status")
        assert status["interfaces"][0]["reasons"]["redirected"]["packets"] > before
        assert status["shards"][0]["pid"] == pid
        delete(cli)  # and the fallback is its own
        back = create_again(cli)
        took, conn = cli.client.call(lambda: first_answer(back))
        conn.close()
        assert took < SERVED_WITHIN_S
    finally:
        os.kill(pid, signal.SIGKILL)
        assert ended(pid)


TAP = """
version: 1
interfaces:
  - name: hyt0
    device: tap
    tap: {addresses: [10.9.0.2/24]}
    rules:
      - name: kv
        match: {protocol: tcp, destination_port: 6379}
        to: bypass
"""


def test_a_tap_device_is_a_host_of_its_own(cli: Cli) -> None:
    cli("apply", write(cli, TAP))
    serving = cli.start("serve", "kv")
    ready = serving.ready()
    assert "TAP" in ready["devices"][0]["obtained"]["note"]
    for line in ("ip addr add 10.9.0.1/24 dev hyt0", "ip link set hyt0 up"):
        cli.server.run(line.split(), check=True)
    with cli.server.call(lambda: socket.create_connection(("10.9.0.2", PORT), timeout=10)) as conn:
        assert ping(conn)
    assert cli.json("status")["shards"][0]["devices"][0]["kind"] == "tap"
    assert serving.end() == 0
    assert "hyt0" not in cli.server.run(["ip", "link"], capture_output=True, text=True).stdout
    cli("clean")


DPDK = """
version: 1
interfaces:
  - name: hys0
    rules:
      - name: kv
        match: {protocol: tcp, destination_port: 6379}
        to: dpdk
        fallback: kernel
"""


def test_dpdk_serves_what_is_redirected_into_its_veth_and_the_kernel_has_it_without_a_program(
    cli: Cli,
) -> None:
    changes = cli.json("apply", write(cli, DPDK))["changes"]
    assert "hys0: make the veth of its DPDK port" in changes
    assert cli.json("apply", write(cli, DPDK))["changes"] == []
    serving = cli.start("serve", "kv")
    ready = serving.ready()
    (device,) = ready["devices"]
    assert device["obtained"]["status"] == 0, device["obtained"]["note"]
    assert "net_af_xdp" in device["obtained"]["note"]
    assert cli.client.call(pinged)
    (interface,) = cli.json("status")["interfaces"]
    assert interface["dpdk_in_service"]
    assert interface["reasons"]["dpdk"]["packets"] > 0
    assert "DPDK port: in service" in cli("status").stdout
    delete(cli)
    back = create_again(cli)
    took, conn = cli.client.call(lambda: first_answer(back))
    conn.close()
    assert took < SERVED_WITHIN_S
    serving.until("the DPDK port is bypassed again")
    assert cli.client.call(pinged)
    (interface,) = cli.json("status")["interfaces"]
    assert interface["reasons"]["dpdk"]["packets"] > 0
    assert serving.end() == 0
    (interface,) = cli.json("status")["interfaces"]
    assert not interface["dpdk_in_service"]
    with cli.server.call(lambda: socket.create_server((SERVER, PORT))):
        cli.client.call(dial).close()
    removed = cli.json("clean")["removed"]
    assert "the veth of the DPDK port of hys0" in removed
    assert "hyd-hys0" not in cli.server.run(["ip", "link"], capture_output=True, text=True).stdout


def test_queues_that_an_interface_gets_are_bypassed_as_well(cli: Cli) -> None:
    """veth opens and closes its queues while it runs."""
    delete(cli)
    cli.server.run(["ip", "link", "add", "hys0", "numrxqueues", "4", "numtxqueues", "4", "type", "veth",
                    "peer", "name", "far0", "numrxqueues", "4", "numtxqueues", "4"], check=True)  # fmt: skip
    for name in ("hys0", "far0"):
        cli.server.run(["ip", "link", "set", name, "up"], check=True)
        cli.server.run(["ethtool", "-L", name, "rx", "1", "tx", "1"], check=True)
    serving, ready = served(cli)
    assert [device["requested"]["queue"] for device in ready["devices"]] == [0]
    cli.server.run(["ethtool", "-L", "hys0", "rx", "2"], check=True)
    serving.until("queue 1 is bypassed again")
    assert cli.json("status")["interfaces"][0]["sockets"] == [0, 1]
    shrunk = cli.server.run(["ethtool", "-L", "hys0", "rx", "1"], check=False, capture_output=True, text=True)
    assert shrunk.returncode != 0, "the kernel keeps queues that have a socket"


def test_the_ports_of_the_kernel_are_held_by_the_programs_own_socket(cli: Cli) -> None:
    served(cli)

    def listening() -> str:
        return subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout

    assert ":6379" in cli.server.call(listening)
    with pytest.raises(OSError, match="Address already in use"):
        cli.server.call(lambda: socket.create_server(("0.0.0.0", PORT)))
    assert Path(HYBRID).exists()
