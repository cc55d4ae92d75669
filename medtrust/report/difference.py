"""How two results differ, with an interval recovered from their own intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "change", "incomparable"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """The worsening from one result to another: positive is worse, in the unit of the estimate.

    Args:
        value: Worsening of the estimate.
        lo: Lower end of its interval.
        hi: Upper end.
    """

    value: float
    lo: float
    hi: float


def incomparable(new: Row, old: Row | None, called: tuple[str, str] = ("this report", "the baseline")) -> str:
    """Say why two results cannot be compared; empty if they can.

    Args:
        new: A result as plain data.
        old: The earlier one, None where there is none.
        called: What to call the two reports.
    """
    here, there = called
    if old is None or not old["estimate"] or old["status"] != "ok":
        return f"{there} has no such result"
    if new["status"] != "ok" or not new["estimate"]:
        return f"{here} has no such result"
    if new["estimate"]["direction"] == "none":
        return "the result does not say which direction is better"
    for name in ("features", "metric", "metric_version"):
        if new[name] != old[name]:
            return f"{there} used {name} {old[name]}, {here} {new[name]}"
    if not new["interval"] or not old["interval"]:
        return "one of the two results has no interval, so their difference has none"
    return ""


def change(new: Row, old: Row) -> Change:
    """The worsening from `old` to `new`, as if the two audits were independent.

    Args:
        new: A result as plain data with estimate and interval; comparable with `old`.
        old: The earlier one.

    Reference: Zou and Donner 2008, doi:10.1002/sim.3095 (variance recovered from the two intervals).
    """
    sign = 1.0 if new["estimate"]["direction"] == "lower" else -1.0
    value = sign * (new["estimate"]["value"] - old["estimate"]["value"])
    up = _room(new, sign), _room(old, -sign)
    down = _room(new, -sign), _room(old, sign)
    return Change(value, value - math.hypot(*down), value + math.hypot(*up))


def _room(row: Row, towards: float) -> float:
    """Distance from an estimate to its interval's upper (towards > 0) or lower end."""
    value, interval = row["estimate"]["value"], row["interval"]
    return max(0.0, float(interval["hi"] - value if towards > 0 else value - interval["lo"]))
