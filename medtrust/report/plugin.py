"""The built-in report formats, registered by the same road as a stranger's."""

from __future__ import annotations

from collections.abc import Iterator

from medtrust.hookspecs import hookimpl
from medtrust.types import ReportFormat

MEDTRUST_API = 1


@hookimpl
def medtrust_report_formats() -> Iterator[ReportFormat]:
    """Offer json, html, markdown, junit, sarif, intoto, modelcard and badge."""
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
    yield ReportFormat(
        name="junit",
        version="1",
        factory="medtrust.report.junit:render",
        summary="Each gate as a test case, for CI systems",
        filename="report.junit.xml",
        media_type="application/xml",
    )
    yield ReportFormat(
        name="sarif",
        version="1",
        factory="medtrust.report.sarif:render",
        summary="Each gate as a finding, SARIF 2.1.0, for code-scanning pages",
        filename="report.sarif",
        media_type="application/sarif+json",
    )
    yield ReportFormat(
        name="intoto",
        version="1",
        factory="medtrust.report.intoto:render",
        summary="An unsigned in-toto statement, predicate test-result",
        filename="report.intoto.json",
        media_type="application/vnd.in-toto+json",
    )
    yield ReportFormat(
        name="modelcard",
        version="1",
        factory="medtrust.report.modelcard:render",
        summary="A model-card snippet with model-index front matter",
        filename="model-card.md",
        media_type="text/markdown",
    )
    yield ReportFormat(
        name="badge",
        version="1",
        factory="medtrust.report.badge:render",
        summary="The verdict as a small picture",
        filename="badge.svg",
        media_type="image/svg+xml",
    )
