"""Judging: the three-valued logic, what a detector is worth, waivers, baselines, and closing on doubt."""

from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtrust.errors import ConfigError, DataError
from medtrust.gate import baseline_for, judge, load_baseline, load_policy
from medtrust.report import TrustReport, build_report, to_json, verify
from medtrust.types import Estimate, Interval, Resolution, Result, SelfTest, TestOutcome

TODAY = datetime.date(2026, 6, 1)
COPY = """
[[gate]]
id = "copy"
result = "privacy.cpm"
field = "p_adj"
op = ">="
threshold = 0.01
require = { "resolution.min_detectable" = "<=0.02", "selftest.status" = "ok" }
"""


def report_of(*results: Result) -> TrustReport:
    return build_report(run={}, subject={}, data={}, results=results, failures=())


def fd(lo: float | None = 1.0, hi: float = 2.0, value: float = 1.5, space: str = "a", **more) -> Result:
    interval = None if lo is None else Interval(lo, hi, 0.95, "bootstrap", 40)
    more = {"features": f"{space}@1", "metric": "m", "metric_version": "1"} | more
    direction = more.pop("direction", "lower")
    return Result(Estimate(value, "", direction), interval, id=f"fidelity.fd[{space}]", pillar="fidelity", **more)


def cpm(p_adj: float = 0.5, resolution: float | None = 0.01, selftest: str | None = "ok") -> Result:
    return Result(
        Estimate(0.5),
        test=TestOutcome(3.0, p_adj / 2, p_adj, "privacy"),
        resolution=None if resolution is None else Resolution(resolution, 0.8, "s"),
        selftest=None if selftest is None else SelfTest(selftest, "found 93 of 100"),  # type: ignore[arg-type]
        id="privacy.cpm",
        pillar="privacy",
    )


def policy_of(tmp_path, text: str):
    path = tmp_path / "p.toml"
    path.write_text('schema = "medtrust.policy/1"\n' + text, "utf-8")
    return load_policy(path)


def fd_gate(op: str = "<=", threshold: float = 1.5, more: str = "", result: str = "fidelity.fd[a]") -> str:
    return f'[[gate]]\nid = "fd"\nresult = "{result}"\nop = "{op}"\nthreshold = {threshold}\n{more}\n'


def judged(tmp_path, text: str, *results: Result, **options) -> TrustReport:
    return judge(report_of(*results), policy_of(tmp_path, text), today=TODAY, **options)


@pytest.mark.parametrize(
    ("op", "threshold", "expected"),
    [
        ("<=", 2.0, "PASS"), ("<=", 1.99, "INCONCLUSIVE"), ("<=", 1.0, "INCONCLUSIVE"), ("<=", 0.99, "FAIL"),
        ("<", 2.0, "INCONCLUSIVE"), ("<", 2.01, "PASS"), ("<", 1.0, "FAIL"),
        (">=", 1.0, "PASS"), (">=", 1.01, "INCONCLUSIVE"), (">=", 2.0, "INCONCLUSIVE"), (">=", 2.01, "FAIL"),
        (">", 1.0, "INCONCLUSIVE"), (">", 0.99, "PASS"), (">", 2.0, "FAIL"),
    ],
)  # fmt: skip
def test_an_interval_passes_fails_or_decides_nothing(tmp_path, op, threshold, expected):
    """The whole interval must lie on one side of the threshold."""
    report = judged(tmp_path, fd_gate(op, threshold), fd())
    gate = report.gates[0]
    assert gate.finding == gate.verdict == report.verdict == expected
    assert gate.why[0].startswith(f"{expected} because")
    assert report.exit_code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[expected]
    verify(to_json(report))


@given(st.floats(-1e3, 1e3), st.floats(0, 100), st.floats(-1e3, 1e3))
def test_gates_mirror_and_never_pass_both_sides(tmp_path_factory, centre, half, threshold):
    """Turning the sign round turns "<=" into ">=", and PASS of one side excludes PASS of the strict other."""
    folder = tmp_path_factory.mktemp("p")
    row = fd(centre - half, centre + half, centre)
    mirrored = fd(-centre - half, -centre + half, -centre)
    below = judged(folder, fd_gate("<=", threshold), row).verdict
    assert below == judged(folder, fd_gate(">=", -threshold), mirrored).verdict
    above = judged(folder, fd_gate(">", threshold), row).verdict
    assert (below == "PASS") == (above == "FAIL")
    assert (below == "FAIL") == (above == "PASS")


def test_wider_intervals_never_decide_more(tmp_path):
    """Widening an interval can only turn PASS or FAIL into INCONCLUSIVE."""
    rng = np.random.default_rng(11)
    for _ in range(50):
        lo, hi = sorted(rng.normal(0, 1, 2))
        grow = rng.exponential(1)
        narrow = judged(tmp_path, fd_gate("<=", 0.0), fd(lo, hi, lo)).verdict
        wide = judged(tmp_path, fd_gate("<=", 0.0), fd(lo - grow, hi + grow, lo)).verdict
        assert wide in (narrow, "INCONCLUSIVE")


def test_false_passes_are_rare_at_the_threshold(tmp_path):
    """With the truth on the wrong side of the threshold, a valid 95 % interval passes in about 2.5 % of audits."""
    rng = np.random.default_rng(3)
    policy = policy_of(tmp_path, fd_gate("<=", 10.0))
    passes = 0
    for _ in range(2000):
        sample = rng.normal(10.0, 2.0, 40)
        half = 2.0227 * sample.std(ddof=1) / np.sqrt(40)
        mean = sample.mean()
        passes += judge(report_of(fd(mean - half, mean + half, mean)), policy, today=TODAY).verdict == "PASS"
    assert 0.015 <= passes / 2000 <= 0.036


def test_an_interval_below_the_asked_level_decides_nothing(tmp_path):
    """A 95 % interval cannot answer a policy that asks for 99 %."""
    report = judged(tmp_path, fd_gate("<=", 100, "level = 0.99"), fd())
    assert report.verdict == "INCONCLUSIVE"
    assert "95 %" in report.gates[0].why[0]
    assert "99 %" in report.gates[0].why[0]


def test_no_interval_cannot_pass_by_interval_but_by_point(tmp_path):
    """Without an interval a ci gate is open; the policy must say that it means the bare number."""
    assert judged(tmp_path, fd_gate("<=", 100), fd(None)).verdict == "INCONCLUSIVE"
    point = judged(tmp_path, fd_gate("<=", 100, 'mode = "point"'), fd(None))
    assert point.verdict == "PASS"
    assert "sampling error is not considered" in point.gates[0].why[0]
    assert judged(tmp_path, fd_gate("==", 1.5, 'mode = "point"'), fd(None)).verdict == "PASS"
    assert judged(tmp_path, fd_gate("<=", 1.4, 'mode = "point"'), fd(None)).verdict == "FAIL"


def test_facts_can_be_gated(tmp_path):
    """A fact with dots and spaces in its name is found; one that is a word or absent decides nothing."""
    row = fd(facts={"FD ratio v1.2": 0.4, "word": "x", "flag": True})
    for name, expected in (
        ("FD ratio v1.2", "PASS"),
        ("word", "INCONCLUSIVE"),
        ("flag", "INCONCLUSIVE"),
        ("no", "INCONCLUSIVE"),
    ):
        text = fd_gate(">=", 0.3, f'mode = "point"\nfield = "facts.{name}"')
        assert judged(tmp_path, text, row).verdict == expected


@pytest.mark.parametrize(
    ("p_adj", "resolution", "selftest", "expected"),
    [
        (0.5, 0.02, "ok", "PASS"), (0.01, 0.01, "ok", "PASS"), (0.0099, 0.01, "ok", "FAIL"),
        (0.5, 0.021, "ok", "INCONCLUSIVE"), (0.5, None, "ok", "INCONCLUSIVE"),
        (0.5, 0.01, "failed", "INCONCLUSIVE"), (1e-9, 0.01, "failed", "INCONCLUSIVE"),
        (0.5, 0.01, "not_run", "INCONCLUSIVE"), (1e-9, 0.01, "not_run", "INCONCLUSIVE"),
        (0.5, 0.01, None, "INCONCLUSIVE"), (1e-9, 0.01, None, "INCONCLUSIVE"),
        (1e-9, 0.5, "ok", "FAIL"), (1e-9, None, "ok", "FAIL"),
    ],
)  # fmt: skip
def test_a_detector_counts_only_with_selftest_and_resolution(tmp_path, p_adj, resolution, selftest, expected):
    """No alarm passes only if an alarm was possible; an alarm of a sound detector fails at any resolution."""
    report = judged(tmp_path, COPY, cpm(p_adj, resolution, selftest))
    assert report.verdict == expected
    assert report.gates[0].mode == "test"


def test_a_detector_that_failed_its_selftest_never_passes(tmp_path):
    """Also where the policy does not ask for the self-test, and whichever mode it uses."""
    p_gate = COPY.replace(', "selftest.status" = "ok"', "")
    assert judged(tmp_path, p_gate, cpm(selftest="failed")).verdict == "INCONCLUSIVE"
    assert judged(tmp_path, p_gate, cpm(selftest="not_run")).verdict == "PASS"
    broken = fd(selftest=SelfTest("failed", "found 3 of 100"))
    for mode in ("ci", "point"):
        report = judged(tmp_path, fd_gate("<=", 100, f'mode = "{mode}"'), broken)
        assert report.verdict == "INCONCLUSIVE"
        assert "found 3 of 100" in report.gates[0].why[0]


def test_the_proof_names_the_numbers(tmp_path):
    """A reader can check the verdict from its sentence."""
    why = judged(tmp_path, COPY, cpm(0.0004)).gates[0].why
    assert why == ("FAIL because the adjusted p-value (0.0004, family privacy) is < 0.01.",)
    why = judged(tmp_path, COPY, cpm(0.5)).gates[0].why
    assert why[0].startswith("PASS because the adjusted p-value (0.5, family privacy) is ≥ 0.01, no alarm")
    assert "resolution.min_detectable = 0.01" in why[0]
    why = judged(tmp_path, fd_gate("<=", 1.9999999), fd()).gates[0].why
    assert "95 % interval 1 to 2 (40 patients) holds the threshold 1.9999999" in why[0]


@pytest.mark.parametrize("status", ["insufficient", "error", "skipped"])
def test_a_row_without_an_answer_is_open_with_its_reason(tmp_path, status):
    """What could not be computed passes nothing."""
    row = Result(id="fidelity.fd[a]", pillar="fidelity", status=status, reason="needs 50 patients, train has 12")
    report = judged(tmp_path, fd_gate(), row)
    assert (report.verdict, report.exit_code) == ("INCONCLUSIVE", 3)
    assert "needs 50 patients, train has 12" in report.gates[0].why[0]


def test_a_missing_result_is_open_and_hints(tmp_path):
    """A gate on a result that no metric gave closes, and says what there is."""
    report = judged(tmp_path, fd_gate(result="fidelity.fd[b]"), fd())
    assert report.verdict == "INCONCLUSIVE"
    assert "there is fidelity.fd[a]" in report.gates[0].why[0]
    assert judged(tmp_path, fd_gate()).verdict == "INCONCLUSIVE"


def test_a_wildcard_gates_every_space_and_the_worst_counts(tmp_path):
    """`[*]` makes one outcome per feature space, and one bad space fails the whole."""
    rows = [fd(space="a"), fd(5, 6, 5.5, space="b"), fd(1.2, 2.0, space="c")]
    for name in ("fidelity.fd[*]", "fidelity.fd"):
        report = judged(tmp_path, fd_gate("<=", 3, result=name), *rows)
        assert [(g.result, g.verdict) for g in report.gates] == [
            ("fidelity.fd[a]", "PASS"), ("fidelity.fd[b]", "FAIL"), ("fidelity.fd[c]", "PASS"),
        ]  # fmt: skip
        assert report.verdict == "FAIL"
    assert judged(tmp_path, fd_gate("<=", 3, result="privacy.*"), *rows).verdict == "INCONCLUSIVE"


def test_every_subgroup_is_gated(tmp_path):
    """A subgroup that fails is not hidden behind everybody."""
    report = judged(tmp_path, fd_gate("<=", 3), fd(), fd(8, 9, 8.5, subgroup="site B"))
    assert {g.subgroup: g.verdict for g in report.gates} == {"": "PASS", "site B": "FAIL"}


@pytest.mark.parametrize(("threshold", "finding"), [(0.5, "FAIL"), (1.5, "INCONCLUSIVE"), (3, "PASS")])
def test_severity_warn_only_warns(tmp_path, threshold, finding):
    """A warning gate that fails or is open gives WARN and exit 0, or 1 when strict."""
    text = fd_gate("<=", threshold, 'severity = "warn"')
    report = judged(tmp_path, text, fd())
    assert report.gates[0].finding == finding
    assert report.verdict == ("PASS" if finding == "PASS" else "WARN")
    assert report.exit_code == 0
    assert judged(tmp_path, text, fd(), strict=True).exit_code == (0 if finding == "PASS" else 1)


def test_on_inconclusive_warn_lets_through_with_a_warning(tmp_path):
    """Doubt warns when the policy says so; a failure still fails."""
    head = '[defaults]\non_inconclusive = "warn"\n'
    open_one = judged(tmp_path, head + fd_gate("<=", 1.5), fd())
    assert (open_one.verdict, open_one.exit_code, open_one.gates[0].finding) == ("WARN", 0, "INCONCLUSIVE")
    assert "on_inconclusive" in open_one.gates[0].why[-1]
    assert judged(tmp_path, head + fd_gate("<=", 0.5), fd()).verdict == "FAIL"


def test_the_worst_gate_decides(tmp_path):
    """FAIL over INCONCLUSIVE over WARN over PASS."""
    gates = {"FAIL": 0.5, "INCONCLUSIVE": 1.5, "PASS": 3.0}
    one = '[[gate]]\nid = "{}"\nresult = "fidelity.fd[a]"\nop = "<="\nthreshold = {}\n'
    three = "".join(one.format(name, t) for name, t in gates.items())
    assert judged(tmp_path, three, fd()).verdict == "FAIL"
    assert (
        judged(tmp_path, "".join(one.format(n, gates[n]) for n in ("PASS", "INCONCLUSIVE")), fd()).verdict
        == "INCONCLUSIVE"
    )
    warned = one.format("w", 0.5) + 'severity = "warn"\n'
    assert judged(tmp_path, warned + one.format("PASS", 3.0), fd()).verdict == "WARN"
    assert judged(tmp_path, warned + one.format("i", 1.5), fd()).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("threshold", "until", "expected"),
    [
        (0.5, "2026-06-01", "WARN"), (1.5, "2026-06-01", "WARN"), (3, "2026-06-01", "PASS"),
        (0.5, "2026-05-31", "FAIL"), (1.5, "2026-05-31", "FAIL"), (3, "2026-05-31", "FAIL"),
    ],
)  # fmt: skip
def test_waivers_hold_until_their_date_and_fail_after_it(tmp_path, threshold, until, expected):
    """A waived failure warns, an expired waiver fails even what would pass, and both are printed."""
    waiver = f'[[waiver]]\ngate = "fd"\nuntil = {until}\nreason = "new scanner since May"\n'
    report = judged(tmp_path, fd_gate("<=", threshold) + waiver, fd())
    assert report.verdict == expected
    assert report.gates[0].waiver == {
        "until": until,
        "reason": "new scanner since May",
        "expired": until < "2026-06-01",
    }
    assert any("new scanner since May" in sentence for sentence in report.gates[0].why)
    verify(to_json(report))


REGRESSION = '[[gate]]\nid = "fd"\nresult = "fidelity.fd[a]"\nmode = "nonregression"\ntolerance = {}\n'


@pytest.mark.parametrize(
    ("row", "tolerance", "expected"),
    [
        (fd(1.49, 1.51, 1.5), '"5%"', "PASS"),
        (fd(1.0, 2.0, 1.5), '"5%"', "INCONCLUSIVE"),
        (fd(1.9, 2.1, 2.0), '"5%"', "FAIL"),
        (fd(1.9, 2.1, 2.0), "0.7", "PASS"),
        (fd(0.9, 1.1, 1.0), '"5%"', "PASS"),
        (fd(None), '"5%"', "INCONCLUSIVE"),
        (fd(1.49, 1.51, metric_version="2"), '"5%"', "INCONCLUSIVE"),
        (fd(1.49, 1.51, features="a@2"), '"5%"', "INCONCLUSIVE"),
        (fd(1.49, 1.51, direction="none"), '"5%"', "INCONCLUSIVE"),
        (fd(1.49, 1.51, direction="higher", value=1.4), '"5%"', "FAIL"),
    ],
)
def test_nonregression_judges_the_difference_by_interval(tmp_path, row, tolerance, expected):
    """Worse by more than is allowed fails, shown not to be passes, and what cannot be compared is open."""
    before = report_of(fd(1.48, 1.52, 1.5, direction=row.estimate.direction))
    if row.estimate.direction == "higher":
        row = replace(row, interval=Interval(1.39, 1.41, 0.95, "bootstrap", 40))
    report = judged(tmp_path, REGRESSION.format(tolerance), row, baseline=before)
    assert report.verdict == expected
    verify(to_json(report))


def test_nonregression_covers_at_its_level(tmp_path):
    """With no true change beyond the tolerance, a regression is proven in at most about 2.5 % of pairs of audits."""
    rng = np.random.default_rng(9)
    policy = policy_of(tmp_path, REGRESSION.format("0.0"))
    verdicts = []
    for _ in range(1500):
        rows = []
        for _ in range(2):
            sample = rng.gamma(4.0, 0.5, 60)
            half = 2.0010 * sample.std(ddof=1) / np.sqrt(60)
            rows.append(fd(sample.mean() - half, sample.mean() + half, sample.mean()))
        verdicts.append(judge(report_of(rows[0]), policy, baseline=report_of(rows[1]), today=TODAY).verdict)
    assert 0.012 <= verdicts.count("FAIL") / 1500 <= 0.042
    assert 0.012 <= verdicts.count("PASS") / 1500 <= 0.042


def test_baselines_are_found_checked_or_missed(tmp_path):
    """The policy's own baseline is read beside it; a missing one is an error, and a changed one is refused."""
    text = REGRESSION.format('"5%"')
    with pytest.raises(ConfigError, match="compares with a baseline, and there is none"):
        judged(tmp_path, text, fd())
    with pytest.raises(ConfigError, match="there is none"):
        baseline_for(policy_of(tmp_path, text))
    assert baseline_for(policy_of(tmp_path, fd_gate())) is None
    (tmp_path / "old.json").write_bytes(to_json(report_of(fd(1.49, 1.51))))
    text += '[baseline]\nreport = "old.json"\n'
    report = judged(tmp_path, text, fd(1.49, 1.51))
    assert report.verdict == "PASS"
    assert report.gates[0].baseline == 1.5
    assert load_baseline(tmp_path / "old.json")["fidelity.fd"].estimate.value == 1.5
    assert baseline_for(policy_of(tmp_path, REGRESSION.format("1")), tmp_path / "old.json")["fidelity.fd"].estimate
    assert judged(tmp_path, text, fd(space="b")).verdict == "INCONCLUSIVE"
    (tmp_path / "old.json").write_bytes((tmp_path / "old.json").read_bytes().replace(b"1.49", b"1.00"))
    with pytest.raises(DataError, match="was changed"):
        judged(tmp_path, text, fd(1.49, 1.51))


def test_judging_again_replaces_the_judgement(tmp_path):
    """A report can be held against a second policy, and the same policy twice gives the same bytes."""
    first = judged(tmp_path, fd_gate("<=", 0.5), fd())
    second = judge(first, policy_of(tmp_path, fd_gate("<=", 3)), today=TODAY)
    assert (first.verdict, second.verdict) == ("FAIL", "PASS")
    assert to_json(judge(second, policy_of(tmp_path, fd_gate("<=", 0.5)), today=TODAY)) == to_json(first)
