"""Check what lies beside a report: its pictures and its renderings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medtrust.errors import DataError
from medtrust.report.pictures import embed
from medtrust.report.text import plain

__all__ = ["check_folder"]

Renderer = Callable[[Mapping[str, Any], Path], bytes]


def check_folder(report: Mapping[str, Any], folder: Path, renderers: Mapping[str, Callable[[], Renderer]]) -> list[str]:
    """Hold every picture and rendering in a report's folder against the report.

    Args:
        report: Plain data of a report that `read_report` has accepted: its schema and digest are right.
        folder: Where it lies.
        renderers: For each file name a function that loads its renderer.

    Returns:
        A line for each thing that was checked.

    Raises:
        DataError: A picture is missing or another one, or a rendering is not what the report gives; names them all.
    """
    wrong = [*_pictures(report, folder)]
    shown = sum(bool(p["path"]) for p in _all_pictures(report))
    lines = [f"report.json: schema {report['schema']}, SHA-256 {report['integrity']['sha256']} as stated"]
    if shown:
        lines.append(f"evidence: {shown} pictures, each with the digest that the report states")
    for name, load in sorted(renderers.items()):
        path = folder / name
        if name == "report.json" or not path.is_file():
            continue
        if path.read_bytes() == load()(report, folder):
            lines.append(f"{name}: what this report gives, byte for byte")
        else:
            wrong.append(f"{name} is not what this report gives (changed, or written by another version)")
    if wrong:
        raise DataError(f"{folder} does not hold together: {'; '.join(wrong)}; render it again with `medtrust report`")
    return lines


def _all_pictures(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [p for row in report["results"] for item in row["evidence"] for p in item["pictures"]]


def _pictures(report: Mapping[str, Any], folder: Path) -> Iterator[str]:
    for picture in _all_pictures(report):
        if picture["path"] and (problem := embed(picture, folder).problem):
            yield plain(problem, 300)
