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
from hybrid.policy.load import load, loads
from hybrid.policy.model import CopyMode, Mode, PolicyModel
from hybrid.policy.problem import PolicyFileError, Position, Problem
from hybrid.policy.rule import Protocol, Rule, Target

__all__ = [
    "CompiledInterface",
    "CompiledPolicy",
    "CopyMode",
    "InterfaceDiff",
    "Mode",
    "PolicyDiff",
    "PolicyFileError",
    "PolicyModel",
    "Position",
    "Problem",
    "Protocol",
    "Rule",
    "Target",
    "compile_policy",
    "describe",
    "diff",
    "load",
    "loads",
]
