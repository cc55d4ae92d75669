"""`report.sarif`: each gate a rule and a result, for code-scanning pages that read SARIF 2.1.0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtrust.report import view
from medtrust.report.text import plain

__all__ = ["render"]

Row = Mapping[str, Any]
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LONGEST = 2000
# verdict -> (kind, level); the standard wants level "none" wherever the kind is not "fail"
_KINDS = {
    "PASS": ("pass", "none"),
    "WARN": ("fail", "warning"),
    "FAIL": ("fail", "error"),
    "INCONCLUSIVE": ("open", "none"),
    "NONE": ("notApplicable", "none"),
}


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """Render a report as SARIF 2.1.0; it shows no pictures, so `folder` plays no part.

    A gate that could not be decided has the kind "open". Results point at `report.json`, and by name at the result
    they judge; the synthetic images to look at first are named as related locations.

    Args:
        report: Plain data of a report.
        folder: The report's folder.

    Reference: OASIS SARIF 2.1.0, https://docs.oasis-open.org/sarif/sarif/v2.1.0/.
    """
    rules = list(dict.fromkeys(gate["id"] for gate in report["gates"]))
    run = {
        "tool": {"driver": _driver(report, rules)},
        "automationDetails": {"id": f"medtrust/{plain((report['policy'] or {}).get('name', 'no policy'), 80)}/"},
        "invocations": [_invocation(report)],
        "artifacts": [{"location": {"uri": "report.json"}, "description": {"text": "The report that was judged."}}],
        "results": [_result(report, gate, rules.index(gate["id"])) for gate in report["gates"]],
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": report["verdict"],
            "subject": plain(report["subject"].get("name") or "generator", 160),
            "reportSha256": report["integrity"]["sha256"],
        },
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return (json.dumps(log, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _driver(report: Row, rules: list[str]) -> Row:
    gates = {gate["id"]: gate for gate in reversed(report["gates"])}
    described = [
        {
            "id": plain(name, 80),
            "shortDescription": {"text": plain(view.rule(gates[name]), LONGEST)},
            "defaultConfiguration": {"level": "warning" if gates[name]["severity"] == "warn" else "error"},
        }
        for name in rules
    ]
    version = plain(report["run"].get("tool", {}).get("version", "unknown"), 40)
    return {"name": "medtrust", "version": version, "rules": described}


def _result(report: Row, gate: Row, index: int) -> Row:
    kind, level = _KINDS[gate["verdict"]]
    why = " ".join(plain(sentence, LONGEST) for sentence in gate["why"]) or gate["verdict"]
    name = gate["result"] + (f" in {gate['subgroup']}" if gate["subgroup"] else "")
    result: dict[str, Any] = {
        "ruleId": plain(gate["id"], 80),
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": {"text": why},
        "locations": [
            {
                # without a line, code-scanning pages refuse the file
                "physicalLocation": {
                    "artifactLocation": {"uri": "report.json", "index": 0},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": plain(name, 200), "kind": "member"}],
            }
        ],
        "partialFingerprints": {"gate/v1": _fingerprint(gate)},
        "properties": {"finding": gate["finding"], "threshold": gate["threshold"], "mode": gate["mode"]},
    }
    if gate["finding"] == "FAIL":
        suspects = [(shown, owner) for shown, owner in view.suspects(report) if owner == gate["result"]]
        related = [
            {"message": {"text": "look at this synthetic image first"}, "logicalLocations": [{"name": plain(s, 200)}]}
            for s, _ in suspects
        ]
        if related:
            result["relatedLocations"] = [{"id": i, **location} for i, location in enumerate(related, 1)]
    if gate["waiver"]:
        result["suppressions"] = [
            {
                "kind": "external",
                "status": "rejected" if gate["waiver"]["expired"] else "accepted",
                "justification": plain(gate["waiver"]["reason"], LONGEST),
            }
        ]
    return result


def _fingerprint(gate: Row) -> str:
    """The same gate on the same result keeps its identity from run to run, whatever it found."""
    identity = "\0".join((gate["id"], gate["result"], gate["subgroup"]))
    return hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()


def _invocation(report: Row) -> Row:
    failures = report["plugin_failures"]
    notices = [
        {
            "level": "error",
            "message": {
                "text": plain(f"{f['plugin']} of {f['distribution']} failed ({f['stage']}): {f['error']}", LONGEST)
            },
        }
        for f in failures
    ]
    return {
        "executionSuccessful": not failures,
        "exitCode": report["exit_code"],
        "toolExecutionNotifications": notices,
    }
