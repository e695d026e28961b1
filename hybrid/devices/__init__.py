"""What this host offers each backend. Reads only; works for any user, and says what it could not see.

One file per source: the kernel's netlink families, ethtool, sysfs, DPDK's files, io_uring. Everything below
``/sys``, ``/proc`` and so on is looked up from a ``root`` that a test may put elsewhere. ``sysfs`` shows the
network interfaces of the namespace it was mounted in, which need not be the thread's; so what is asked of
an interface is asked over a socket, and ``sysfs`` is asked for the bus device behind it.
"""

from hybrid.devices.host import Host, gather
from hybrid.devices.interfaces import Interface

__all__ = ["Host", "Interface", "gather"]
