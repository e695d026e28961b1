"""Many connections: at once, one after another, and more than anybody has asked to accept."""

from __future__ import annotations

from tests.backends.harness.meeting import Meeting, round_trips

KIB = 1 << 10


def test_two_hundred_connections_at_once(talk: Meeting, role: str) -> None:
    server_end, client_end = talk.ends(role)
    listener, address = talk.listen(server_end, backlog=256)
    accepting = [listener.accept() for _ in range(200)]
    clients = [client_end.stream() for _ in range(200)]
    for connecting in [client.connect(address) for client in clients]:
        connecting.result()
    servers = [server for server, _ in accepting]
    for _, pending in accepting:
        pending.result()
    echoes = [server.echo() for server in servers]
    returns = [client.pop() for client in clients]
    pushes = [client.push(16 * KIB) for client in clients]
    sent = [pushing.result() for pushing in pushes]
    for client in clients:
        client.shutdown()
    assert [popping.result().moved for popping in returns] == [pushed.moved for pushed in sent]
    assert all(echoed.result().bytes == 16 * KIB for echoed in echoes)


def test_a_backlog_holds_those_that_nobody_has_asked_for_yet(talk: Meeting, role: str) -> None:
    server_end, client_end = talk.ends(role)
    listener, address = talk.listen(server_end, backlog=64)
    clients = [client_end.stream() for _ in range(50)]
    for connecting in [client.connect(address) for client in clients]:
        connecting.result()
    accepted = [listener.accept() for _ in clients]
    peers = {pending.result().peer for _, pending in accepted}
    assert peers == {client.local() for client in clients}


def test_one_after_another(talk: Meeting, role: str) -> None:
    server_end, client_end = talk.ends(role)
    listener, address = talk.listen(server_end)
    for _ in range(60):
        server, accepting = listener.accept()
        client = client_end.stream()
        client.connect(address).result()
        accepting.result()
        taken = server.pop()
        client.push(100)
        client.shutdown()
        assert taken.result().bytes == 100
        client.close()
        server.close()


def test_a_busy_connection_does_not_keep_others_waiting(talk: Meeting, role: str) -> None:
    busy, busy_theirs = talk.meet(role)
    quiet, quiet_theirs = talk.meet(role)
    taken = busy_theirs.pop()
    pushing = busy.push(32 << 20)
    round_trips(quiet, quiet_theirs, 20)
    pushed = pushing.result()
    busy.shutdown()
    assert taken.result().moved == pushed.moved
