"""`badge.svg`: the verdict as a small picture for a README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["render"]

# colours with a contrast of at least 4.5 to white
_COLOURS = {"PASS": "#17663f", "WARN": "#7d4e00", "FAIL": "#9c1f2b", "INCONCLUSIVE": "#484791", "NONE": "#5a616d"}
_LEFT = 66
_PER_LETTER = 7.4


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """Render the verdict as an SVG badge with the verdict as its text and its accessible name.

    Args:
        report: Plain data of a report.
        folder: The report's folder; plays no part.
    """
    word = {"NONE": "NOT JUDGED"}.get(report["verdict"], report["verdict"])
    right = round(len(word) * _PER_LETTER + 18)
    width = _LEFT + right
    text = 'font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" fill="#fff" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
        f'aria-label="medtrust: {word}">\n'
        f"<title>medtrust: {word}</title>\n"
        f'<clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>\n'
        f'<g clip-path="url(#r)"><rect width="{_LEFT}" height="20" fill="#3a3f47"/>'
        f'<rect x="{_LEFT}" width="{right}" height="20" fill="{_COLOURS[report["verdict"]]}"/></g>\n'
        f'<text x="{_LEFT / 2:g}" y="14" {text}>medtrust</text>\n'
        f'<text x="{_LEFT + right / 2:g}" y="14" font-weight="bold" {text}>{word}</text>\n'
        "</svg>\n"
    ).encode()
