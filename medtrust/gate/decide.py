"""One gate on one result: PASS, FAIL or INCONCLUSIVE, with the sentence that proves it.

For "<=" an interval [lo, hi] passes if hi <= t, fails if lo > t, and decides nothing otherwise.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medtrust.gate.policy import FIELDS, Gate, Requirement
from medtrust.report import Verdict
from medtrust.report.codec import encode_result
from medtrust.report.difference import change, incomparable
from medtrust.report.text import apart, number
from medtrust.types import Result

__all__ = ["Finding", "decide"]

_HOLDS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
_SIGN = {"<=": "≤", ">=": "≥", "<": "<", ">": ">", "==": "="}
_NEGATED = {"<=": ">", ">=": "<", "<": "≥", ">": "≤", "==": "≠"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What the data say about a gate, with its proof text."""

    verdict: Verdict
    why: tuple[str, ...]
    threshold: float = 0.0
    baseline: float | None = None


def decide(gate: Gate, result: Result, before: Result | None = None) -> Finding:
    """Judge one gate on one result.

    Args:
        gate: The question.
        result: The answer.
        before: The same result of the baseline, for a non-regression gate.
    """
    blind = _counts_not(gate, result)
    if blind:
        return _open(blind)
    if gate.mode == "test":
        found = _by_test(gate, result)
    elif gate.mode == "nonregression":
        found = _by_baseline(gate, result, before)
    elif gate.mode == "ci":
        found = _by_interval(gate, result)
    else:
        found = _by_point(gate, result)
    return _with_requirements(gate, result, found) if found.verdict == "PASS" else found


def _counts_not(gate: Gate, result: Result) -> str:
    """Why a result counts neither way; empty if it counts."""
    if result.status != "ok":
        return f"the result is {result.status}: {result.reason.rstrip('.')}"
    if result.diagnostic:
        return f"it is a diagnostic, which counts neither for nor against: {result.diagnostic.rstrip('.')}"
    state = result.selftest.status if result.selftest else "not_run"
    required = any(r.path == "selftest.status" for r in gate.require)
    if state == "failed" or (required and state != "ok"):
        what = {"failed": "failed its self-test", "not_run": "was not self-tested"}[state]
        detail = f": {result.selftest.detail.rstrip('.')}" if result.selftest else ""
        return f"the detector {what}, and only one that passes it counts{detail}"
    return ""


def _open(why: str, **facts: Any) -> Finding:
    return Finding("INCONCLUSIVE", (f"INCONCLUSIVE because {why}.",), **facts)


def _by_test(gate: Gate, result: Result) -> Finding:
    if result.test is None:
        return _open("the result has no test")
    assert gate.threshold is not None
    adjusted = gate.field.endswith("p_adj")
    value = result.test.p_adj if adjusted else result.test.p
    a, b = apart(value, gate.threshold)
    shown = "below 0.0001" if value < 1e-4 else a
    text = f"the adjusted p-value ({shown}, family {result.test.family})" if adjusted else f"the p-value ({shown})"
    if _HOLDS[gate.op](value, gate.threshold):
        return Finding("PASS", (f"PASS because {text} is {_SIGN[gate.op]} {b}, no alarm",))
    return Finding("FAIL", (f"FAIL because {text} is {_NEGATED[gate.op]} {b}.",))


def _by_interval(gate: Gate, result: Result) -> Finding:
    interval, t = result.interval, gate.threshold
    assert t is not None
    if interval is None:
        return _open("the result has no interval, and this gate decides by interval")
    if interval.level < gate.level - 1e-9:
        return _open(f"its interval is at {_percent(interval.level)}, and the policy asks for {_percent(gate.level)}")
    below = gate.op in ("<=", "<")
    good, bad = (interval.hi, interval.lo) if below else (interval.lo, interval.hi)
    names = ("upper", "lower") if below else ("lower", "upper")
    which = f"of the {_percent(interval.level)} interval"
    if _HOLDS[gate.op](good, t):
        a, b = apart(good, t)
        return Finding("PASS", (f"PASS because the {names[0]} bound {a} {which} is {_SIGN[gate.op]} {b}",))
    if not _HOLDS[gate.op](bad, t):
        a, b = apart(bad, t)
        return Finding("FAIL", (f"FAIL because the {names[1]} bound {a} {which} is {_NEGATED[gate.op]} {b}.",))
    (lo, near_lo), (hi, near_hi) = apart(interval.lo, t), apart(interval.hi, t)
    return _open(
        f"the {_percent(interval.level)} interval {lo} to {hi} ({number(interval.n_units)} {interval.unit}s) holds the "
        f"threshold {max(near_lo, near_hi, key=len)}; more {interval.unit}s would narrow it"
    )


def _by_point(gate: Gate, result: Result) -> Finding:
    value, t = _look_up(encode_result(result), FIELDS.get(gate.field, gate.field)), gate.threshold
    assert t is not None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _open(f"the result has no number {gate.field}" if value is None else f"{gate.field} is {value!r}")
    a, b = apart(value, t)
    name, unit = gate.field, ""
    if gate.field == "estimate" and result.estimate:
        name, unit = "the estimate", f" ({result.estimate.unit})" if result.estimate.unit else ""
    caution = "sampling error is not considered (point mode)"
    if _HOLDS[gate.op](value, t):
        return Finding("PASS", (f"PASS because {name} {a}{unit} is {_SIGN[gate.op]} {b}; {caution}",))
    return Finding("FAIL", (f"FAIL because {name} {a}{unit} is {_NEGATED[gate.op]} {b}; {caution}.",))


def _by_baseline(gate: Gate, result: Result, before: Result | None) -> Finding:
    """Judge the worsening since the baseline by an interval of the difference."""
    new, old = encode_result(result), encode_result(before) if before else None
    facts: dict[str, Any] = {}
    if before and before.estimate and before.status == "ok":
        tolerance = gate.tolerance[0] * (abs(before.estimate.value) if gate.tolerance[1] else 1)
        facts = {"threshold": tolerance, "baseline": before.estimate.value}
    problem = incomparable(new, old)
    if problem or old is None:
        return _open(problem, **facts)
    if min(new["interval"]["level"], old["interval"]["level"]) < gate.level - 1e-9:
        return _open(f"an interval is below the level {_percent(gate.level)} that the policy asks for", **facts)
    worse = change(new, old)
    then, now = number(old["estimate"]["value"]), number(new["estimate"]["value"])
    text = f"the worsening since the baseline ({then} then, {now} now)"
    if worse.hi <= tolerance:
        a, b = apart(worse.hi, tolerance)
        return Finding("PASS", (f"PASS because {text} is at most {a}, and {b} is allowed",), **facts)
    if worse.lo > tolerance:
        a, b = apart(worse.lo, tolerance)
        return Finding("FAIL", (f"FAIL because {text} is at least {a}, and {b} is allowed.",), **facts)
    between = f"{number(worse.lo)} and {number(worse.hi)}"
    return _open(f"{text} lies between {between}, and {number(tolerance)} is allowed", **facts)


def _percent(level: float) -> str:
    return f"{number(100 * level)} %"


def _with_requirements(gate: Gate, result: Result, found: Finding) -> Finding:
    """A PASS stands only if everything the policy requires of the result holds."""
    row = encode_result(result)
    kept, missing = [], []
    for requirement in gate.require:
        value = _look_up(row, FIELDS.get(requirement.path, requirement.path))
        text = f"{requirement.path} = {number(value) if isinstance(value, (int, float)) else value}"
        if _meets(requirement, value):
            kept.append(text)
        else:
            unknown = f"{requirement.path} is not known" if value is None else text
            missing.append(f"{unknown}, and {requirement} is required")
    if missing:
        return Finding("INCONCLUSIVE", (f"INCONCLUSIVE although {_lower(found.why[0])}: {'; '.join(missing)}.",))
    holds = f"; required and found: {', '.join(kept)}." if kept else "."
    return Finding("PASS", (found.why[0] + holds,), found.threshold, found.baseline)


def _lower(passed: str) -> str:
    return passed.removeprefix("PASS because ")


def _meets(requirement: Requirement, value: Any) -> bool:
    if isinstance(requirement.value, str):
        return isinstance(value, str) and value == requirement.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return bool(_HOLDS[requirement.op](value, requirement.value))


def _look_up(row: Mapping[str, Any], path: str) -> Any:
    """Follow a dotted path; a fact's own name may hold dots."""
    head, _, rest = path.partition(".")
    part = row.get(head)
    return part.get(rest) if isinstance(part, Mapping) else None
