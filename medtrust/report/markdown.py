"""`report.md`: the summary for a pull request or a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medtrust.report import view
from medtrust.report.text import number, plain

__all__ = ["escape", "render"]

SIGNS = {"PASS": "✅", "WARN": "⚠️", "FAIL": "❌", "INCONCLUSIVE": "❔", "NONE": "▫️"}
LONGEST = 400
LARGEST = 1_000_000  # GitHub refuses a step summary beyond 1 MiB
Row = Mapping[str, Any]


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """Render a report as GitHub-flavoured Markdown below 1 MiB; it shows no pictures, so `folder` plays no part.

    Args:
        report: Plain data of a report.
        folder: The report's folder.
    """
    seal = f"report.json, RFC 8785, SHA-256 `{report['integrity']['sha256']}`"
    kept: list[bytes] = []
    room = LARGEST
    lines = [line.encode("utf-8", "backslashreplace") for line in _lines(report)]
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            shown = f"{number(len(kept))} of {number(len(lines))} lines"
            # what a cut leaves open is closed, so that the note is seen
            kept += [
                b"",
                b"</details>",
                b"",
                f"**Cut at the size that CI systems take: {shown}; read report.json.**".encode(),
            ]
            break
        kept.append(line)
    return b"\n".join([*kept, b"", seal.encode()]) + b"\n"


def _lines(report: Row) -> Iterator[str]:
    verdict = report["verdict"]
    subject = escape(report["subject"].get("name") or "generator", 160)
    yield f"# {SIGNS[verdict]} {'NOT JUDGED' if verdict == 'NONE' else verdict}: {subject}"
    yield ""
    yield escape(view.headline(report))
    yield ""
    yield f"_{view.meaning(verdict)}_"
    suspects = view.suspects(report)
    if suspects:
        yield ""
        yield f"**Look first at** {', '.join(escape(name) for name, _ in suspects)}."
    yield ""
    yield "| Set | Images | Patients |"
    yield "|---|---:|---:|"
    for name in ("train", "holdout", "synthetic"):
        about = report["data"].get(name) or {}
        yield f"| {name} | {_count(about.get('n_images'))} | {_count(about.get('n_patients'))} |"
    yield ""
    yield "| Pillar | Verdict | What was found |"
    yield "|---|---|---|"
    for pillar in view.pillars(report):
        word = pillar.verdict if pillar.gated else "not gated"
        title = escape(pillar.row["title"] or pillar.row["id"], 160)
        yield f"| {escape(pillar.name)} | {SIGNS[pillar.verdict]} {word} | **{title}**: {escape(pillar.line)} |"
    missing = view.unexamined(report)
    if missing:
        yield ""
        yield f"Not examined: {', '.join(missing)}."
    yield from _gates(report)
    undecided = view.undecided(report)
    if undecided:
        yield ""
        yield "## What could not be decided"
        yield ""
        yield from (f"- **{escape(name, 160)}**: {escape(why)}" for name, why in undecided)
    yield ""
    yield "<details><summary>All results</summary>"
    yield ""
    yield "| Result | Value |"
    yield "|---|---|"
    for row in report["results"]:
        name = escape(row["id"], 160) + (f" in {escape(row['subgroup'], 80)}" if row["subgroup"] else "")
        yield f"| {name} | {escape(view.value_line(row))} |"
    yield ""
    yield "</details>"
    yield ""
    yield "<details><summary>Limitations</summary>"
    yield ""
    yield from (f"- {escape(sentence)}" for sentence in report["limitations"])
    yield ""
    yield "</details>"


def _gates(report: Row) -> Iterator[str]:
    if not report["gates"]:
        return
    yield ""
    yield "| Gate | Verdict | Why |"
    yield "|---|---|---|"
    for gate in report["gates"]:
        why = " ".join(escape(sentence) for sentence in gate["why"])
        asks = f"**{escape(gate['id'], 80)}**<br>{escape(view.rule(gate))}"
        yield f"| {asks} | {SIGNS[gate['verdict']]} {gate['verdict']} | {why} |"


def _count(value: Any) -> str:
    return number(value) if isinstance(value, int) else "—"


def escape(text: object, longest: int = LONGEST) -> str:
    """Escape whatever Markdown or HTML could take for markup, a link, a mention or a table border."""
    shown = plain(text, longest).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = re.sub(r"([\\`*_{}\[\]#!|~$=])", r"\\\1", shown)
    return re.sub(r"@(?=\w)", "&#64;", shown).replace("://", "&#58;//").replace("www.", "www&#46;")
