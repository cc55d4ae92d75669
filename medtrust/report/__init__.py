"""The trust report: `report.json` is the truth, every other format is a pure function of it."""

from __future__ import annotations

from medtrust.report.json import read_report, to_json, verify
from medtrust.report.model import SCHEMA, VERDICTS, GateOutcome, TrustReport, Verdict, build_report

__all__ = [
    "SCHEMA",
    "VERDICTS",
    "GateOutcome",
    "TrustReport",
    "Verdict",
    "build_report",
    "read_report",
    "to_json",
    "verify",
]
