"""Offloads: what makes frames other than they were on the wire is off where AF_XDP reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybrid.agent.settings import Offload
from hybrid.devices.ethtool import AFXDP_PEER_OFF, offloads_on
from hybrid.devices.interfaces import Interface
from hybrid.doctor.finding import Finding, Outcome
from hybrid.doctor.stages.stage import Checked, Wanted, remedy, subjects

__all__ = ["check"]

_NAME = "offloads"

# On a card frames arrive as they were on the wire but for these, which glue several together. What it does
# for frames of the kernel's that leave (checksums, segmentation) is not in a bypass's way.
_CARD_OFF = ("rx-lro", "rx-gro-hw")


def check(wanted: Wanted, root: Path) -> Iterator[Checked]:
    """One finding for each interface."""
    for subject in subjects(_NAME, wanted, root):
        yield subject if isinstance(subject, Checked) else _check(subject)


def _check(interface: Interface) -> Checked:
    name = interface.name
    off = AFXDP_PEER_OFF if interface.kind == "veth" else _CARD_OFF
    on = offloads_on(name, off)
    if not on:
        return Checked(Finding(_NAME, Outcome.YES, f"{name}: off, as AF_XDP needs them"))
    return Checked(
        Finding(_NAME, Outcome.NO, f"{name}: on are {', '.join(on)}", remedy=remedy(_NAME, interface)),
        tuple((Offload(name, interface.ifindex, feature), "off") for feature in on),
    )
