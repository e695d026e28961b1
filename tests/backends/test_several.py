"""Several backends at once: one process, one shard, one wait; descriptors on all of them side by side.

::

    one namespace                                     another
      agent --- afxdp -------- veth ------------------ kernel
        |  |--- packet ------- veth ------------------ kernel
        |  |--- uring -------- kernel --- veth ------- kernel
        |  |--- dpdk --------- memif ---- another agent
        |  '--- tap ---------- kernel
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest

from hybrid.lab import Side, link, netns
from tests.backends.harness.agent import AgentEnd, AgentSock, Spec, launch
from tests.backends.harness.ends import End, Sock, at, ports
from tests.backends.harness.kernel import KernelEnd
from tests.backends.harness.meeting import round_trips
from tests.backends.harness.rows import ROOMY, ROWS, Row
from tests.backends.harness.wires import Place, Wire

pytestmark = pytest.mark.netns

KIB, MIB = 1 << 10, 1 << 20
NAMES = ("afxdp", "uring-packet", "uring-streams", "dpdk-memif", "uring-tap")


@dataclass
class Way:
    """One backend of the agent's, and who is at its other end."""

    row: Row
    ours: Place
    them: End

    def listen(self, us: AgentEnd) -> tuple[AgentSock, str]:
        address = at(self.ours.addresses[4], next(ports))
        listener = us.stream("bypass" if self.row.stack else "kernel")
        listener.bind(address)
        listener.listen()
        return listener, address


@dataclass
class Several:
    """The agent with all of them."""

    us: AgentEnd
    ways: Sequence[Way]

    def accept_from_all(self, each: int = 1) -> list[tuple[AgentSock, Sock]]:
        """Connections that came by each of the backends."""
        met: list[tuple[AgentSock, Sock]] = []
        for way in self.ways:
            listener, address = way.listen(self.us)
            accepting = [listener.accept() for _ in range(each)]
            clients = [way.them.stream() for _ in range(each)]
            for connecting in [client.connect(address) for client in clients]:
                connecting.result()
            servers = {pending.result().peer: server for server, pending in accepting}
            met += [(servers[client.local()], client) for client in clients]
        return met

    def connect_to_all(self) -> list[tuple[AgentSock, Sock]]:
        """Connections of ours; nobody says by what they are to go."""
        met = []
        for way in self.ways:
            listener = way.them.stream()
            address = at(way.ours.far.addresses[4], next(ports))
            listener.bind(address)
            listener.listen()
            server, accepting = listener.accept()
            client = self.us.stream()
            client.connect(address).result()
            accepting.result()
            met.append((client, server))
        return met


def place(row: Row, number: int, sides: tuple[Side, Side], folder: Path) -> Place:
    """Our end of a wire for this row, with networks of its own."""
    made = []
    for index, side in enumerate(sides):
        networks = (
            IPv4Interface(f"10.78.{number}.{index + 1}/24"),
            IPv6Interface(f"fd78:{number}::{index + 1}/64"),
        )
        interface = f"{'ab'[index]}{number}" if row.wire is Wire.VETH else f"t{number}"
        own = Side(side.namespace, interface, *networks)
        made.append(
            Place(
                row.wire,
                own,
                networks,
                100 + number,
                f"02:78:{number:02x}:00:00:0{index}",
                folder,
                index == 0,
            )
        )
    ours, theirs = made
    ours.far, theirs.far = theirs, ours
    if row.wire is Wire.VETH:
        far = netns.path_of(theirs.side.namespace)
        ours.call(partial(link.make_pair, ours.interface, theirs.interface, far, 1, "several backends"))
        for end in made:
            end.call(partial(link.set_up, end.interface, 1500, end.networks))
        for end in made:
            end.call(partial(link.wait_until_running, end.interface))
            end.ifindex, end.mac = end.side.ifindex, end.side.mac
    return ours


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """All of it, once."""
    folder = tmp_path_factory.mktemp("several")
    with ExitStack() as stack:
        sides = []
        for which in ("here", "there"):
            name = f"bks{os.getpid()}-{which}"
            netns.create(name)
            stack.callback(netns.remove, name)
            sides.append(Side(name, "lo", IPv4Interface("127.0.0.1/8"), IPv6Interface("::1/128")))
            stack.callback(sides[-1].reap)
            sides[-1].call(link.prepare_namespace)
        here, there = sides
        log = stack.enter_context((folder / "log").open("ab"))
        rows = [next(row for row in ROWS if row.name == name) for name in NAMES]
        places = [place(row, number, (here, there), folder) for number, row in enumerate(rows, start=1)]
        settings = [word for key, value in ROOMY.items() for word in ("--config", f"{key}={value}")]
        joined = Spec("several", {}, settings.copy())
        specs = []
        for row, ours in zip(rows, places, strict=True):
            row.claim(ours)
            specs.append(row.spec(ours, stack))
            joined.arguments += specs[-1].arguments
            joined.fds += specs[-1].fds
        (us,) = launch([joined], here, log)
        stack.callback(us.stop)
        for spec in specs:
            spec.ready()
        kernels = {side.namespace: KernelEnd(side.namespace, {}) for side in sides}
        for kernel in kernels.values():
            stack.callback(kernel.stop)
        ways = []
        for row, ours in zip(rows, places, strict=True):
            them: End = kernels[there.namespace]
            if row.wire is Wire.TAP:
                ours.far.side = ours.side
                ours.far.with_kernel()
                them = kernels[here.namespace]
            elif row.wire is Wire.CABLE:
                far = row.spec(ours.far, stack)
                far.arguments[:0] = settings
                (them,) = launch([far], here, log)  # memif's socket is of the network namespace
                stack.callback(them.stop)
            ways.append(Way(row, ours, them))
        yield Several(us, ways)


@pytest.fixture
def several(whole: Several) -> Iterator[Several]:
    yield whole
    for end in (whole.us, *(way.them for way in whole.ways)):
        end.tidy()


def test_every_backend_is_there(several: Several) -> None:
    assert set(several.us.obtained) == {"afxdp", "packet", "uring", "dpdk", "tap"}


def test_all_of_them_are_served_at_once(several: Several) -> None:
    met = several.accept_from_all(each=5)
    echoes = [server.echo() for server, _ in met]
    returns = [client.pop() for _, client in met]
    pushes = [client.push(256 * KIB) for _, client in met]
    sent = [pushing.result() for pushing in pushes]
    for _, client in met:
        client.shutdown()
    assert [back.result().moved for back in returns] == [pushed.moved for pushed in sent]
    assert all(echoed.result().bytes == 256 * KIB for echoed in echoes)


def test_all_of_them_are_connected_to_at_once(several: Several) -> None:
    met = several.connect_to_all()
    taken = [server.pop() for _, server in met]
    pushes = [client.push(2 * MIB) for client, _ in met]
    sent = [pushing.result() for pushing in pushes]
    for client, _ in met:
        client.shutdown()
    assert [pending.result().moved for pending in taken] == [pushed.moved for pushed in sent]


def test_one_wait_is_ended_by_whichever_of_them(several: Several) -> None:
    met = several.accept_from_all()
    popping = [server.pop(1) for server, _ in met]
    for pending, (_, client) in zip(popping, met, strict=True):
        napping = several.us.nap(20_000)
        client.push(1)
        told = napping.result().more
        assert told["events"] >= 1
        assert told["ns"] < 5_000_000_000
        pending.result()


def test_one_that_stands_still_is_in_nobodys_way(several: Several) -> None:
    for stalled, (server, client) in enumerate(several.accept_from_all()):
        others = [pair for number, pair in enumerate(several.accept_from_all()) if number != stalled]
        client.push(8 * MIB)  # which the server does not read
        for other in others:
            round_trips(*other, 5)
        server.abort()


def test_what_is_reset_on_one_goes_on_on_the_others(several: Several) -> None:
    met = several.accept_from_all()
    for server, _ in met[::2]:
        server.abort()
    for other in met[1::2]:
        round_trips(*other)
