"""The devices of a running program: which it has, which it has lost, and what is tried to get them back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hybrid.launch.control import Device, DeviceObtained

# How soon what is missing is looked for again: an interface that is not there costs one system call,
# one that cannot be steered loads a program each time.
_LOOK_AGAIN_S = 0.02
_TRY_AGAIN_S = 1.0
# How often the number of queues is looked at, of which netlink sends no news.
_LOOK_AT_QUEUES_S = 1.0


def now() -> str:
    """For people and records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Slot:
    """A queue of an interface, by name: its number may come back as another interface's."""

    device: Device
    obtained: DeviceObtained | None = None
    since: str = ""

    @property
    def in_service(self) -> bool:
        """Whether frames reach the program by it."""
        return self.obtained is not None and self.obtained.status == 0

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {
            "interface": self.device.interface,
            "queue": self.device.queue,
            "kind": self.device.kind.name.lower(),
            "in_service": self.in_service,
            "since": self.since,
        }


class Slots:
    """All of them. ``lost`` and ``returned`` count."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._slots = {(device.interface, device.queue, device.kind): Slot(device) for device in devices}
        self.lost = self.returned = 0
        self.look_at = float("inf")
        self.pending: set[tuple[int, int]] = set()  # given to the program, which has not answered yet

    def __iter__(self) -> Any:
        return iter(self._slots.values())

    @property
    def devices(self) -> list[Device]:
        """In the order in which they came."""
        return [slot.device for slot in self._slots.values()]

    @property
    def have(self) -> set[tuple[int, int]]:
        """What the program has, or is about to have."""
        return {slot.device.key for slot in self._slots.values() if slot.in_service} | self.pending

    def started(self, obtained: Sequence[DeviceObtained]) -> None:
        """The program is in service, with these."""
        for slot, got in zip(self._slots.values(), obtained, strict=True):
            slot.obtained, slot.since = got, now()
        self.look_at = time.monotonic() + _LOOK_AT_QUEUES_S

    def gone(self, key: tuple[int, int]) -> Slot | None:
        """The program has lost one."""
        for slot in self._slots.values():
            if slot.device.key == key and slot.in_service:
                slot.obtained, slot.since = None, now()
                self.lost += 1
                self.soon()
                return slot
        return None

    def came(self, device: Device, obtained: DeviceObtained) -> Slot:
        """One was given to the program and is in service, or could not be attached."""
        key = (device.interface, device.queue, device.kind)
        slot = self._slots.setdefault(key, Slot(device))
        slot.device, slot.obtained = device, obtained if obtained.status == 0 else None
        if slot.in_service:
            slot.since = now()
            self.returned += 1
        return slot

    # -- when to look for what is missing ------------------------------------------------------

    def soon(self) -> None:
        """Something may be there again."""
        self.look_at = min(self.look_at, time.monotonic() + _LOOK_AGAIN_S)

    def looked(self, missing: bool, failed: bool) -> None:
        """It was looked at."""
        wait = _TRY_AGAIN_S if failed else _LOOK_AGAIN_S if missing else _LOOK_AT_QUEUES_S
        self.look_at = time.monotonic() + wait
