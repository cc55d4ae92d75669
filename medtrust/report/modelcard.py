"""`model-card.md`: the part of a Hugging Face model card that carries the figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medtrust.report import view
from medtrust.report.markdown import escape
from medtrust.report.text import plain

__all__ = ["render"]

Row = Mapping[str, Any]


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """Render a report as a model-card snippet: `model-index` as YAML front matter, then a short text.

    Only results with an estimate enter the index; the text gives their intervals, which the index has no field for.

    Args:
        report: Plain data of a report.
        folder: The report's folder; plays no part.

    Reference: the `model-index` specification of the Hugging Face Hub's model cards.
    """
    return ("\n".join(_lines(report)) + "\n").encode("utf-8", "backslashreplace")


def _lines(report: Row) -> Iterator[str]:
    name = plain(report["subject"].get("name") or "generator", 160)
    shown = [row for row in report["results"] if row["status"] == "ok" and row["estimate"] and not row["subgroup"]]
    real = report["data"].get("train") or {}
    modality = real.get("modality") or "medical images"
    modality = ", ".join(map(str, modality)) if isinstance(modality, list) else str(modality)
    digest = str(real.get("manifest_sha256", ""))
    if shown:
        yield "---"
        yield "model-index:"
        yield f"- name: {_scalar(name)}"
        yield "  results:"
        yield "  - task:"
        yield "      type: unconditional-image-generation"
        yield "    dataset:"
        yield f"      name: {_scalar(f'train set of {modality}')}"
        yield f"      type: {_scalar(f'sha256:{digest}' if digest else 'private')}"
        yield "    metrics:"
        for row in shown:
            yield f"    - type: {_scalar(row['id'])}"
            yield f"      value: {json.dumps(row['estimate']['value'])}"
            yield f"      name: {_scalar(row['title'] or row['id'])}"
        yield "---"
        yield ""
    yield f"## Trust report: {'not judged' if report['verdict'] == 'NONE' else report['verdict']}"
    yield ""
    yield escape(view.headline(report))
    yield ""
    yield "| Result | Value |"
    yield "|---|---|"
    yield from (f"| {escape(row['title'] or row['id'], 160)} | {escape(view.value_line(row))} |" for row in shown)
    yield ""
    yield "### Limitations"
    yield ""
    yield from (f"- {escape(sentence)}" for sentence in report["limitations"])
    yield ""
    version = escape(str(report["run"].get("tool", {}).get("version", "")), 40)
    yield f"Measured by medtrust {version}; report.json, RFC 8785, SHA-256 `{report['integrity']['sha256']}`."


def _scalar(text: Any) -> str:
    """A YAML scalar; every JSON string is one, and none can break out of its quotes."""
    return json.dumps(plain(text, 200), ensure_ascii=True).replace("<", "\\u003c")  # no tag, for whom it is text
