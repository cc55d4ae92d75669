"""JUnit, SARIF, in-toto, model card and badge: valid, faithful, and safe from hostile names."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from lxml import etree

from medtrust.errors import ConfigError, DataError
from medtrust.gate import judge, load_policy
from medtrust.report import badge, build_report, intoto, junit, modelcard, sarif, to_json
from medtrust.report.integrity import check_folder
from medtrust.report.proof import proof
from medtrust.types import Estimate, Result

SCHEMAS = Path(__file__).parent.parent / "data" / "schemas"
NOWHERE = Path("/elsewhere")


@pytest.fixture(scope="module")
def junit_schema() -> etree.XMLSchema:
    """The Jenkins xUnit schema."""
    return etree.XMLSchema(etree.parse(SCHEMAS / "junit-10.xsd"))


@pytest.fixture(scope="module")
def sarif_schema() -> jsonschema.Draft4Validator:
    """The OASIS schema."""
    return jsonschema.Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0.json").read_text()))


def test_junit_follows_its_schema_and_counts_right(case, junit_schema):
    """Every gate is a case; what failed or stayed open is red, and the counts say so."""
    _, report, _ = case
    content = junit.render(report.to_dict(), NOWHERE)
    junit_schema.assertValid(etree.fromstring(content))
    gates, results = ET.fromstring(content)
    assert len(gates) == len(report.gates)
    red = [g for g in report.gates if g.verdict in ("FAIL", "INCONCLUSIVE")]
    assert int(gates.get("failures")) == len(red) == len(gates.findall("testcase/failure"))
    assert int(results.get("errors")) == sum(r.status == "error" for r in report.results)
    assert {c.find("failure").get("type") for c in gates if c.find("failure") is not None} == {
        g.verdict.lower() for g in red
    }


def test_an_open_gate_is_red_in_junit_and_open_in_sarif():
    """INCONCLUSIVE is neither green nor skipped."""
    bare = Result(estimate=Estimate(1.0), id="fidelity.fd[x]", pillar="fidelity")
    report = judge(build_report(run={}, subject={}, data={}, results=[bare], failures=()), load_policy("research"))
    assert report.verdict == "INCONCLUSIVE"
    suite = ET.fromstring(junit.render(report.to_dict(), NOWHERE))[0]
    types = [failure.get("type") for failure in suite.findall("testcase/failure")]
    assert "inconclusive" in types
    assert not suite.findall("testcase/skipped")
    kinds = {r["kind"] for r in json.loads(sarif.render(report.to_dict(), NOWHERE))["runs"][0]["results"]}
    assert "open" in kinds


def test_a_warning_is_red_in_junit_only_when_strict(case):
    """--strict makes a warning block, so its case is red too."""
    _, report, _ = case
    loose = ET.fromstring(junit.render(report.to_dict(), NOWHERE))
    strict = replace(report, policy={**report.policy, "strict": True})
    tight = ET.fromstring(junit.render(strict.to_dict(), NOWHERE))
    warned = sum(g.verdict == "WARN" for g in report.gates)
    assert len(tight.findall(".//failure")) == len(loose.findall(".//failure")) + warned


def test_sarif_follows_its_schema(case, sarif_schema):
    """One result per gate with kind and level that the standard allows, pointing at rules that exist."""
    name, report, _ = case
    log = json.loads(sarif.render(report.to_dict(), NOWHERE))
    sarif_schema.validate(log)
    (run,) = log["runs"]
    assert len(run["results"]) == len(report.gates)
    for result, gate in zip(run["results"], report.gates, strict=True):
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == gate.id
        assert (result["kind"] == "fail") == (gate.verdict in ("FAIL", "WARN"))
        assert (result["level"] == "none") == (result["kind"] != "fail")
    assert any("relatedLocations" in result for result in run["results"]) == (name == "fail")
    assert run["invocations"][0]["executionSuccessful"] == (not report.plugin_failures)
    prints = [r["partialFingerprints"]["gate/v1"] for r in run["results"]]
    assert len(set(prints)) == len(prints)


def test_intoto_is_a_statement_of_its_protobuf(case):
    """The reference library reads it back, and nothing undecided is attested as passed."""
    json_format = pytest.importorskip("google.protobuf.json_format", reason="needs in-toto-attestation and protobuf")
    statement_pb2 = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    test_result_pb2 = pytest.importorskip("in_toto_attestation.predicates.test_result.v0.test_result_pb2")
    from in_toto_attestation.v1.statement import Statement

    _, report, _ = case
    content = json.loads(intoto.render(report.to_dict(), NOWHERE))
    statement = json_format.ParseDict(content, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    predicate = json_format.ParseDict(content["predicate"], test_result_pb2.TestResult())
    expected = {"PASS": "PASSED", "WARN": "WARNED", "FAIL": "FAILED", "INCONCLUSIVE": "FAILED"}
    assert predicate.result == expected[report.verdict]
    assert len(predicate.passed_tests) == sum(g.verdict == "PASS" for g in report.gates)


def test_what_cannot_be_attested_is_refused(case):
    """No verdict, or nothing with a digest: a sentence instead of a statement."""
    _, report, _ = case
    with pytest.raises(ConfigError, match="no policy has judged"):
        intoto.render(replace(report, verdict="NONE").to_dict(), NOWHERE)
    with pytest.raises(ConfigError, match="nothing to attest"):
        intoto.render(replace(report, subject={}, data={}).to_dict(), NOWHERE)


def test_model_card_is_read_by_the_hub_library(case):
    """Every estimate comes back from the front matter with its value."""
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    _, report, _ = case
    card = hub.ModelCard(modelcard.render(report.to_dict(), NOWHERE).decode())
    found = {entry.metric_type: entry.metric_value for entry in card.data.eval_results}
    assert found == {r.id: r.estimate.value for r in report.results if r.status == "ok" and not r.subgroup}


def test_badge_says_the_verdict_in_words(case):
    """The verdict is text, not only a colour."""
    _, report, _ = case
    root = ET.fromstring(badge.render(report.to_dict(), NOWHERE))
    assert root.get("aria-label") == f"medtrust: {report.verdict}"
    assert report.verdict in "".join(root.itertext())


def test_hostile_names_stay_data(hostile, report_of_names, junit_schema, sarif_schema):
    """Whatever a name holds, every file parses, follows its schema and has the structure of a calm report."""
    report = judge(report_of_names(hostile), load_policy("research")).to_dict()
    calm = judge(report_of_names("calm"), load_policy("research")).to_dict()
    tree = etree.fromstring(junit.render(report, NOWHERE))
    junit_schema.assertValid(tree)
    tags = [element.tag for element in etree.fromstring(junit.render(calm, NOWHERE)).iter()]
    assert [element.tag for element in tree.iter()] == tags
    sarif_schema.validate(json.loads(sarif.render(report, NOWHERE)))
    whole = {**report, "results": [{**row, "subgroup": ""} for row in report["results"]]}
    front = modelcard.render(whole, NOWHERE).decode().split("---\n")[1]
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["metrics"][0]["value"] == 1.0
    for text in (junit.render(report, NOWHERE), sarif.render(report, NOWHERE), proof(report).encode()):
        assert b"\x1b" not in text
        assert b"\x00" not in text


def test_proof_names_every_gate_and_the_exit_code(case):
    """Each gate with what it asks, what was measured and why; then the conclusion."""
    _, report, _ = case
    text = proof(report.to_dict())
    assert text.count("   finding ") == len(report.gates)
    assert all(sentence in text for gate in report.gates for sentence in gate.why)
    assert f"Verdict {report.verdict}" in text
    assert text.endswith(f"Exit code {report.exit_code}.")


def test_verify_finds_a_changed_picture_and_a_changed_page(failed):
    """What lies beside the report is held against it, byte for byte."""
    report, folder = failed
    plain = report.to_dict()
    renderers = {"report.junit.xml": lambda: junit.render, "report.sarif": lambda: sarif.render}
    (folder / "report.json").write_bytes(to_json(report))
    (folder / "report.junit.xml").write_bytes(junit.render(plain, folder))
    lines = check_folder(plain, folder, renderers)
    assert len(lines) == 3
    (folder / "report.junit.xml").write_bytes(b"<testsuites/>")
    next((folder / "evidence").iterdir()).write_bytes(b"another picture")
    with pytest.raises(DataError, match=r"not the one .* report\.junit\.xml is not what this report gives"):
        check_folder(plain, folder, renderers)
