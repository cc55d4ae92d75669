"""Why the verdict: for each gate that did not pass, the sentences that prove it and the evidence to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medtrust.report.text import number, plain

__all__ = ["Reason", "explanation", "reasons"]

Row = Mapping[str, Any]
_WORST_FIRST = ("FAIL", "INCONCLUSIVE", "WARN")


@dataclass(frozen=True, slots=True)
class Reason:
    """One gate that did not pass.

    Args:
        gate: The judged gate.
        row: The result it was judged on; None where the policy asked for a result that does not exist.
        evidence: What to look at first; None where the result shows nothing.
    """

    gate: Row
    row: Row | None
    evidence: Row | None


def reasons(report: Row) -> list[Reason]:
    """Gates that did not pass, the worst first, those with something to look at before those without.

    Args:
        report: Plain data of a judged report.
    """
    rows = {(row["id"], row["subgroup"]): row for row in report["results"]}
    found = []
    for gate in report["gates"]:
        if gate["verdict"] not in _WORST_FIRST:
            continue
        row = rows.get((gate["result"], gate["subgroup"]))
        shown = sorted(row["evidence"], key=lambda item: item["rank"]) if row else []
        found.append(Reason(gate, row, shown[0] if shown else None))
    return sorted(found, key=lambda r: (_WORST_FIRST.index(r.gate["verdict"]), r.evidence is None))


def explanation(report: Row) -> str:
    """What to look at and what gives the images away, as plain text.

    Args:
        report: Plain data of a report.
    """
    lines = []
    shown = [reason for reason in reasons(report) if reason.evidence is not None]
    if shown:
        lines.append("Look first at:")
        lines += [f"  {plain(r.gate['id'], 80)}: {_told(r.evidence)}" for r in shown if r.evidence is not None]
    explained = [row for row in report["results"] if row["pillar"] == "explanation"]
    if explained:
        lines.append("What gives the images away:")
        lines += [f"  {line}" for row in explained for line in _explanation(row)]
    return "\n".join(lines)


def _told(item: Row) -> str:
    facts = ", ".join(f"{plain(k.replace('_', ' '), 40)} {_value(v)}" for k, v in item["facts"].items())
    names = ", ".join(plain(p["name"], 80) for p in item["pictures"] if p["name"])
    return ". ".join(part for part in (plain(item["title"], 200), facts, names) if part)


def _value(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else plain(value, 120)


def _explanation(row: Row) -> list[str]:
    title = plain(row["title"] or row["id"], 160)
    if row["status"] != "ok":
        return [f"{title}: {plain(row['reason'], 400)}"]
    bounds = row["interval"]
    value = f"{number(row['estimate']['value'])} {plain(row['estimate']['unit'], 40)}" if row["estimate"] else ""
    lines = [f"{title}: {value}" + (f" ({number(bounds['lo'])} to {number(bounds['hi'])})" if bounds else "")]
    lines += [f"  if {plain(v, 300)}" for k, v in row["facts"].items() if k.startswith("rule_")]
    first = min(row["evidence"], key=lambda item: item["rank"], default=None)
    if first is not None and first["kind"] == "heat map":
        lines.append(f"  {plain(first['pictures'][-1]['alt'], 300)}")
    return lines
