"""The proof of a verdict: from each result through its gate to the exit code, one step a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medtrust.report import view
from medtrust.report.text import plain

__all__ = ["proof"]

Row = Mapping[str, Any]
LONGEST = 2000


def proof(report: Row) -> str:
    """Write down why a report has its verdict.

    Args:
        report: Plain data of a judged report.

    Returns:
        Lines of text, without colour and without control characters.
    """
    return "\n".join(_lines(report))


def _lines(report: Row) -> Iterator[str]:
    rows = {(row["id"], row["subgroup"]): row for row in report["results"]}
    for number, gate in enumerate(report["gates"], 1):
        subgroup = f" in {plain(gate['subgroup'], 80)}" if gate["subgroup"] else ""
        yield f"{number}. {plain(gate['id'], 80)}{subgroup}: {gate['verdict']}"
        yield f"   asks      {view.rule(gate)}"
        row = rows.get((gate["result"], gate["subgroup"]))
        yield f"   measured  {view.value_line(row) if row else 'no such result'}"
        if row and row["interval"]:
            about = row["interval"]
            yield f"   interval  {plain(about['method'], 200)}, {about['n_units']} {plain(about['unit'], 40)}s"
        if row and row["resolution"]:
            yield f"   could see {plain(row['resolution']['sentence'], 300)}"
        if row and row["selftest"]:
            yield f"   self-test {row['selftest']['status']}: {plain(row['selftest']['detail'], 300)}"
        yield f"   finding   {gate['finding']}"
        yield from (f"   because   {plain(sentence, LONGEST)}" for sentence in gate["why"])
    yield from _conclusion(report)


def _conclusion(report: Row) -> Iterator[str]:
    if not report["gates"]:
        yield "No policy was applied, so there is no verdict."
        return
    verdict = report["verdict"]
    worst = list(dict.fromkeys(plain(g["id"], 80) for g in report["gates"] if g["verdict"] == verdict))
    policy = report["policy"]
    yield f"Verdict {verdict}: the worst gate decides, here {', '.join(worst)}."
    strict = "; strict, so a warning exits 1" if policy.get("strict") else ""
    yield f"Policy {plain(policy['name'], 80)} (SHA-256 {policy['sha256']}){strict}. Exit code {report['exit_code']}."
