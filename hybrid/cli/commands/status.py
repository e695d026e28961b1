"""``hybrid status``: what is steered, how often each rule hit, and which programs are in service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hybrid.cli.output import table
from hybrid.cli.session import session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hybrid.agent.status import InterfaceStatus, Status
    from hybrid.launch.record import ShardRecord

__all__ = ["command"]


def command(ctx: typer.Context) -> None:
    """Show interfaces, rules with their counters, programs in service, and leftovers."""
    from hybrid.agent.status import gather

    status = gather()
    session(ctx).output.emit(status.as_dict(), *_text(status))


def _text(status: Status) -> Iterator[RenderableType]:
    if not status.interfaces:
        yield "nothing is steered in this network namespace"
    for asked in status.unsteered:
        yield f"{asked.ifname}: device {asked.desired.device}, not steered" + (
            f" ({asked.note})" if asked.note else ""
        )
    for interface in status.interfaces:
        yield from _interface(interface)
    if status.reserved_ports:
        yield f"local ports reserved for steered connections: {status.reserved_ports}"
        yield ""
    for shard in status.shards:
        yield from _shard(shard)
    if status.changes:
        yield "settings that hybrid doctor --fix changed (hybrid clean puts them back):"
        yield from (f"  {change}" for change in status.changes)
    if status.leftovers:
        yield "left behind (hybrid clean removes it):"
        yield from (f"  {sentence}" for sentence in status.leftovers)


def _interface(interface: InterfaceStatus) -> Iterator[RenderableType]:
    obtained, counters = interface.obtained, interface.counters
    requested = interface.requested.get("mode", obtained.requested)
    sockets = ", ".join(str(queue) for queue in interface.sockets) or "none"
    yield (
        f"{obtained.ifname}: {obtained.mode} mode (requested {requested}), generation {counters.generation}, "
        f"{obtained.queues} queues, in service: {sockets}"
    )
    if interface.port:
        yield f"  DPDK port: {'in service' if interface.leased else 'no program has it'}"
    for deviation in interface.deviations:
        yield f"  note: {deviation}"
    yield table(
        ["rule", ">packets", ">bytes", ">to the kernel for want of a socket", "match"],
        (
            (row.rule.name, row.hit.packets, row.hit.bytes, row.no_socket.packets, _describe(row.rule))
            for row in counters.rules
        ),
    )
    seen = [(name, count) for name, count in counters.reasons.items() if count.packets]
    if seen:
        yield ""
        yield table([">packets", ">bytes", "reason"], ((c.packets, c.bytes, name) for name, c in seen))
    yield ""


def _describe(rule: Any) -> str:
    from hybrid.policy import describe

    return describe(rule)


def _shard(shard: ShardRecord) -> Iterator[RenderableType]:
    about = shard.about
    command = [str(word) for word in about.get("command", [])] or ["?"]
    words = " ".join([Path(command[0]).name, *command[1:]])
    state = "in service" if about.get("in_service") else "not yet in service"
    placed = about.get("placed", {})
    named = [f"{port} ({placed[port]})" if port in placed else port for port in about.get("ports", [])]
    ports = ", ".join(named) or "no ports"
    yield f"{words} (pid {about.get('pid')}, {state}, {_age(about.get('started'))}): {ports}"
    got, slots = about.get("obtained", []), about.get("devices", [])
    for number, asked in enumerate(about.get("requested", [])):
        line = describe_device(asked, got[number] if number < len(got) else None)
        yield f"  {_in_use(slots[number], line) if number < len(slots) else line}"
    yield from _fallback(about)
    counted = [(name, value) for name, value in shard.stats.items() if value]
    if counted:
        yield table([">value", "counter"], ((value, name) for name, value in counted))
    yield ""


def _in_use(slot: dict[str, Any], line: str) -> str:
    """Whether a queue is bypassed, and since when."""
    state = f"{slot['kind']} in use" if slot["in_service"] else "not bypassed, the kernel has its frames"
    since = f" since {slot['since']}" if slot["since"] else ""
    return f"{slot['interface']} {line}; {state}{since}"


def _fallback(about: dict[str, Any]) -> Iterator[str]:
    kernel = about.get("kernel", {})
    if kernel.get("requested") not in (None, "no"):
        obtained = (
            "obtained" if kernel["obtained"] else f"not obtained ({kernel['note'] or 'not set up yet'})"
        )
        yield f"  the kernel's sockets: requested ({kernel['requested']}), {obtained}"
    if about.get("devices_lost") or about.get("devices_returned"):
        yield f"  queues lost: {about['devices_lost']}, come back: {about['devices_returned']}"


def describe_device(asked: dict[str, Any], got: dict[str, Any] | None) -> str:
    """A queue's AF_XDP socket, requested and obtained."""
    from hybrid.launch.control import Copy, Kind

    if got is None:
        return f"queue {asked['queue']}: not set up yet"
    if got.get("status"):
        return f"queue {asked['queue']}: not there ({got.get('note') or os.strerror(-got['status'])})"
    if asked.get("kind") == Kind.DPDK:
        return f"DPDK port {asked['args']}: {got.get('note')}"
    copy = "zero-copy" if got["zerocopy"] else "copy"
    words = [f"queue {asked['queue']}: {copy} (requested {_COPY_WORDS[Copy(asked['copy']).name]})"]
    if asked["busy_poll"]:
        words.append(f"busy polling {'on' if got['busy_poll'] else 'not obtained'} (requested on)")
    if asked.get("tx_checksum"):
        words.append(f"checksums {'left' if got['tx_checksum'] else 'not left'} to the kernel (requested on)")
    elif got.get("tx_checksum"):
        words.append("checksums left to the device")
    if got.get("packet_bytes_max"):
        several = "of several buffers " if got["multi_buffer"] else ""
        words.append(f"packets {several}up to {got['packet_bytes_max']} bytes")
    if got.get("shared_umem"):
        words.append("arena registered with another queue's")
    words.append(f"rings of {got['ring_size']}")
    words.append(f"arena in {'huge' if got['hugepages'] else 'ordinary'} pages")
    return ", ".join(words)


_COPY_WORDS = {"AUTO": "auto", "ZEROCOPY": "zero-copy", "COPY": "copy"}


def _age(started: Any) -> str:
    try:
        seconds = int((datetime.now(UTC) - datetime.fromisoformat(str(started))).total_seconds())
    except (ValueError, TypeError):
        return "started at an unknown time"
    minutes, seconds = divmod(max(0, seconds), 60)
    return f"for {minutes} min {seconds} s" if minutes else f"for {seconds} s"
