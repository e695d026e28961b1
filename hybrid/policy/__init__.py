"""Policies: which flows take the fast path. Schema, checks, compilation, comparison; pure but for reading.

::

    policy.yaml --load--> PolicyModel --compile_policy--> CompiledPolicy --diff--> what changes
                  |
                  +-> PolicyFileError: every mistake, with file:line:col
"""

from hybrid.policy.compiled import (
    CompiledInterface,
    CompiledPolicy,
    InterfaceDiff,
    PolicyDiff,
    compile_policy,
    describe,
    diff,
)
from hybrid.policy.device import DpdkPort, FrameDevice, Tap, Uring, Via
from hybrid.policy.load import load, loads
from hybrid.policy.model import CopyMode, Mode, PolicyModel
from hybrid.policy.placement import Backend, Placement, placements
from hybrid.policy.problem import PolicyFileError, Position, Problem
from hybrid.policy.rule import Fallback, Protocol, Rule, Target

__all__ = [
    "Backend",
    "CompiledInterface",
    "CompiledPolicy",
    "CopyMode",
    "DpdkPort",
    "Fallback",
    "FrameDevice",
    "InterfaceDiff",
    "Mode",
    "Placement",
    "PolicyDiff",
    "PolicyFileError",
    "PolicyModel",
    "Position",
    "Problem",
    "Protocol",
    "Rule",
    "Tap",
    "Target",
    "Uring",
    "Via",
    "compile_policy",
    "describe",
    "diff",
    "load",
    "loads",
    "placements",
]
