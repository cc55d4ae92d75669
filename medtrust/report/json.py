"""`report.json`: the truth, readable by people and byte-identical for the same input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtrust.errors import DataError
from medtrust.report.canonical import digest
from medtrust.report.model import TrustReport
from medtrust.report.schema import complaint

__all__ = ["read_report", "render", "to_json", "verify"]


def to_json(report: TrustReport | Mapping[str, Any]) -> bytes:
    """Serialise a report: UTF-8, two spaces of indent, one newline at the end.

    Args:
        report: A report, or its plain data.
    """
    plain = report.to_dict() if isinstance(report, TrustReport) else report
    return (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """The report format "json"; `folder` plays no part."""
    return to_json(report)


def verify(content: bytes, name: str = "report.json") -> dict[str, Any]:
    """Check that a report is whole: valid JSON, of the schema, and unchanged since it was written.

    Args:
        content: The file's bytes.
        name: How to call the file in a message.

    Returns:
        The report as plain data.

    Raises:
        DataError: It is not, with what is wrong and where.
    """
    try:
        report = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON ({error}); run the audit again") from error
    problem = complaint(report)
    if problem:
        raise DataError(f"{name} does not follow medtrust.report/1 at {problem}")
    if digest(report) != report["integrity"]["sha256"]:
        raise DataError(f"{name} was changed after it was written: its digest does not match; run the audit again")
    checked: dict[str, Any] = report
    return checked


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def read_report(path: Path | str) -> TrustReport:
    """Read a `report.json` and check it.

    Raises:
        DataError: The file cannot be read, or `verify` refuses it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the path of a report.json") from error
    return TrustReport.from_dict(verify(content, str(path)))
