"""Judge a report by a policy: each gate on each result it names, then the whole."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError
from medtrust.gate.decide import Finding, decide
from medtrust.gate.exits import of_verdict
from medtrust.gate.policy import Gate, Policy, Waiver
from medtrust.report import VERDICTS, GateOutcome, TrustReport, Verdict, read_report
from medtrust.types import Result

__all__ = ["baseline_for", "judge", "load_baseline"]


def load_baseline(path: str | Path) -> TrustReport:
    """Read the report that non-regression gates compare with.

    Raises:
        DataError: It cannot be read, does not follow the schema, or was changed.
    """
    return read_report(path)


def baseline_for(policy: Policy, path: str | Path | None = None) -> TrustReport | None:
    """Read the baseline that a policy compares with; call it early, so that a missing one is found before an audit.

    Args:
        policy: A policy.
        path: report.json to use instead of the policy's own [baseline].

    Returns:
        The baseline; None where the policy needs none.

    Raises:
        ConfigError: A gate needs a baseline, and there is none.
        DataError: It cannot be read, does not follow the schema, or was changed.
    """
    place = path or policy.baseline
    if place is not None:
        return load_baseline(place)
    for gate in policy.gates:
        if gate.mode == "nonregression":
            raise ConfigError(
                f"gate {gate.id!r} compares with a baseline, and there is none; give --baseline REPORT.json or write "
                '[baseline] report = "baseline.json" into the policy'
            )
    return None


def judge(
    report: TrustReport,
    policy: Policy,
    *,
    baseline: TrustReport | None = None,
    today: datetime.date | None = None,
    strict: bool = False,
) -> TrustReport:
    """Judge a report: every gate must pass (an intersection-union test, so a false PASS needs no correction).

    Args:
        report: A report; an earlier judgement in it is replaced.
        policy: What to ask.
        baseline: For non-regression gates; the policy's own [baseline] is read when none is given.
        today: Date that waivers are held against; the local date when not given.
        strict: A WARN exits 1.

    Returns:
        The report with gates, verdict and exit code.

    Raises:
        ConfigError: A non-regression gate has no baseline.
        DataError: The policy's baseline cannot be read.
    """
    baseline = baseline or baseline_for(policy)
    day = today or datetime.date.today()
    waivers = {waiver.gate: waiver for waiver in policy.waivers}
    gates = tuple(
        _counted(outcome, waivers.get(outcome.id), policy, day)
        for gate in policy.gates
        for outcome in _outcomes(gate, report, baseline)
    )
    verdict = min((outcome.verdict for outcome in gates), key=VERDICTS.index)
    return replace(
        report,
        policy={
            "name": policy.name,
            "sha256": policy.sha256,
            "level": policy.level,
            "mode": policy.mode,
            "on_inconclusive": policy.on_inconclusive,
            "strict": strict,
        },
        gates=gates,
        verdict=verdict,
        exit_code=of_verdict(verdict, strict=strict),
    )


def _outcomes(gate: Gate, report: TrustReport, baseline: TrustReport | None) -> Iterator[GateOutcome]:
    rows = report.matching(gate.result)
    if not rows:
        yield _outcome(gate, gate.result, "", _absent(gate, report))
    for row in rows:
        before = _before(baseline, row) if gate.mode == "nonregression" and baseline else None
        yield _outcome(gate, row.id, row.subgroup, decide(gate, row, before))


def _before(baseline: TrustReport, row: Result) -> Result | None:
    return next((r for r in baseline.results if (r.id, r.subgroup) == (row.id, row.subgroup)), None)


def _absent(gate: Gate, report: TrustReport) -> Finding:
    near = difflib.get_close_matches(gate.result, [r.id for r in report.results], 3, 0.5)
    hint = f" (there is {', '.join(near)})" if near else ""
    return Finding("INCONCLUSIVE", (f"INCONCLUSIVE because the report has no result {gate.result}{hint}.",))


def _outcome(gate: Gate, result: str, subgroup: str, finding: Finding) -> GateOutcome:
    return GateOutcome(
        id=gate.id,
        result=result,
        subgroup=subgroup,
        field=gate.field,
        op=gate.op,
        threshold=finding.threshold if gate.threshold is None else gate.threshold,
        mode=gate.mode,
        severity=gate.severity,
        finding=finding.verdict,
        verdict=finding.verdict,
        why=finding.why,
        baseline=finding.baseline,
    )


def _counted(outcome: GateOutcome, waiver: Waiver | None, policy: Policy, today: datetime.date) -> GateOutcome:
    """What a finding counts as, after severity, `on_inconclusive` and waiver, in this order."""
    verdict: Verdict = outcome.finding
    why = list(outcome.why)
    if verdict in ("FAIL", "INCONCLUSIVE") and outcome.severity == "warn":
        verdict = "WARN"
        why.append('It only warns, because the gate has severity "warn".')
    elif verdict == "INCONCLUSIVE" and policy.on_inconclusive == "warn":
        verdict = "WARN"
        why.append('It lets through with a warning, because the policy says on_inconclusive = "warn".')
    noted: dict[str, Any] | None = None
    if waiver is not None:
        expired = today > waiver.until
        noted = {"until": waiver.until.isoformat(), "reason": waiver.reason, "expired": expired}
        if expired:
            verdict = "FAIL"
            why.append(
                f"FAIL because its waiver expired on {waiver.until}: {waiver.reason} Remove or renew the waiver."
            )
        elif verdict in ("FAIL", "INCONCLUSIVE"):
            verdict = "WARN"
            why.append(f"Waived until {waiver.until}: {waiver.reason}")
        else:
            why.append(f"A waiver until {waiver.until} was not needed: {waiver.reason}")
    return replace(outcome, verdict=verdict, why=tuple(why), waiver=noted)
