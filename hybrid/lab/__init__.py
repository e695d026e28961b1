"""Labs: network namespaces joined by a veth pair, for tests and for trying things out."""

from hybrid.lab.lab import Lab, LabStatus, Phase, SideStatus
from hybrid.lab.side import Side

__all__ = ["Lab", "LabStatus", "Phase", "Side", "SideStatus"]
