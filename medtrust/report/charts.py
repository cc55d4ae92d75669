"""Interval charts as inline SVG: the estimate with its interval, drawn against the real reference and the threshold.

Colours come from CSS classes and shapes differ, so that the charts work in print, in the dark and without colour.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from medtrust.report.text import number

__all__ = ["comparison_chart", "interval_chart", "mark", "power_chart", "small_chart"]

Row = Mapping[str, Any]
_POWER = re.compile(r"power_at_([0-9.]+)_percent")
_FAILS_ABOVE = {"<=": True, "<": True, ">=": False, ">": False}

_MARKS = {
    "PASS": '<circle cx="12" cy="12" r="10"/><path class="cut" d="M7 12.5l3.4 3.4L17 8.8"/>',
    "WARN": '<path d="M12 1.8L23 21.2H1z"/><path class="cut" d="M12 8.5v6M12 17.4v.6"/>',
    "FAIL": '<path d="M7.6 1.6h8.8l6 6v8.8l-6 6H7.6l-6-6V7.6z"/><path class="cut" d="M8 8l8 8M16 8l-8 8"/>',
    "INCONCLUSIVE": '<path d="M12 .8L23.2 12 12 23.2.8 12z"/>'
    '<path class="cut" d="M9.3 9.4a2.8 2.8 0 1 1 4.4 2.3c-1.1.8-1.7 1.2-1.7 2.3M12 16.8v.5"/>',
    "NONE": '<rect x="2" y="2" width="20" height="20" rx="3"/><path class="cut" d="M7 12h10"/>',
}


def mark(verdict: str, spoken: bool = False) -> Markup:
    """The shape of a verdict: circle, triangle, octagon, diamond or square.

    Args:
        verdict: PASS, WARN, FAIL, INCONCLUSIVE or NONE.
        spoken: Whether no text beside it says the verdict already.
    """
    label = Markup('role="img" aria-label="{}"').format(verdict) if spoken else Markup('aria-hidden="true"')
    return Markup('<svg class="mark {}" viewBox="0 0 24 24" {}>{}</svg>').format(
        verdict.lower(), label, _svg(_MARKS[verdict])
    )


def _svg(*parts: str) -> Markup:
    """Join drawing code that this module wrote from numbers and its own words; nothing foreign may enter here."""
    return Markup("".join(parts))  # noqa: S704 - see above


@dataclass(frozen=True, slots=True)
class _Scale:
    lo: float
    hi: float
    left: float
    right: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.lo), self.hi) - self.lo) / (self.hi - self.lo)
        return round(self.left + share * (self.right - self.left), 1)


def _thresholds(row: Row, gates: Sequence[Row]) -> list[tuple[float, str]]:
    """Thresholds that can be drawn on the estimate's axis: (value, operator)."""
    found = []
    for gate in gates:
        if gate["mode"] == "nonregression" and gate["baseline"] is not None:
            lower = row["estimate"]["direction"] == "lower"
            found.append((gate["baseline"] + gate["threshold"] * (1 if lower else -1), "<=" if lower else ">="))
        elif gate["field"] in ("estimate", "estimate.value") and gate["mode"] in ("ci", "point"):
            found.append((gate["threshold"], gate["op"]))
    return found


def _scale(row: Row, bounds: Sequence[tuple[float, str]], left: float, right: float) -> _Scale:
    values = [row["estimate"]["value"], *(value for value, _ in bounds)]
    values += [row["interval"][end] for end in ("lo", "hi")] if row["interval"] else []
    if row["null"]:
        values.append(row["null"]["value"])
        values += [row["null"]["interval"][end] for end in ("lo", "hi")] if row["null"]["interval"] else []
    lo, hi = min(values), max(values)
    room = (hi - lo) * 0.08 or abs(hi) * 0.5 or 1.0
    lowest = 0.0 if lo >= 0 and lo - room < 0.25 * hi else lo - room  # start at zero where that costs little room
    return _Scale(lowest, hi + room, left, right)


def _steps(scale: _Scale) -> list[float]:
    raw = (scale.hi - scale.lo) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(scale.lo / step - 1e-9)
    return [k * step for k in range(first, math.floor(scale.hi / step + 1e-9) + 1)]


def _bar(scale: _Scale, interval: Row | None, y: float, cap: float, name: str) -> str:
    if not interval:
        return ""
    lo, hi = scale(interval["lo"]), scale(interval["hi"])
    return f'<path class="{name}" d="M{lo} {y}H{hi}M{lo} {y - cap}V{y + cap}M{hi} {y - cap}V{y + cap}"/>'


def _diamond(x: float, y: float, r: float) -> str:
    return f'<path class="null-value" d="M{x} {y - r}L{x + r} {y}L{x} {y + r}L{x - r} {y}z"/>'


def _zones(scale: _Scale, bounds: Sequence[tuple[float, str]], top: float, bottom: float) -> str:
    """Shade the side on which a gate fails, and draw the threshold."""
    parts = []
    for value, op in bounds:
        x = scale(value)
        if op in _FAILS_ABOVE:
            lo, hi = (x, scale.right) if _FAILS_ABOVE[op] else (scale.left, x)
            size = f'width="{round(hi - lo, 1)}" height="{round(bottom - top, 1)}"'
            parts.append(f'<rect class="fails" x="{lo}" y="{top}" {size}/>')
        parts.append(f'<path class="bound" d="M{x} {top}V{bottom}"/>')
    return "".join(parts)


def small_chart(row: Row, gates: Sequence[Row]) -> Markup:
    """A chart without text, for a line of the overview; empty where there is no estimate."""
    if row["status"] != "ok" or not row["estimate"]:
        return Markup("")
    bounds = _thresholds(row, gates)
    scale = _scale(row, bounds, 4, 216)
    null = row["null"]
    parts = [
        _zones(scale, bounds, 2, 32),
        '<path class="axis" d="M4 32H216"/>',
        _bar(scale, null["interval"], 25, 2.5, "null-bar") + _diamond(scale(null["value"]), 25, 4) if null else "",
        _bar(scale, row["interval"], 12, 4, "bar"),
        f'<circle class="value" cx="{scale(row["estimate"]["value"])}" cy="12" r="4.5"/>',
    ]
    return _svg('<svg class="chart small" viewBox="0 0 220 34" aria-hidden="true">', *parts, "</svg>")


def interval_chart(row: Row, gates: Sequence[Row], spoken: str) -> Markup:
    """The full chart of one result; empty where there is no estimate.

    Args:
        row: A result as plain data.
        gates: Its judged gates.
        spoken: What the chart says, for those who cannot see it.
    """
    if row["status"] != "ok" or not row["estimate"]:
        return Markup("")
    bounds, null = _thresholds(row, gates), row["null"]
    scale = _scale(row, bounds, 92, 408)
    top = 24.0 if bounds else 8.0
    first = top + 24
    bottom = first + (50 if null else 22)
    parts = [_zones(scale, bounds, top, bottom), f'<path class="axis" d="M92 {bottom}H408"/>']
    for value in _steps(scale):
        x = scale(value)
        parts.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>')
    for value, op in bounds:
        x = scale(value)
        anchor = "start" if x < 170 else "end" if x > 330 else "middle"
        sign = escape({"<=": "≤", ">=": "≥"}.get(op, op))
        parts.append(f'<text class="note" x="{x}" y="16" text-anchor="{anchor}">must be {sign} {number(value)}</text>')
    parts.append(_labelled(scale, "synthetic", row["estimate"]["value"], first))
    parts.append(_bar(scale, row["interval"], first, 6, "bar"))
    parts.append(f'<circle class="value" cx="{scale(row["estimate"]["value"])}" cy="{first}" r="5.5"/>')
    if null:
        parts.append(_labelled(scale, "real vs real", null["value"], first + 28))
        parts.append(_bar(scale, null["interval"], first + 28, 4, "null-bar"))
        parts.append(_diamond(scale(null["value"]), first + 28, 5.5))
    height = bottom + 22
    opening = Markup('<svg class="chart" viewBox="0 0 420 {}" role="img" aria-label="{}">').format(height, spoken)
    return opening + _svg(*parts, "</svg>")


def comparison_chart(rows: Sequence[tuple[str, Row | None]], spoken: str) -> Markup:
    """One result of several reports on one axis, each with its real-against-real reference; empty without estimates.

    Args:
        rows: Label and result of each report; None where a report has no such result.
        spoken: What the chart says, for those who cannot see it.
    """
    shown = [(label, row) for label, row in rows if row and row["status"] == "ok" and row["estimate"]]
    if not shown:
        return Markup("")
    scales = [_scale(row, (), 0, 1) for _, row in shown]
    scale = _Scale(min(s.lo for s in scales), max(s.hi for s in scales), 40, 408)
    bottom = 12.0 + 30 * len(shown)
    parts = [f'<path class="axis" d="M40 {bottom}H408"/>']
    for value in _steps(scale):
        x = scale(value)
        parts.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>')
    for place, (label, row) in enumerate(shown):
        y, null = 14.0 + 30 * place, row["null"]
        parts.append(f'<text class="label" x="0" y="{y + 4}">{escape(label)}</text>')
        parts.append(_bar(scale, row["interval"], y, 5, "bar"))
        parts.append(f'<circle class="value" cx="{scale(row["estimate"]["value"])}" cy="{y}" r="5"/>')
        if null:
            parts.append(_bar(scale, null["interval"], y + 12, 3, "null-bar"))
            parts.append(_diamond(scale(null["value"]), y + 12, 4))
    opening = Markup('<svg class="chart" viewBox="0 0 420 {}" role="img" aria-label="{}">').format(bottom + 22, spoken)
    return opening + _svg(*parts, "</svg>")


def _labelled(scale: _Scale, label: str, value: float, y: float) -> str:
    """Row label at the left, and the value written just above its mark."""
    x = scale(value)
    anchor = "start" if x < scale.left + 24 else "end" if x > scale.right - 24 else "middle"
    return (
        f'<text class="label" x="0" y="{y + 4}">{label}</text>'
        f'<text class="figure" x="{x}" y="{y - 10}" text-anchor="{anchor}">{number(value)}</text>'
    )


def power_chart(row: Row) -> Markup:
    """The power curve of a detector: how often it finds copies, by their share; empty where the facts hold no curve.

    The shares stand on a logarithmic axis. What lies left of the resolution could not have been seen.

    Args:
        row: A result as plain data, with facts named `power_at_2_percent`.
    """
    points = sorted(
        (float(found[1]), float(value))
        for name, value in row["facts"].items()
        if (found := _POWER.fullmatch(name)) and float(found[1]) > 0 and isinstance(value, (int, float))
    )
    if row["status"] != "ok" or len(points) < 3:
        return Markup("")
    scale = _Scale(math.log(points[0][0]), math.log(points[-1][0]), 92, 408)
    top, bottom = 22.0, 122.0

    def height(power: float) -> float:
        return round(bottom - (bottom - top) * min(max(power, 0.0), 1.0), 1)

    parts = []
    seen = row["resolution"]
    if seen and 0 < seen["min_detectable"] < 1:
        x = scale(math.log(100 * seen["min_detectable"]))
        anchor = "start" if x < 250 else "end"
        parts.append(f'<rect class="fails" x="92" y="{top}" width="{round(x - 92, 1)}" height="{bottom - top}"/>')
        parts.append(f'<path class="bound" d="M{x} {top}V{bottom}"/>')
        least = number(100 * seen["min_detectable"])
        parts.append(f'<text class="note" x="{x}" y="14" text-anchor="{anchor}">not seen below {least} %</text>')
    parts.append(f'<path class="axis" d="M92 {bottom}H408M92 {top}V{bottom}"/>')
    parts.append(f'<path class="null-bar" d="M92 {height(0.8)}H408"/>')
    for power in (0, 0.8, 1):
        y = height(power) + 4
        parts.append(f'<text class="tick" x="84" y="{y}" text-anchor="end">{number(power)}</text>')
    last = -math.inf
    for percent, _ in points:
        x = scale(math.log(percent))
        if x - last >= 34:
            parts.append(f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{number(percent)}</text>')
            last = x
    parts.append(f'<text class="tick" x="408" y="{bottom + 34}" text-anchor="end">copies among the samples, %</text>')
    parts.append(f'<text class="label" x="0" y="{top + 4}">found in</text>')
    line = "L".join(f"{scale(math.log(share))} {height(power)}" for share, power in points)
    parts.append(f'<path class="bar" fill="none" d="M{line}"/>')
    parts += [
        f'<circle class="value" cx="{scale(math.log(share))}" cy="{height(power)}" r="3.5"/>' for share, power in points
    ]
    spoken = "power: " + ", ".join(f"{number(power)} at {number(share)} % copies" for share, power in points)
    opening = Markup('<svg class="chart" viewBox="0 0 420 {}" role="img" aria-label="{}">').format(bottom + 40, spoken)
    return opening + _svg(*parts, "</svg>")
