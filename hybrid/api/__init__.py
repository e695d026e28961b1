"""The queue API of hybrid.h as Python objects.

    with hybrid.Shard.served() as shard, shard.socket() as listener:
        listener.bind(":7").listen()
        shard.ready()
        with listener.accept_wait() as conn:
            while data := conn.recv():
                conn.send(data)

Operations can also be started and waited for apart: ``queue.pop()`` returns a
:class:`Token`, ``shard.wait_any()`` the :class:`Event` of every one that has completed.
"""
