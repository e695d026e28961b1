"""Kernel sockets for a shard, driven by io_uring: what the fallback and ``Backend.KERNEL`` stand on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hybrid._native import ffi, lib
from hybrid.api._handle import Handle
from hybrid.api.errors import AttachError


class Zerocopy(IntEnum):
    """Which sends of a connection the kernel reads from our memory instead of copying them."""

    #: long ones, on connections where it does not copy after all
    AUTO = 0
    NO = 1
    #: every one: to try it
    ALWAYS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class UringConfig:
    """What is requested. ``0`` is the library's default."""

    entries: int = 0
    """submissions per call (512)"""
    buffers: int = 0
    """frames lent to the kernel to receive into (1024, or what fits)"""
    zerocopy: Zerocopy = Zerocopy.AUTO
    zerocopy_bytes: int = 0
    """sends from this size on (32 KiB)"""
    sqpoll: bool = False
    """a thread of the kernel's submits, which wants a core"""
    napi_busy_poll: bool = False
    """waiting polls the network devices (Linux 6.9)"""
    registered_files: bool = True
    registered_buffers: bool = True
    strict: bool = False
    """what is asked for and cannot be had is an :class:`AttachError`"""


@dataclass(frozen=True, slots=True)
class Uring:
    """What was obtained."""

    entries: int
    buffers: int
    deferred_taskrun: bool
    sqpoll: bool
    bundles: bool
    zerocopy: bool
    zerocopy_reports: bool
    registered_files: bool
    registered_buffers: bool
    napi_busy_poll: bool


def attach_uring(handle: Handle, asked: UringConfig) -> Uring:
    """``hy_uring_attach``."""
    config = ffi.new("hy_uring_config *")
    config.struct_size = ffi.sizeof("hy_uring_config")
    config.entries, config.buffers = asked.entries, asked.buffers
    config.zerocopy, config.zerocopy_bytes = asked.zerocopy, asked.zerocopy_bytes
    config.sqpoll, config.napi_busy_poll = asked.sqpoll, asked.napi_busy_poll
    config.no_registered_files = not asked.registered_files
    config.no_registered_buffers = not asked.registered_buffers
    config.strict = asked.strict
    got = ffi.new("hy_uring_obtained *")
    result = int(handle.call(lib.hy_uring_attach, config, got))
    if result < 0:
        raise AttachError("attach kernel sockets", -result)
    return Uring(
        entries=got.entries,
        buffers=got.buffers,
        deferred_taskrun=bool(got.deferred_taskrun),
        sqpoll=bool(got.sqpoll),
        bundles=bool(got.bundles),
        zerocopy=bool(got.zerocopy),
        zerocopy_reports=bool(got.zerocopy_reports),
        registered_files=bool(got.registered_files),
        registered_buffers=bool(got.registered_buffers),
        napi_busy_poll=bool(got.napi_busy_poll),
    )
