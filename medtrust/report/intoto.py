"""`report.intoto.json`: an in-toto statement that the generator was tested, ready to be signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError
from medtrust.report.text import plain

__all__ = ["render"]

Row = Mapping[str, Any]
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
# what could not be decided is not a pass: an attestation has no third answer
_RESULTS = {"PASS": "PASSED", "WARN": "WARNED", "FAIL": "FAILED", "INCONCLUSIVE": "FAILED"}
_LISTS = {"PASSED": "passedTests", "WARNED": "warnedTests", "FAILED": "failedTests"}


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """Render a judged report as an in-toto statement with the test-result predicate; it is not signed.

    The subject is the generator's artifact by its digest, or the synthetic set by that of its manifest. Sign it with
    the tool your pipeline uses (cosign, in-toto, witness); `report.json` itself is named in the configuration.

    Args:
        report: Plain data of a report.
        folder: The report's folder; plays no part.

    Raises:
        ConfigError: The report was not judged, or nothing in it has a digest.

    Reference: in-toto attestation framework, predicate test-result v0.1.
    """
    if report["verdict"] == "NONE":
        raise ConfigError("a report that no policy has judged cannot be attested; run `medtrust gate` on it first")
    lists: dict[str, list[str]] = {name: [] for name in _LISTS.values()}
    for gate in report["gates"]:
        name = gate["id"] + (f" in {gate['subgroup']}" if gate["subgroup"] else "")
        lists[_LISTS[_RESULTS[gate["verdict"]]]].append(plain(f"{name}: {gate['result']}", 300))
    policy = report["policy"]
    if not policy:
        raise ConfigError("no policy was applied to this report: nothing to attest; judge it with `medtrust gate`")
    predicate: dict[str, Any] = {
        "result": _RESULTS[report["verdict"]],
        "configuration": [
            {"name": plain(f"policy {policy['name']}", 160), "digest": {"sha256": policy["sha256"]}},
            {"name": "report.json (RFC 8785)", "digest": {"sha256": report["integrity"]["sha256"]}},
        ],
        **lists,
    }
    statement = {
        "_type": STATEMENT,
        "subject": [_subject(report)],
        "predicateType": PREDICATE,
        "predicate": predicate,
    }
    return (json.dumps(statement, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _subject(report: Row) -> Row:
    name = plain(report["subject"].get("name") or "generator", 160)
    artifact = report["subject"].get("artifact")
    if isinstance(artifact, Mapping) and artifact.get("sha256"):
        return {"name": name, "digest": {"sha256": artifact["sha256"]}}
    synthetic = report["data"].get("synthetic") or {}
    if synthetic.get("manifest_sha256"):
        return {"name": f"{name} (synthetic set)", "digest": {"sha256": synthetic["manifest_sha256"]}}
    raise ConfigError("neither the generator nor the synthetic set has a digest in this report: nothing to attest")
