"""One side of a lab: a namespace with one end of the veth pair, and what runs inside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any, TypeVar

from hybrid.errors import HybridError
from hybrid.lab import link, netns

__all__ = ["Side"]

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """``server`` or ``client``. Commands and functions run inside its network namespace only.

    The mount namespace stays the caller's, so a bpffs mounted outside is seen inside (which
    ``ip netns exec`` does not offer). /sys/class/net is of the caller's namespace: ask netlink.
    """

    namespace: str
    interface: str
    network4: IPv4Interface
    network6: IPv6Interface
    _started: list[subprocess.Popen[Any]] = field(default_factory=list, repr=False, compare=False)

    @property
    def ipv4(self) -> IPv4Address:
        """The address alone."""
        return self.network4.ip

    @property
    def ipv6(self) -> IPv6Address:
        """The address alone."""
        return self.network6.ip

    @property
    def mac(self) -> str:
        """As "aa:bb:cc:dd:ee:ff"."""
        return self.end.mac

    @property
    def ifindex(self) -> int:
        """The interface's number inside the namespace."""
        return self.end.ifindex

    @property
    def end(self) -> link.End:
        """The interface as the kernel has it now."""
        found = self.call(lambda: link.inspect(self.interface))
        if found is None:
            raise HybridError(f"there is no {self.interface} in {self.namespace}", "hybrid lab up")
        return found

    def call(self, function: Callable[[], T]) -> T:
        """What ``function`` returns, run inside. A socket that it opens stays inside, whoever uses it."""
        return netns.run_in(self.namespace, function)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """``subprocess.run`` inside, with text captured and a failure raised unless told otherwise."""
        options = {"text": True, "capture_output": True, "check": True, "timeout": 60.0, **options}
        return self.call(lambda: subprocess.run(list(command), **options))

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """``subprocess.Popen`` inside, in a session of its own. Ends with the lab's ``with`` block."""
        options = {"start_new_session": True, **options}
        process: subprocess.Popen[Any] = self.call(lambda: subprocess.Popen(list(command), **options))
        self._started.append(process)
        return process

    def reap(self) -> None:
        """Ends what ``popen`` started and closes its pipes."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=2.0)
                except subprocess.TimeoutExpired:
                    process.kill()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            process.wait()
        self._started.clear()
