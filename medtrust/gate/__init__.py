"""From a policy and a report to a verdict and an exit code."""

from __future__ import annotations

from medtrust.gate.exits import exit_code
from medtrust.gate.judge import baseline_for, judge, load_baseline
from medtrust.gate.policy import READY_POLICIES, Gate, Policy, Requirement, Waiver, demands, load_policy

__all__ = [
    "READY_POLICIES",
    "Gate",
    "Policy",
    "Requirement",
    "Waiver",
    "baseline_for",
    "exit_code",
    "demands",
    "judge",
    "load_baseline",
    "load_policy",
]
