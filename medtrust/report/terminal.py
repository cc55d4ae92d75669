"""What the terminal shows when an audit is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medtrust.report import view
from medtrust.report.model import TrustReport
from medtrust.report.text import plain

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["summary"]

STYLES = {
    "PASS": "bold green",
    "WARN": "bold yellow",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold magenta",
    "NONE": "dim",
}
SIGNS = {"PASS": "●", "WARN": "▲", "FAIL": "✖", "INCONCLUSIVE": "◆", "NONE": "▫"}


def summary(report: TrustReport | Mapping[str, Any], where: str = "") -> Text:
    """Sum up a report for a terminal: verdict, pillars, gates with reasons, suspected copies.

    Args:
        report: A report, or its plain data.
        where: Path of the written report, shown last.

    Returns:
        A rich text; `console.print(summary(report))` colours it, `summary(report).plain` is without colour.
    """
    from rich.text import Text

    plain_report = report.to_dict() if isinstance(report, TrustReport) else report
    text = Text(overflow="fold")
    verdict = plain_report["verdict"]
    text.append(f"{SIGNS[verdict]} {'NOT JUDGED' if verdict == 'NONE' else verdict}", STYLES[verdict])
    text.append(f"  {plain(plain_report['subject'].get('name') or 'generator', 100)}\n")
    text.append(f"{view.headline(plain_report)}\n\n")
    for pillar in view.pillars(plain_report):
        text.append(f"  {SIGNS[pillar.verdict]} ", STYLES[pillar.verdict])
        text.append(f"{plain(pillar.name, 20):<12}", "bold")
        text.append(f"{plain(pillar.row['title'] or pillar.row['id'], 60)}: {pillar.line}\n")
    if plain_report["gates"]:
        text.append("\n")
    names = [gate["id"] for gate in plain_report["gates"]]
    for gate in plain_report["gates"]:
        text.append(f"  {SIGNS[gate['verdict']]} {gate['verdict']:<13}", STYLES[gate["verdict"]])
        # one gate on several feature spaces gives a line for each
        which = f" of {plain(gate['result'], 60)}" if names.count(gate["id"]) > 1 else ""
        text.append(f"{plain(gate['id'], 60)}{which}: ", "bold")
        text.append(f"{plain(' '.join(gate['why']))}\n")
    suspects = view.suspects(plain_report)
    if suspects:
        text.append("\n  Look first at ")
        text.append(", ".join(plain(name, 80) for name, _ in suspects), "bold")
        text.append("\n")
    gated = {gate["result"] for gate in plain_report["gates"]}
    silent: dict[tuple[str, str], list[str]] = {}
    for row in plain_report["results"]:
        if row["status"] != "ok" and row["id"] not in gated:
            silent.setdefault((row["status"], plain(row["reason"])), []).append(plain(row["id"], 80))
    for (status, reason), ids in silent.items():
        text.append(f"\n  {', '.join(ids)}: {status}, {reason}\n")
    if where:
        text.append("\nReport: ")
        text.append(plain(where), "underline")
        text.append("\n")
    return text
