"""The built-in report formats, registered by the same road as a stranger's."""

from __future__ import annotations

from collections.abc import Iterator

from medtrust.hookspecs import hookimpl
from medtrust.types import ReportFormat

MEDTRUST_API = 1


@hookimpl
def medtrust_report_formats() -> Iterator[ReportFormat]:
    """Offer json, html and markdown."""
    yield ReportFormat(
        name="json",
        version="1",
        factory="medtrust.report.json:render",
        summary="The report itself, medtrust.report/1",
        filename="report.json",
        media_type="application/json",
    )
    yield ReportFormat(
        name="html",
        version="1",
        factory="medtrust.report.html:render",
        summary="One self-contained page without scripts",
        filename="report.html",
        media_type="text/html",
    )
    yield ReportFormat(
        name="markdown",
        version="1",
        factory="medtrust.report.markdown:render",
        summary="A summary for a pull request or a CI job",
        filename="report.md",
        media_type="text/markdown",
    )
