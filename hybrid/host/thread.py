"""A follower in a thread of its own, for a process that opens its own devices (standalone)."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from hybrid.api.host import Host
from hybrid.api.shard import Shard
from hybrid.host.follower import Follower, publish_to
from hybrid.host.notice import NOTICE_BYTES, Notice
from hybrid.host.table import Rows

_log = logging.getLogger(__name__)
_NOTICES_MAX = 256


class HostThread:
    """Keeps a host table up to date in the background, and resolves what shards report missing.

    ::

        with HostThread(["eth1"]) as host, Shard() as shard:
            host.serve(shard)

    It follows the network namespace of the thread that makes it. ``prepare`` runs in the new
    thread before anything else; it is for callers that choose another namespace.
    """

    def __init__(
        self,
        interfaces: Iterable[str] | None = None,
        *,
        prepare: Callable[[], None] | None = None,
        publish: Callable[[Rows], None] | None = None,
    ) -> None:
        self._interfaces = None if interfaces is None else tuple(interfaces)
        self._prepare = prepare
        self.host = Host() if publish is None else None
        self._publish = publish if self.host is None else publish_to(self.host)
        self._notices, self._reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._stop, self._stopped = socket.socketpair()
        for end in (self._notices, self._reports, self._stop, self._stopped):
            end.setblocking(False)
        self._running = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="host follower", daemon=True)
        self._thread.start()
        self._running.wait()
        if self._failure is not None:
            self.close()
            raise self._failure

    @property
    def notice_fd(self) -> int:
        """Where shards report to (:meth:`Shard.set_notice_fd`)."""
        return self._reports.fileno()

    def serve(self, shard: Shard) -> None:
        """Makes a shard follow the table and report here. Close the shard first."""
        assert self.host is not None, "rows go to publish, not to a table"
        shard.set_host(self.host)
        shard.set_notice_fd(self.notice_fd)

    def _run(self) -> None:
        try:
            if self._prepare is not None:
                self._prepare()
            assert self._publish is not None
            with Follower(self._publish, self._interfaces) as follower:
                self._running.set()
                self._loop(follower)
        except BaseException as error:
            self._failure = error
            if self._running.is_set():
                _log.error("the host's addresses and routes are no longer followed: %s", error)
        finally:
            self._running.set()

    def _loop(self, follower: Follower) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(follower, selectors.EVENT_READ)
            selector.register(self._notices, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                deadline = follower.deadline
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = {key.fileobj for key, _ in selector.select(wait)}
                if self._stopped in ready:
                    return
                if self._notices in ready:
                    self._take_notices(follower)
                if follower in ready:
                    follower.on_readable()
                else:
                    follower.on_timer()

    def _take_notices(self, follower: Follower) -> None:
        for _ in range(_NOTICES_MAX):
            try:
                notice = Notice.parse(self._notices.recv(NOTICE_BYTES + 1))
            except BlockingIOError:
                return
            if notice is not None:
                follower.on_notice(notice)

    def close(self) -> None:
        """Stops the thread. Shards keep the table as it was last written."""
        self._stop.close()
        self._thread.join()
        for end in (self._notices, self._reports, self._stopped):
            end.close()
        if self.host is not None:
            self.host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
