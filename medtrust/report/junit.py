"""`report.junit.xml`: each gate a test case, so that every CI system shows the verdict as it shows tests."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtrust.report import view
from medtrust.report.text import plain

__all__ = ["render"]

Row = Mapping[str, Any]
LONGEST = 2000


def render(report: Mapping[str, Any], folder: Path) -> bytes:
    """Render a report as JUnit XML; it shows no pictures, so `folder` plays no part.

    A gate that could not be decided is a failure of type "inconclusive": a skipped case shows green in most systems.
    A result that no gate asks for is a case of the second suite: an error where its metric crashed, skipped where it
    had no answer. There are no times, so that the same report gives the same bytes.

    Args:
        report: Plain data of a report.
        folder: The report's folder.

    Reference: the Jenkins xUnit schema junit-10.xsd.
    """
    root = ET.Element("testsuites", name=plain(f"medtrust {report['subject'].get('name') or 'generator'}", 160))
    gated = {(gate["result"], gate["subgroup"]) for gate in report["gates"]}
    strict = bool((report["policy"] or {}).get("strict"))
    gates = _suite(root, "gates")
    for gate in report["gates"]:
        _gate_case(gates, gate, strict)
    if not report["gates"]:
        _child(_case(gates, "policy", "verdict"), "skipped", message="No policy was applied.")
    results = _suite(root, "results")
    for row in report["results"]:
        if (row["id"], row["subgroup"]) not in gated:
            _result_case(results, row)
    for suite in (gates, results):
        _count(suite)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _suite(root: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(root, "testsuite", name=f"medtrust.{name}")


def _case(suite: ET.Element, classname: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=plain(classname, 200), name=plain(name, 200))


def _child(case: ET.Element, tag: str, text: str = "", **attributes: str) -> None:
    ET.SubElement(case, tag, {key: plain(value, LONGEST) for key, value in attributes.items()}).text = text or None


def _gate_case(suite: ET.Element, gate: Row, strict: bool) -> None:
    subgroup = f" in {gate['subgroup']}" if gate["subgroup"] else ""
    case = _case(suite, gate["result"], f"{gate['id']}{subgroup}")
    why = "\n".join(plain(sentence, LONGEST) for sentence in gate["why"])
    proof = f"{view.rule(gate)}\n{why}"
    first = str(gate["why"][0]) if gate["why"] else gate["verdict"]
    verdict = gate["verdict"]
    if verdict in ("FAIL", "INCONCLUSIVE") or (verdict == "WARN" and strict):
        _child(case, "failure", proof, message=first, type=verdict.lower())
    else:
        _child(case, "system-out", f"{verdict}\n{proof}")


def _result_case(suite: ET.Element, row: Row) -> None:
    subgroup = f" in {row['subgroup']}" if row["subgroup"] else ""
    case = _case(suite, row["metric"] or row["pillar"], f"{row['id']}{subgroup}")
    if row["status"] == "error":
        _child(case, "error", message=row["reason"], type="plugin")
    elif row["status"] != "ok":
        _child(case, "skipped", message=f"{row['status']}: {row['reason']}")
    else:
        _child(case, "system-out", view.value_line(row))


def _count(suite: ET.Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
