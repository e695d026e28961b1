"""End to end: a policy is applied, a server started, and clients of the kernel's use it."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hybrid
from tests.netns.conftest import Cli, Serving, ended

pytestmark = pytest.mark.netns
ECHO = "echo tcp 7"


def connect(where: str, port: int, timeout: float = 10) -> socket.socket:
    return socket.create_connection((where, port), timeout=timeout)


def echo(where: str, port: int, data: bytes) -> bytes:
    """Sends and reads back, in pieces small enough that neither end has to hold all of it."""
    received = bytearray()
    with connect(where, port) as sock:
        for at in range(0, len(data), 32768):
            piece = data[at : at + 32768]
            sock.sendall(piece)
            while len(received) < at + len(piece):
                more = sock.recv(65536)
                assert more, "the server closed early"
                received += more
    return bytes(received)


def serve_echo(cli: Cli, *rules: str) -> tuple[Serving, dict[str, Any]]:
    cli("apply", cli.policy(*(rules or (ECHO,))))
    serving = cli.start("serve", "echo", "--port", "7")
    return serving, serving.ready()


def refused(cli: Cli, port: int) -> bool:
    try:
        cli.client.call(lambda: connect("10.77.0.1", port).close())
    except ConnectionRefusedError:
        return True
    return False


def test_a_kernel_client_is_echoed_over_ipv4_and_ipv6(cli: Cli) -> None:
    serve_echo(cli)
    data = random.Random(1).randbytes(1 << 20)
    for where in ("10.77.0.1", "fd77::1"):
        back = cli.client.call(lambda w=where: echo(w, 7, data))
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


def test_ready_says_what_was_requested_and_obtained(cli: Cli) -> None:
    _serving, ready = serve_echo(cli)
    (interface,) = ready["interfaces"]
    assert (interface["mode_requested"], interface["mode_obtained"]) == ("auto", "native")
    (device,) = ready["devices"]
    assert device["requested"]["queue"] == 0
    assert device["obtained"]["zerocopy"] is False
    assert ready["ports"] == ["tcp *:7"]


def test_status_counts_what_each_rule_took_and_what_the_server_did(cli: Cli) -> None:
    _serving, ready = serve_echo(cli)
    cli.client.call(lambda: echo("10.77.0.1", 7, b"x" * 1000))
    status = cli.json("status")
    (interface,) = status["interfaces"]
    (rule,) = interface["rules"]
    assert rule["name"] == "echo"
    assert rule["packets"] >= 3
    assert rule["bytes"] > 1000
    assert interface["reasons"]["redirected"]["packets"] == rule["packets"]
    assert interface["sockets"] == [0]
    (shard,) = status["shards"]
    assert shard["pid"] == ready["pid"]
    assert shard["ports"] == ["tcp *:7"]
    assert "echo" in cli("status").stdout


def test_everything_else_goes_by_the_kernel(cli: Cli) -> None:
    serve_echo(cli)
    with cli.server.call(lambda: socket.create_server(("10.77.0.1", 8080))):
        cli.client.call(lambda: connect("10.77.0.1", 8080).close())
    cli.client.run(["ping", "-c1", "-W5", "10.77.0.1"], check=True, capture_output=True)
    cli.client.run(["ping", "-c1", "-W5", "fd77::1"], check=True, capture_output=True)
    (interface,) = cli.json("status")["interfaces"]
    assert interface["rules"][0]["packets"] == 0
    assert interface["reasons"]["icmp"]["packets"] >= 2


def test_the_port_is_reserved_in_the_kernel_while_it_is_served(cli: Cli) -> None:
    serving, _ready = serve_echo(cli)
    for family, where in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with pytest.raises(OSError, match="Address already in use"):
            cli.server.call(lambda f=family, w=where: socket.create_server((w, 7), family=f))
    serving.end()
    cli.server.call(lambda: socket.create_server(("0.0.0.0", 7))).close()


def test_a_port_that_the_kernel_serves_already_is_refused_before_any_traffic_is_taken(cli: Cli) -> None:
    cli("apply", cli.policy(ECHO))
    with cli.server.call(lambda: socket.create_server(("0.0.0.0", 7))):
        serving = cli.start("serve", "echo")
        assert serving.process.wait(30) == 6
        assert "tcp port 7 is in use in the kernel" in serving.said
        cli.client.call(lambda: connect("10.77.0.1", 7).close())
    assert cli.json("status")["interfaces"][0]["sockets"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_and_the_port_is_the_kernels_again(cli: Cli, number: signal.Signals) -> None:
    serving, ready = serve_echo(cli)
    assert serving.end(number) == 0
    assert ended(ready["pid"])
    assert refused(cli, 7)
    status = cli.json("status")
    assert status["shards"] == []
    assert not any(f"/{serving.process.pid}-" in line for line in status["leftovers"])


def test_a_server_that_is_killed_leaves_its_port_to_the_kernel_at_once(cli: Cli) -> None:
    serving, ready = serve_echo(cli)
    with cli.server.call(lambda: socket.create_server(("10.77.0.1", 8080))):
        os.kill(ready["pid"], signal.SIGKILL)
        assert serving.process.wait(30) == 128 + signal.SIGKILL
        assert "killed by SIGKILL" in serving.said
        assert refused(cli, 7)
        cli.client.call(lambda: connect("10.77.0.1", 8080).close())
    again = cli.start("serve", "echo")
    again.ready()
    assert cli.client.call(lambda: echo("10.77.0.1", 7, b"back")) == b"back"


def test_a_launcher_that_is_killed_takes_its_server_along_and_clean_finds_what_it_left(cli: Cli) -> None:
    serving, ready = serve_echo(cli)
    serving.process.kill()
    assert ended(ready["pid"])
    assert refused(cli, 7)
    (leftover,) = [line for line in cli.json("status")["leftovers"] if f"/{serving.process.pid}-" in line]
    assert "a program that has ended" in leftover
    removed = cli.json("clean")["removed"]
    assert any(f"/{serving.process.pid}-0.stats" in line for line in removed)
    assert not Path(f"/run/hybrid/shards/{serving.process.pid}-0.stats").exists()


def test_two_servers_cannot_have_the_same_queue(cli: Cli) -> None:
    serve_echo(cli)
    second = cli.start("serve", "kv")
    assert second.process.wait(30) == 6
    assert "in service for another program" in second.said


def test_serving_where_nothing_is_steered_says_what_to_do(cli: Cli) -> None:
    done = cli("serve", "echo", code=1)
    assert "nothing is steered" in done.stderr
    assert "hybrid apply" in done.stderr


def test_what_cannot_be_had_strictly_is_an_error_and_nothing_is_left_in_service(cli: Cli) -> None:
    cli("apply", cli.policy(ECHO, copy="zero-copy", strict="true"))
    serving = cli.start("serve", "echo")
    assert serving.process.wait(30) not in (0, None)
    assert "ready" not in "".join(str(document) for document in serving.documents())
    assert cli.json("status")["interfaces"][0]["sockets"] == []


SERVED_CLIENT = """
import sys
import hybrid

with hybrid.Shard.served(hybrid.Config(frames=2048, connections=64, sockets=64, tokens=64)) as shard:
    shard.ready()
    for where in sys.argv[1:]:
        with shard.socket() as conn:
            conn.connect_wait(where, 10)
            conn.send(b"hello")
            print("local", conn.local.port, "got", conn.recv(10).decode(), flush=True)
"""


def test_a_python_program_makes_outgoing_connections_from_the_steered_ports(cli: Cli) -> None:
    cli("apply", cli.policy("out tcp 40000-40099"))
    sysctl = ["sysctl", "-n", "net.ipv4.ip_local_reserved_ports"]
    assert cli.server.run(sysctl, capture_output=True, text=True).stdout.strip() == "40000-40099"
    code = (
        "import socket,sys\n"
        "s=socket.create_server(('::',9000),family=socket.AF_INET6,dualstack_ipv6=True)\n"
        "print('up',flush=True)\n"
        "for _ in range(2):\n"
        "  c,_a=s.accept(); c.sendall(c.recv(100).upper()); c.close()\n"
    )
    server = cli.client.popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        where = ["10.77.0.2:9000", "[fd77::2]:9000"]
        done = cli("run", "--", sys.executable, "-P", "-c", SERVED_CLIENT, *where)
        lines = [line.split() for line in done.stdout.splitlines() if line.startswith("local")]
        assert [line[3] for line in lines] == ["HELLO", "HELLO"]
        assert all(40000 <= int(line[1]) <= 40099 for line in lines)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


SERVED_ECHO = """
import hybrid

with hybrid.Shard.served() as shard, shard.socket() as listener, shard.socket(hybrid.Kind.DGRAM) as datagrams:
    listener.bind(":7").listen()
    datagrams.bind(":7")
    shard.ready()
    with listener.accept_wait() as conn:
        while data := conn.recv():
            conn.send(data)
    data, sender = datagrams.recvfrom(20)
    datagrams.sendto(data[::-1], sender)
    conn, data = None, None
    shard.wait_any(timeout=0.2)
"""


def test_a_python_program_serves_kernel_clients_over_tcp_and_udp(cli: Cli) -> None:
    cli("apply", cli.policy(ECHO, "echo-udp udp 7"))
    serving = cli.start("run", "--", sys.executable, "-P", "-c", SERVED_ECHO)
    assert serving.ready()["ports"] == ["tcp *:7", "udp *:7"]
    data = random.Random(2).randbytes(300_000)
    assert cli.client.call(lambda: echo("10.77.0.1", 7, data)) == data

    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(b"abc", ("10.77.0.1", 7))
            return sock.recv(100)

    assert cli.client.call(ask) == b"cba"
    assert serving.process.wait(30) == 0


def test_a_program_may_run_as_an_ordinary_user(cli: Cli) -> None:
    cli("apply", cli.policy(ECHO))
    program = cli.folder / "hybrid-echo"
    installed = Path(hybrid.__file__).parent / "bin" / "hybrid-echo"
    library = subprocess.check_output(["ldd", str(installed)], text=True)
    found = next(line.split()[2] for line in library.splitlines() if "libhybrid" in line)
    if not all(folder.stat().st_mode & 0o001 for folder in Path(found).parents):
        pytest.skip("libhybrid lies where other users cannot read it")
    shutil.copy(installed, program)
    for folder in (program, *program.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    command = ["env", f"LD_LIBRARY_PATH={Path(found).parent}", str(program), "--port", "7"]
    ready = cli.start("run", "--user", "nobody", "--", *command).ready()
    status = Path(f"/proc/{ready['pid']}/status").read_text().splitlines()
    assert next(line for line in status if line.startswith("Uid:")).split()[1] != "0"
    effective = int(next(line for line in status if line.startswith("CapEff:")).split()[1], 16)
    assert effective & ~(1 << 14) == 0, "CAP_IPC_LOCK at most"
    assert cli.client.call(lambda: echo("10.77.0.1", 7, b"hello")) == b"hello"
