"""Checks of a report format: a pure function of the report, that lets no name become markup."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medtrust import gate
from medtrust.errors import MedtrustError
from medtrust.report import TrustReport, build_report
from medtrust.testing.kit import Check, Conformance, NotApplicable, Subject, hold, require, resolve
from medtrust.testing.watching import left_alone
from medtrust.types import Estimate, Interval, Null, PluginFailure, ReportFormat, Result, TestOutcome

__all__ = ["REPORT_FORMAT_CHECKS", "REPORT_FORMAT_FLOOR", "check_report_format", "report_format_subject"]

REPORT_FORMAT_FLOOR = 5
HOSTILE = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("x")'
MARKUP = ("text/html", "image/svg+xml", "application/xml", "text/xml", "application/xhtml+xml")


def report_format_subject(
    report_format: str | ReportFormat,
    *,
    expected_failures: Mapping[str, str] | None = None,
    floor: int = REPORT_FORMAT_FLOOR,
) -> Subject:
    """Find a report format."""
    return resolve("report_format", report_format, expected=expected_failures or {}, floor=floor)


def check_report_format(report_format: str | ReportFormat, **options: Any) -> Conformance:
    """Run every check of a report format.

    Args:
        report_format: Name of an installed report format, or a `ReportFormat` that is not installed.
        options: `expected_failures`: checks that are known to fail, each with the reason. `floor`: how many checks must
            run.

    Returns:
        The account of every check.

    Raises:
        AssertionError: A check failed, one that was expected to fail passed, or too few ran.
    """
    return hold(REPORT_FORMAT_CHECKS, report_format_subject(report_format, **options))


def _report(results: Sequence[Result], hostile: str = "") -> TrustReport:
    described = {
        "n_images": 12,
        "n_patients": 6,
        "name": hostile or "images",
        "intensity": None,
        "manifest_sha256": "0" * 64,
    }
    run = {
        "tool": {"name": "medtrust", "version": "0"},
        "seed": {"root": 0, "derivation": "none"},
        "level": 0.95, "device": "cpu", "evidence": "none", "features": {}, "plugins": [], "env": {},
    }  # fmt: skip
    failures = (PluginFailure("p", "d 1", "run", hostile or "it failed", "mend it"),)
    return build_report(
        run=run, subject={"kind": "folder", "name": hostile or "fake"},
        data={"train": described, "synthetic": described}, results=results, failures=failures,
    )  # fmt: skip


def _reports() -> dict[str, dict[str, Any]]:
    full = Result(
        Estimate(1.5, "unit", "lower"), Interval(1.0, 2.0, 0.95, "bootstrap", 12), TestOutcome(2.0, 0.01, 0.02, "f"),
        Null("holdout", 0.1, Interval(0.0, 0.3, 0.95, "bootstrap", 12)), facts={"a": 1, "b": "c"}, notes=("A note.",),
        id="fidelity.full[space]", pillar="fidelity", title="Full", metric="d/full", metric_version="1",
    )  # fmt: skip
    rows = (
        full,
        Result(status="insufficient", reason="needs more", id="privacy.few", pillar="privacy", title="Few"),
        Result(status="error", reason="it broke", id="physics.broken", pillar="physics", title="Broken"),
    )
    judged = gate.judge(_report(rows), gate.load_policy("research"))
    return {"judged": judged.to_dict(), "not judged": _report(rows).to_dict(), "empty": _report(()).to_dict()}


def _render(subject: Subject, report: Mapping[str, Any], folder: Path | None = None) -> bytes:
    render = subject.load()
    content: bytes
    if folder is not None:
        content = render(report, folder)
    else:
        with TemporaryDirectory(prefix="medtrust-check-") as place:
            content = render(report, Path(place))
    require(isinstance(content, bytes), f"it returned a {type(content).__name__}, wanted bytes")
    return content


def filename_is_plain(subject: Subject) -> None:
    """The file goes into the report's folder, under a name that no other part of a report has."""
    spec: ReportFormat = subject.spec
    require(
        spec.filename and "/" not in spec.filename and "\\" not in spec.filename and spec.filename[0] != ".",
        f"filename {spec.filename!r} must be a plain name in the report's folder",
    )
    taken = {
        c.spec.filename: c.full_name
        for c in subject.host.contributions("report_format")
        if c.full_name != subject.contribution.full_name
    }
    require(spec.filename != "run.json", "run.json is written by medtrust")
    require(spec.filename not in taken, f"{spec.filename} is written by {taken.get(spec.filename)} already")
    require("/" in spec.media_type, f"media_type {spec.media_type!r} is none, such as text/csv")


def every_report_renders(subject: Subject) -> None:
    """A judged report gives a file; one that is not, or is empty, gives a file or a refusal with a sentence."""
    for what, report in _reports().items():
        try:
            content = _render(subject, report)
        except AssertionError:
            raise
        except MedtrustError as refusal:
            require(what != "judged", f"a report that is {what}: it refused with {refusal}")
            continue
        except Exception as error:
            raise AssertionError(f"a report that is {what}: it raised {type(error).__name__}: {error}") from error
        require(content, f"a report that is {what}: it rendered nothing")


def the_same_bytes_twice(subject: Subject) -> None:
    """It is a function of the report: no clock, no chance, no folder name in it."""
    report = _reports()["judged"]
    require(_render(subject, report) == _render(subject, report), "the same report gave two files")


def report_untouched(subject: Subject) -> None:
    """The report is after the call what it was before it."""
    report = _reports()["judged"]
    before = copy.deepcopy(report)
    _render(subject, report)
    require(report == before, "it changed the report it was given; work on a copy")


def folder_untouched(subject: Subject) -> None:
    """It writes nothing itself; the host writes what it returns."""
    with TemporaryDirectory(prefix="medtrust-check-") as place:
        _render(subject, _reports()["judged"], Path(place))
        left = [path.name for path in Path(place).iterdir()]
    require(not left, f"it wrote {', '.join(left)} by itself; return the bytes")


def names_are_escaped(subject: Subject) -> None:
    """Names in the report are chosen by others: none becomes markup, or a formula of a spreadsheet."""
    media = subject.spec.media_type.partition(";")[0]
    if media not in (*MARKUP, "text/csv", "text/markdown"):
        raise NotApplicable(f"{media} runs nothing")
    hostile = FORMULA if media == "text/csv" else HOSTILE
    row = Result(
        Estimate(1.0), id="fidelity.x", pillar="fidelity", title=hostile, notes=(hostile,), facts={"name": hostile},
        metric=hostile,
    )  # fmt: skip
    error = Result(status="error", reason=hostile, id="fidelity.y", pillar="fidelity", title=hostile)
    report = gate.judge(_report((row, error), hostile), gate.load_policy("research"))
    content = _render(subject, report.to_dict()).decode("utf-8", "replace")
    if media == "text/csv":
        cells = [cell.strip().strip('"') for line in content.splitlines() for cell in line.split(",")]
        require(not any(cell.startswith("=HYPERLINK") for cell in cells), "a name became a formula; put ' before it")
    else:
        require(HOSTILE not in content, "a name became a script; escape it")


def leaves_the_process_alone(subject: Subject) -> None:
    """Random states, threads, environment, functions of torch and numpy, and standard output are left alone."""
    report = _reports()["judged"]
    _render(subject, report)
    with left_alone():
        _render(subject, report)


REPORT_FORMAT_CHECKS: Sequence[Check] = tuple(
    Check(check.__name__, (check.__doc__ or "").strip(), check)
    for check in (
        filename_is_plain,
        every_report_renders,
        the_same_bytes_twice,
        report_untouched,
        folder_untouched,
        names_are_escaped,
        leaves_the_process_alone,
    )
)
