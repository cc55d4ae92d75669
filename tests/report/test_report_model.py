"""The report itself: assembling, looking up, surviving a trip through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtrust.errors import DataError
from medtrust.report import TrustReport, build_report, read_report, to_json, verify
from medtrust.report.canonical import canonical_bytes, digest, plain_data
from medtrust.report.schema import complaint, schema
from medtrust.types import Estimate, Evidence, Interval, PluginFailure, Resolution, Result, SelfTest, TestOutcome


def bare(*results: Result, **data: dict) -> TrustReport:
    return build_report(run={}, subject={}, data=data, results=results, failures=())


def one(value: float = 0.5, **more) -> Result:
    return Result(estimate=Estimate(value), **{"id": "fidelity.x", "pillar": "fidelity", **more})


def test_json_follows_the_schema_and_survives_a_round_trip(case):
    """Reading what was written gives the same report and the same bytes."""
    _, report, _ = case
    content = to_json(report)
    again = TrustReport.from_dict(verify(content))
    assert again == replace(report, results=again.results)
    assert to_json(again) == content
    assert again.verdict == report.verdict


def test_same_input_gives_the_same_bytes_in_any_order(failed):
    """The order in which metrics finish leaves no trace."""
    report, _ = failed
    rng = np.random.default_rng(5)
    parts = {"run": report.run, "subject": report.subject, "data": report.data, "failures": ()}
    expected = to_json(build_report(**parts, results=report.results))
    for _ in range(3):
        shuffled = [report.results[i] for i in rng.permutation(len(report.results))]
        assert to_json(build_report(**parts, results=shuffled)) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda bad: one(bad),
        lambda bad: one(interval=Interval(0.1, bad, 0.95, "m", 5)),
        lambda bad: one(resolution=Resolution(bad, 0.8, "s")),
        lambda bad: one(facts={"ratio": bad}),
        lambda bad: one(evidence=(Evidence("pair", "t", 1, {"rho": bad}),)),
        lambda bad: one(selftest=SelfTest("ok", "d", auc=bad)),
    ],
)
def test_a_number_that_is_not_finite_becomes_an_error_row(spoil, bad):
    """No NaN and no infinity reaches JSON; the row says what was wrong."""
    row = bare(spoil(bad)).results[0]
    assert row.status == "error"
    assert str(float(bad)) in row.reason
    assert (row.id, row.pillar, row.estimate) == ("fidelity.x", "fidelity", None)


@pytest.mark.parametrize(
    "result",
    [
        one(test=TestOutcome(1.0, 1.5, 1.0, "f")),
        one(facts={"list": [1, 2]}),
        one(facts={"object": object()}),
        one(status="insufficient"),
        one(interval=Interval(0.0, 1.0, 95.0, "m", 5)),
    ],
)
def test_what_the_schema_refuses_becomes_an_error_row(result):
    """A probability of 1.5, a nested fact or a shortage without a reason is caught before it is written."""
    report = bare(result)
    assert report.results[0].status == "error"
    verify(to_json(report))


def test_results_without_an_id_are_refused():
    """A row that nobody could look up is a programming error."""
    with pytest.raises(ValueError, match="without an id"):
        bare(Result(estimate=Estimate(1.0), pillar="privacy"))


def test_lookup_by_id_by_short_id_and_by_mistake():
    """An exact id wins, a short one works while it is unique, and a wrong one names what there is."""
    report = bare(one(1.0, id="fidelity.fd[a]"), one(2.0, id="fidelity.fd[b]"), one(3.0, id="fidelity.kid[a]"))
    assert report["fidelity.fd[b]"].estimate.value == 2
    assert report["fidelity.kid"].estimate.value == 3
    with pytest.raises(KeyError, match=r"ambiguous: fidelity.fd\[a\], fidelity.fd\[b\]"):
        report["fidelity.fd"]
    with pytest.raises(KeyError, match=r"there is .*fidelity\.kid"):
        report["fidelity.kd"]
    assert [r.id for r in report.matching("fidelity.fd[*]")] == ["fidelity.fd[a]", "fidelity.fd[b]"]
    assert [r.id for r in report.matching("*[a]")] == ["fidelity.fd[a]", "fidelity.kid[a]"]
    assert report.matching("fidelity.f.") == ()


def test_lookup_prefers_everybody_over_subgroups():
    """A subgroup's row does not hide the row of everybody."""
    report = bare(one(1.0, subgroup="site A"), one(2.0), one(3.0, subgroup="site B"))
    assert report["fidelity.x"].estimate.value == 2
    assert len(report.matching("fidelity.x")) == 3


def test_half_precision_is_a_limitation():
    """A space that was computed in bf16 says so, and what that was measured to change; fp32 goes without saying."""
    change = "bf16 changed the Fréchet distance of train and holdout by +2.0%"
    spaces = {
        "efficientnet-lite0": {"precision": "bf16", "precision_change": change},
        "inception": {"precision": "fp32"},
        "radiomics": {},
    }
    report = build_report(run={"spaces": spaces}, subject={}, data={}, results=(), failures=())
    (line,) = (line for line in report.limitations if "feature space" in line)
    assert line.startswith("The feature space efficientnet-lite0 was computed in bf16")
    assert line.endswith(f"{change}.")


def test_limitations_come_from_the_results(case):
    """Each report names its own limits, and the one without holdout and patients says so."""
    name, report, _ = case
    text = "\n".join(report.limitations)
    assert "An increase below 1.9" in text
    assert "No interval" in text
    assert ("no holdout set" in text) == (name == "undecided")
    assert ("Patients are unknown in train" in text) == (name == "undecided")
    assert ("acme-metrics" in text) == (name == "undecided")


def test_failed_selftest_is_a_limitation():
    """A detector that does not find what was planted is named."""
    report = bare(one(selftest=SelfTest("failed", "found 3 of 100")), holdout={"n_images": 2, "n_patients": 2})
    assert any("failed its self-test" in line and "found 3 of 100" in line for line in report.limitations)


def test_crosswalk_covers_every_result_and_claims_nothing(failed):
    """Each result is mapped, with the sentence that this is no claim of compliance."""
    report, _ = failed
    assert set(report.crosswalk["results"]) == {r.id for r in report.results}
    assert "no claim of compliance" in report.crosswalk["statement"]


@pytest.mark.parametrize("what", ["verdict", "result", "limitation", "run"])
def test_a_changed_report_is_refused(failed, what):
    """Any change after writing breaks the digest."""
    plain = json.loads(to_json(failed[0]))
    if what == "verdict":
        plain["verdict"] = "PASS"
    elif what == "result":
        plain["results"][0]["estimate"]["value"] += 1e-9
    elif what == "limitation":
        plain["limitations"].pop()
    else:
        plain["run"]["seed"]["root"] = 1
    with pytest.raises(DataError, match="was changed after"):
        verify(to_json(plain))


def test_reformatting_does_not_break_the_digest(failed):
    """The digest covers the canonical form, so indentation and key order are free."""
    plain = json.loads(to_json(failed[0]))
    turned = dict(reversed(plain.items()))
    assert verify(json.dumps(turned).encode()) == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(extra=1), "Additional properties"),
        (lambda p: p.update(schema="medtrust.report/2"), "schema"),
        (lambda p: p["results"][0].pop("estimate"), "results.0.*'estimate' is a required"),
        (lambda p: p["gates"][0].update(verdict="MAYBE"), "gates.0.verdict"),
        (lambda p: p["run"].update(started="2026-01-01"), "run"),
        (lambda p: p.pop("integrity"), "'integrity' is a required"),
    ],
)
def test_what_is_not_of_the_schema_is_refused_with_the_place(failed, change, message):
    """The message says where the report breaks the schema."""
    plain = json.loads(to_json(failed[0]))
    change(plain)
    with pytest.raises(DataError, match=message):
        verify(json.dumps(plain).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000])
def test_what_is_not_json_is_refused(content):
    """Truncated, binary, NaN and absurdly nested input end in one sentence."""
    with pytest.raises(DataError, match=r"is not JSON|does not follow"):
        verify(content)


def test_a_missing_file_is_named(tmp_path):
    """The message names the file."""
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read"):
        read_report(tmp_path / "nowhere.json")


def test_a_report_holds_no_clock_time(case):
    """Nothing in the report depends on when it was made."""
    assert not {"started", "finished", "seconds", "time"} & set(str(case[1].run).split("'"))


def test_plain_data_converts_numpy_paths_and_tuples():
    """Scalars of numpy, paths and tuples arrive as JSON types; huge integers as strings."""
    value = {"a": np.int64(3), "b": np.float32(0.5), "c": (1, True, None), "d": PurePosixPath("x/y"), "e": 2**60}
    assert plain_data(value) == {"a": 3, "b": 0.5, "c": [1, True, None], "d": "x/y", "e": str(2**60)}
    with pytest.raises(ValueError, match=r"^x\.1 is a set"):
        plain_data({"x": [1, {2}]})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_plain_value_has_one_canonical_form(value):
    """Whatever can be plain data survives JSON with its canonical form unchanged, lone surrogates included."""
    plain = plain_data({"v": value})
    again = json.loads(json.dumps(plain))
    assert canonical_bytes(again) == canonical_bytes(plain)
    assert len(digest(plain)) == 64


def test_a_file_name_that_is_no_unicode_can_be_written():
    """Odd bytes of a file name arrive as escapes, never as a crash."""
    name = b"scan-\xff.png".decode("utf-8", "surrogateescape")
    report = bare(one(facts={name: name}, title=name))
    assert b"scan-\\\\udcff.png" in to_json(report)


def test_failures_are_sorted_and_kept():
    """Plugin failures come out in one order."""
    failures = [PluginFailure(n, "d 1", "import", "E: x") for n in ("zeta", "alpha")]
    report = build_report(run={}, subject={}, data={}, results=(), failures=failures)
    assert [f.plugin for f in report.plugin_failures] == ["alpha", "zeta"]


def test_the_schema_is_a_valid_schema():
    """The shipped schema is itself correct draft 2020-12, and a part of it can be checked alone."""
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(schema())
    assert complaint({"lo": 0, "hi": 1, "unit": "HU"}, "intensity") == ""
    assert "'unit' is a required" in complaint({"lo": 0, "hi": 1}, "intensity")


def test_a_diagnostic_result_enters_the_report_and_comes_back() -> None:
    """A number that is shown but never judged is a result like any other."""
    row = Result(Estimate(1.0), id="privacy.ct", pillar="privacy", title="C_T", diagnostic="shown, not judged")
    (kept,) = build_report(run={}, subject={}, data={}, results=[row], failures=()).results
    assert (kept.status, kept.diagnostic) == ("ok", "shown, not judged")
