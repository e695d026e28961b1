"""Steering: the XDP program that sends the frames a rule names to AF_XDP, and its life in the kernel.

A :class:`Steering` is one interface's program with its maps, pinned below ``/sys/fs/bpf/hybrid``, so
that it outlives the process that attached it. The program passes whatever no rule names.

>>> ensure_bpffs()
>>> with Steering.attach("eth1", XdpMode.AUTO) as steering:
...     steering.replace_rules(rules)
...     steering.enter(0, xsk_fd)
...     steering.counters().reason("redirected").packets

Leaving the ``with`` closes descriptors only; what is attached stays until :meth:`Steering.detach`.
Names of interfaces are those of the calling thread's network namespace.
"""

from pathlib import Path

from hybrid.bpf._call import object_file
from hybrid.bpf.bpffs import ensure_bpffs
from hybrid.bpf.inspect import XdpProgram, inspect
from hybrid.bpf.model import Count, Counters, Obtained, RuleCount, XdpMode
from hybrid.bpf.pins import Pinned, PinState, attached
from hybrid.bpf.steering import Steering

__all__ = [
    "Count",
    "Counters",
    "Obtained",
    "PinState",
    "Pinned",
    "RuleCount",
    "Steering",
    "XdpMode",
    "XdpProgram",
    "attached",
    "dpdk_object",
    "ensure_bpffs",
    "inspect",
]


def dpdk_object() -> Path:
    """What a port of DPDK's net_af_xdp driver is given as ``xdp_prog=``; see :meth:`Steering.adopt`."""
    return object_file("steer-dpdk.bpf.o")
