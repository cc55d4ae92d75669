"""`report.html`: one self-contained page without scripts, for a physician to read and a statistician to check."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from medtrust.report import charts, view
from medtrust.report.limitations import patients_known
from medtrust.report.pictures import embed
from medtrust.report.reasons import reasons
from medtrust.report.text import number, p_value, plain, quantity, sentence

__all__ = ["environment", "render", "stylesheet"]

SHOWN_FACTS = 8  # open at once, per result
SHOWN_EVIDENCE = 6  # open at once, per result
SHOWN_PROOF = 4  # pictures beside the verdict
MOST_EVIDENCE = 24  # embedded at all, per result
LONGEST_TEXT = 1500
Row = Mapping[str, Any]


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """Render a report as one HTML page.

    Args:
        report: Plain data of a report, as in `report.json`.
        folder: Where the evidence pictures lie; one that is missing is named in the page.

    Returns:
        UTF-8; the same report and pictures give the same bytes.
    """
    css, style = stylesheet()
    sections = [
        (pillar, [row for row in report["results"] if row["pillar"] == pillar.name]) for pillar in view.pillars(report)
    ]
    page = environment().get_template("report.html")
    text = page.render(
        report=report,
        css=css,
        style_hash=style,
        headline=view.headline(report),
        meaning=view.meaning(report["verdict"]),
        sections=sections,
        unexamined=view.unexamined(report),
        undecided=view.undecided(report),
        suspects=view.suspects(report),
        proof=_proof(report, folder),
        titles={row["id"]: row["title"] for row in report["results"]},
        sets=_sets(report["data"]),
        data=[(name, _flat(about)) for name, about in report["data"].items() if isinstance(about, Mapping)],
        subject_name=report["subject"].get("name") or "unnamed generator",
        tool_version=report["run"].get("tool", {}).get("version", ""),
        subject=_flat({k: v for k, v in report["subject"].items() if k != "name"}),
        provenance=_flat({k: v for k, v in report["run"].items() if k != "plugins"}),
        plugins=_plugins([row for row in report["run"].get("plugins", ()) if isinstance(row, Mapping)]),
        shows_real=any(p["contains_real"] and p["path"] for p in _pictures(report)),
        is_open=lambda row: _is_open(report, row),
        gates_of=lambda row: view.gates_of(report, row),
        worst=lambda row: view.worst([gate["verdict"] for gate in view.gates_of(report, row)]),
        chart=lambda row: charts.interval_chart(row, view.gates_of(report, row), view.value_line(row)),
        power_chart=charts.power_chart,
        small_chart=lambda row: charts.small_chart(row, view.gates_of(report, row)),
        facts=lambda row: (list(row["facts"].items())[:SHOWN_FACTS], list(row["facts"].items())[SHOWN_FACTS:]),
        evidence=lambda row: _evidence(row, folder),
    )
    return text.encode("utf-8", "backslashreplace")


def stylesheet() -> tuple[Markup, str]:
    """The style of our pages, and its SHA-256 for the page's content security policy."""
    css = _read("report.css")
    return Markup(css), base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()  # noqa: S704 - our own file


@cache
def environment() -> jinja2.Environment:
    """The template engine of our pages: it escapes everything and knows how numbers are written."""
    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters.update(
        number=number, p_value=p_value, brief=_brief, abbreviated=_abbreviated, sentence=sentence, label=_label
    )
    engine.globals.update(
        mark=charts.mark, rule=view.rule, value_line=view.value_line, quantity=quantity, slug=_slug, percent=_percent
    )
    return engine


def _read(name: str) -> str:
    return files("medtrust.report").joinpath(name).read_text("utf-8")


def _finalize(value: Any) -> Any:
    """Every text that enters the page loses its control characters; autoescape then does the rest."""
    return value if isinstance(value, (Markup, int, float)) else plain(value, LONGEST_TEXT)


def _brief(text: Any) -> str:
    return plain(text, 160)


def _abbreviated(text: str) -> str:
    """A digest by its first digits; the whole one stands under provenance."""
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else _brief(text)


def _slug(*parts: str) -> str:
    """An anchor made of letters and digits, unique through a short digest."""
    text = "/".join(parts)
    words = re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-")
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _percent(level: float) -> str:
    return f"{number(100 * level)}\u202f%"


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested plain data as (dotted name, text) rows."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            rows += _flat(item, f"{name}.")
        elif isinstance(item, list):
            rows.append((name, _words(item)))
        elif item is not None:
            rows.append((name, str(item)))
    return rows


def _sets(data: Row) -> list[dict[str, Any]]:
    """The three sets as rows of a table, a missing one included."""
    return [_set(name, data.get(name)) for name in ("train", "holdout", "synthetic")]


def _set(name: str, about: Row | None) -> dict[str, Any]:
    if not about:
        return {"name": name, "missing": True}
    span = about.get("intensity")
    patients = number(about["n_patients"]) if patients_known(about) and about.get("n_patients") else "unknown"
    return {
        "name": name,
        "missing": False,
        "images": about.get("n_images"),
        "patients": "—" if name == "synthetic" else patients,
        "modality": _words(about.get("modality")) or "not stated",
        "depth": f"{_words(about['bit_depth'])} bit" if about.get("bit_depth") else "",
        "range": f"{number(span['lo'])} to {number(span['hi'])} {span['unit']}" if span else "not declared",
    }


def _label(name: str) -> str:
    """A fact's name as words."""
    return name.replace("_", " ")


def _words(value: Any) -> str:
    """One value, or several separated by commas."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _plugins(rows: Sequence[Any]) -> list[tuple[str, str]]:
    """Plugins with their distribution, version, digest and what they contribute."""
    shown = []
    for row in rows:
        facts = [str(row[key]) for key in ("distribution", "version", "status", "failure") if row.get(key)]
        facts += [f"digest {_abbreviated(row['digest'])}"] if row.get("digest") else []
        facts += [f"{len(row['contributions'])} contributions"] if row.get("contributions") else []
        shown.append((str(row.get("name", "")), ", ".join(facts)))
    return shown


def _pictures(report: Row) -> Sequence[Row]:
    return [p for row in report["results"] for item in row["evidence"] for p in item["pictures"]]


def _is_open(report: Row, row: Row) -> bool:
    """Unfold what decided the verdict and what failed; the rest is one click away."""
    return row["status"] != "ok" or any(gate["verdict"] != "PASS" for gate in view.gates_of(report, row))


def _proof(report: Row, folder: Path) -> dict[str, Any] | None:
    """What the first screen shows: the worst gate that did not pass, its sentences and its most telling pictures."""
    found = reasons(report)
    if not found or found[0].gate["verdict"] == "WARN":
        return None
    worst = found[0]
    pictures = worst.evidence["pictures"][:SHOWN_PROOF] if worst.evidence else []
    return {
        "gate": worst.gate,
        "row": worst.row,
        "evidence": worst.evidence,
        "pictures": [(picture, embed(picture, folder)) for picture in pictures],
    }


def _evidence(row: Row, folder: Path) -> dict[str, Any]:
    ranked = sorted(row["evidence"], key=lambda item: item["rank"])
    shown = [{**item, "pictures": [(p, embed(p, folder)) for p in item["pictures"]]} for item in ranked[:MOST_EVIDENCE]]
    return {
        "first": shown[:SHOWN_EVIDENCE],
        "more": shown[SHOWN_EVIDENCE:],
        "beyond": max(0, len(ranked) - MOST_EVIDENCE),
        "total": len(ranked),
    }
