"""What every rendering says first: the verdict in a sentence, a line per pillar, and what stayed undecided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtrust.report.model import VERDICTS
from medtrust.report.text import number, p_value, plain, quantity
from medtrust.types import PILLARS

__all__ = [
    "QUESTIONS",
    "PillarView",
    "gates_of",
    "headline",
    "meaning",
    "pillars",
    "rule",
    "suspects",
    "undecided",
    "unexamined",
    "value_line",
    "worst",
]

Row = Mapping[str, Any]

QUESTIONS = {
    "fidelity": "Do the images look like real ones?",
    "diversity": "Do they show the variety of real patients?",
    "privacy": "Were training patients copied?",
    "explanation": "What gives them away?",
    "equity": "Does it hold for every subgroup?",
    "utility": "Are they of use for the task?",
    "physics": "Are they physically plausible?",
}
_MEANING = {
    "PASS": "Everything this policy asks for was shown on these images.",
    "WARN": "Nothing that blocks was found; read the warnings before using these images.",
    "FAIL": "At least one requirement of this policy is shown to be broken.",
    "INCONCLUSIVE": "The evidence suffices neither to trust nor to reject; what is not shown does not pass.",
    "NONE": "The numbers below were measured and not judged.",
}


@dataclass(frozen=True, slots=True)
class PillarView:
    """One pillar on the first screen.

    Args:
        name: fidelity, diversity …
        question: What it asks, in plain words.
        verdict: The worst verdict of its gates; NONE where no gate asks.
        row: The result that says most, and which the small picture shows.
        line: That result in one line.
        gated: How many gates asked.
        answered: How many of its results could be computed, and how many there are.
    """

    name: str
    question: str
    verdict: str
    row: Row
    line: str
    gated: int
    answered: tuple[int, int]


def worst(verdicts: Sequence[str]) -> str:
    """The worst of some verdicts; NONE of none."""
    order: tuple[str, ...] = VERDICTS
    return min(verdicts, key=order.index, default="NONE")


def headline(report: Row) -> str:
    """The verdict in one sentence."""
    gates: Sequence[Row] = report["gates"]
    if not gates:
        return "No policy was applied."
    name = plain(report["policy"]["name"], 80)
    groups = {v: list(dict.fromkeys(plain(g["id"], 60) for g in gates if g["verdict"] == v)) for v in VERDICTS}
    total = len({g["id"] for g in gates})
    verbs = {"FAIL": "failed", "INCONCLUSIVE": "could not be decided", "WARN": "warned"}
    said = [f"{len(names)} {verbs[v]} ({', '.join(names)})" for v, names in groups.items() if names and v in verbs]
    passed = "all passed" if not said else "the others passed"
    if not groups["PASS"] and said:
        passed = "none passed"
    return f"Of {total} gates in policy {name}, {'; '.join([*said, passed])}."


def meaning(verdict: str) -> str:
    """What a verdict means, for somebody who reads one for the first time."""
    return _MEANING[verdict]


def gates_of(report: Row, row: Row) -> list[Row]:
    """The judged gates of one result."""
    return [g for g in report["gates"] if (g["result"], g["subgroup"]) == (row["id"], row["subgroup"])]


def rule(gate: Row) -> str:
    """What a gate asks, as a formula: `privacy.cpm: p_adj ≥ 0.01`."""
    name = plain(gate["result"], 120) + (f" in {plain(gate['subgroup'], 60)}" if gate["subgroup"] else "")
    if gate["mode"] == "nonregression":
        return f"{name}: not worse than the baseline by more than {number(gate['threshold'])}"
    sign = {"<=": "≤", ">=": "≥"}.get(gate["op"], gate["op"])
    how = {"ci": ", by interval", "point": ", by value", "test": ""}[gate["mode"]]
    return f"{name}: {plain(gate['field'], 80)} {sign} {number(gate['threshold'])}{how}"


def value_line(row: Row) -> str:
    """A result in one line: estimate, interval, reference and p-value."""
    if row["status"] != "ok":
        return f"{row['status']}: {plain(row['reason'], 300)}"
    parts = []
    if row["estimate"]:
        text = quantity(row["estimate"]["value"], row["estimate"]["unit"])
        if row["interval"]:
            text += f" ({number(row['interval']['lo'])} to {number(row['interval']['hi'])})"
        parts.append(text)
    if row["null"]:
        parts.append(f"real against real {number(row['null']['value'])}")
    if row["test"]:
        p = p_value(row["test"]["p_adj"])
        parts.append(f"adjusted p {p}" if p.startswith("<") else f"adjusted p = {p}")
    return ", ".join(parts) or "shown below"


def pillars(report: Row) -> list[PillarView]:
    """One view per pillar that has results, in the usual order."""
    views = []
    for name in dict.fromkeys([*PILLARS, *(row["pillar"] for row in report["results"])]):
        rows = [row for row in report["results"] if row["pillar"] == name]
        if not rows:
            continue
        chosen = min(rows, key=lambda row: _telling(report, row))
        gates = [gate for row in rows for gate in gates_of(report, row)]
        views.append(
            PillarView(
                name=name,
                question=QUESTIONS.get(name, ""),
                verdict=worst([gate["verdict"] for gate in gates]),
                row=chosen,
                line=value_line(chosen),
                gated=len(gates),
                answered=(sum(row["status"] == "ok" for row in rows), len(rows)),
            )
        )
    return views


def _telling(report: Row, row: Row) -> tuple[int, bool, bool]:
    """Rank of a result within its pillar: the worst verdict first, then what was answered, with an interval."""
    order: tuple[str, ...] = VERDICTS
    verdict = worst([gate["verdict"] for gate in gates_of(report, row)])
    return order.index(verdict), row["status"] != "ok", row["interval"] is None


def unexamined(report: Row) -> list[str]:
    """Pillars that no result speaks to."""
    seen = {row["pillar"] for row in report["results"]}
    return [name for name in PILLARS if name not in seen]


def undecided(report: Row) -> list[tuple[str, str]]:
    """What could not be decided: (name, why), gates first, each result once."""
    found: dict[str, tuple[str, str]] = {}
    for gate in report["gates"]:
        if gate["finding"] == "INCONCLUSIVE":
            why = gate["why"][0].removeprefix("INCONCLUSIVE because ").removeprefix("INCONCLUSIVE ")
            found[gate["result"] + gate["subgroup"]] = (gate["id"], why)
    for row in report["results"]:
        if row["status"] != "ok" and row["id"] + row["subgroup"] not in found:
            found[row["id"] + row["subgroup"]] = (row["title"] or row["id"], row["reason"])
    return list(found.values())


def suspects(report: Row, most: int = 5) -> list[tuple[str, str]]:
    """The head of the evidence of results whose gate failed: (name of the synthetic image, result id), each once."""
    items = [
        (item["rank"], row["id"], item)
        for row in report["results"]
        if any(gate["finding"] == "FAIL" for gate in gates_of(report, row))
        for item in row["evidence"]
    ]
    found: dict[str, str] = {}
    for _, result, item in sorted(items, key=lambda entry: entry[:2]):
        own = [p["name"] for p in item["pictures"] if p["name"] and [s[0] for s in p["sources"]] == ["synthetic"]]
        found.setdefault(own[0] if own else item["title"], result)
    return list(found.items())[:most]
