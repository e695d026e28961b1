"""Interrupts of a device, and the cores that they go to."""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hybrid.errors import from_errno
from hybrid.ranges import format_ranges, parse_ranges

__all__ = ["Interrupt", "actions", "balancer", "cores_of", "of_device", "set_cores"]

# virtio2-input.0, eth0-TxRx-3, ens5-Tx-Rx-0, mlx5_comp3@pci:0000:3b:00.0, eth0-rx-1, bnxt_en-eth0-TxRx-0
_QUEUE = re.compile(r"(?:input|tx-?rx|rx-?tx|rx|comp|fp)[-._]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Interrupt:
    """``queue``: the receive queue that it tells of; None: something else (configuration, transmit)."""

    number: int
    action: str
    queue: int | None
    cores: frozenset[int]


def of_device(folder: Path, root: Path = Path("/")) -> tuple[Interrupt, ...]:
    """Message-signalled interrupts of a bus device, or of the one that it is a function of, by number."""
    real = folder.resolve()
    for place in (real, real.parent):
        with suppress(OSError):
            numbers = sorted(int(path.name) for path in (place / "msi_irqs").iterdir())
            found = [(number, actions(number, root)) for number in numbers]
            return tuple(
                Interrupt(number, name, _queue(name), cores_of(number, root) or frozenset())
                for number, name in found
                if name
            )
    return ()


def actions(number: int, root: Path = Path("/")) -> str:
    """Whose it is, in the words of its driver; empty: nobody's."""
    with suppress(OSError):
        return (root / f"sys/kernel/irq/{number}/actions").read_text().strip()
    return ""


def cores_of(number: int, root: Path = Path("/")) -> frozenset[int] | None:
    """The cores that it may go to; None: there is no such interrupt."""
    with suppress(OSError, ValueError):
        return parse_ranges(_affinity(number, root).read_text())
    return None


def set_cores(number: int, cores: frozenset[int], root: Path = Path("/")) -> None:
    """Sends it to these from now on."""
    try:
        _affinity(number, root).write_text(format_ranges(cores) + "\n")
    except OSError as error:
        # EIO is what the kernel says of interrupts that it places by itself (managed ones).
        remedy = (
            "the kernel places this one itself; nothing can be done" if error.errno == errno.EIO else None
        )
        what = f"send interrupt {number} to core {format_ranges(cores)}"
        raise from_errno(error.errno or 0, what, remedy) from None


def balancer(root: Path = Path("/")) -> bool:
    """True: irqbalance runs, and would move them again."""
    for path in (root / "proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if path.read_text().strip() == "irqbalance":
                return True
    return False


def _affinity(number: int, root: Path) -> Path:
    return root / f"proc/irq/{number}/smp_affinity_list"


def _queue(action: str) -> int | None:
    found = _QUEUE.search(action)
    return int(found[1]) if found else None
