"""The trust report: what was audited, what was found, what it means under a policy, and what remains unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from medtrust.report.canonical import digest, plain_data
from medtrust.report.codec import decode_result, encode_result
from medtrust.report.crosswalk import crosswalk
from medtrust.report.limitations import limitations
from medtrust.report.schema import complaint
from medtrust.types import PILLARS, PluginFailure, Result

__all__ = ["SCHEMA", "VERDICTS", "GateOutcome", "TrustReport", "Verdict", "build_report"]

SCHEMA = "medtrust.report/1"
Verdict = Literal["PASS", "WARN", "FAIL", "INCONCLUSIVE", "NONE"]
VERDICTS: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "WARN", "PASS", "NONE")  # the worst first


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """One gate of a policy, judged on one result.

    Args:
        id: The gate's id in the policy.
        result: Id of the result it was judged on, or what the policy asked for where no such result exists.
        field: Which number of the result.
        op: "<=", ">=", "<", ">" or "==".
        threshold: What the number was held against; for a non-regression gate the allowed change.
        mode: ci | point | test | nonregression.
        severity: fail, or warn where a failure shall only warn.
        finding: What the data say: PASS, FAIL or INCONCLUSIVE.
        verdict: What it counts as, after severity, waiver and `on_inconclusive`.
        why: Sentences that prove the finding, with the numbers.
        subgroup: Subgroup of the result, empty for everybody.
        baseline: Value in the baseline report, for a non-regression gate.
        waiver: until, reason and whether it has expired; None where the gate is not waived.
    """

    id: str
    result: str
    field: str
    op: str
    threshold: float
    mode: str
    severity: str
    finding: Verdict
    verdict: Verdict
    why: tuple[str, ...]
    subgroup: str = ""
    baseline: float | None = None
    waiver: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TrustReport:
    """Everything an audit found. `report["privacy.cpm"]` is one result.

    Args:
        run: Tool, seeds, environment, plugins: what it takes to do it again. No clock times.
        subject: The generator.
        data: Description of each set by its name.
        results: One row per question, sorted by pillar and id.
        plugin_failures: Plugins that failed, with what to do.
        limitations: Sentences on what this audit cannot say.
        crosswalk: Which criterion of published frameworks each result speaks to.
        policy: Name, digest and defaults of the policy; empty before one was applied.
        gates: Judged gates, in the policy's order.
        verdict: NONE before a policy was applied.
        exit_code: What a command line shall exit with.
    """

    run: Mapping[str, Any]
    subject: Mapping[str, Any]
    data: Mapping[str, Any]
    results: tuple[Result, ...]
    plugin_failures: tuple[PluginFailure, ...] = ()
    limitations: tuple[str, ...] = ()
    crosswalk: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    gates: tuple[GateOutcome, ...] = ()
    verdict: Verdict = "NONE"
    exit_code: int = 0

    def matching(self, name: str) -> tuple[Result, ...]:
        """Results that an id stands for: the id itself, or without "[space]", or with * for anything.

        Args:
            name: Such as "privacy.cpm", "fidelity.fd" or "fidelity.fd[*]".
        """
        exact = tuple(r for r in self.results if r.id == name)
        if exact:
            return exact
        pattern = re.compile(re.escape(name).replace(r"\*", ".*") + ("" if "[" in name else r"(\[.*\])?"))
        return tuple(r for r in self.results if pattern.fullmatch(r.id))

    def __getitem__(self, name: str) -> Result:
        """The one result that `name` stands for.

        Raises:
            KeyError: No result, or more than one; the message names the candidates.
        """
        found = [r for r in self.matching(name) if not r.subgroup] or list(self.matching(name))
        if len(found) == 1:
            return found[0]
        known = [r.id for r in self.results]
        if found:
            several = ", ".join(r.id + (r.subgroup and f" in {r.subgroup}") for r in found)
            raise KeyError(f"{name} is ambiguous: {several}")
        near = difflib.get_close_matches(name, known, 3, 0.4) or known
        raise KeyError(f"no result {name}; there is {', '.join(near) if near else 'none at all'}")

    @property
    def integrity(self) -> dict[str, str]:
        """SHA-256 over the RFC 8785 canonical form of everything else in the report."""
        return {"canonical": "RFC 8785", "sha256": digest(self._body())}

    def _body(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "subject": plain_data(self.subject, "subject"),
            "data": plain_data(self.data, "data"),
            "policy": plain_data(self.policy, "policy"),
            "gates": [plain_data(gate, "gates") for gate in self.gates],
            "results": [encode_result(result) for result in self.results],
            "limitations": plain_data(self.limitations, "limitations"),
            "plugin_failures": [plain_data(asdict(f), "plugin_failures") for f in self.plugin_failures],
            "crosswalk": plain_data(self.crosswalk, "crosswalk"),
            "run": plain_data(self.run, "run"),
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data: what `report.json` holds."""
        body = self._body()
        return {**body, "integrity": {"canonical": "RFC 8785", "sha256": digest(body)}}

    @classmethod
    def from_dict(cls, report: Mapping[str, Any]) -> TrustReport:
        """Rebuild a report from plain data that has passed the schema (see `medtrust.report.read_report`)."""
        return cls(
            run=report["run"],
            subject=report["subject"],
            data=report["data"],
            results=tuple(decode_result(row) for row in report["results"]),
            plugin_failures=tuple(PluginFailure(**failure) for failure in report["plugin_failures"]),
            limitations=tuple(report["limitations"]),
            crosswalk=report["crosswalk"],
            policy=report["policy"],
            gates=tuple(GateOutcome(**{**gate, "why": tuple(gate["why"])}) for gate in report["gates"]),
            verdict=report["verdict"],
            exit_code=report["exit_code"],
        )


def build_report(
    *,
    run: Mapping[str, Any],
    subject: Mapping[str, Any],
    data: Mapping[str, Any],
    results: Sequence[Result],
    failures: Sequence[PluginFailure],
) -> TrustReport:
    """Assemble a report that has not been judged yet; adds limitations and crosswalk.

    A result that JSON cannot hold, such as one with a NaN in it, becomes an error row that says so.

    Args:
        run: Plain data without clock times.
        subject: Plain data.
        data: Plain data per set name.
        results: In any order.
        failures: In any order.

    Raises:
        ValueError: `run`, `subject` or `data` hold what JSON cannot.
    """
    rows = tuple(sorted((_sound(result) for result in results), key=_order))
    broken = tuple(sorted(failures, key=lambda f: (f.plugin, f.stage, f.error)))
    subject, data = plain_data(subject, "subject"), plain_data(data, "data")
    return TrustReport(
        run=plain_data(run, "run"),
        subject=subject,
        data=data,
        results=rows,
        plugin_failures=broken,
        limitations=limitations(subject, data, rows, broken, run.get("spaces", {}), run.get("federated", {})),
        crosswalk=crosswalk(rows),
    )


def _sound(result: Result) -> Result:
    """The result as it would come back from JSON, or an error row in its place."""
    try:
        row = encode_result(result)
        problem = complaint(row, "result")
    except ValueError as error:
        problem = str(error)
    if not problem:
        return decode_result(row)
    if not result.id:
        raise ValueError(f"a result without an id cannot enter a report ({problem})")
    bare = Result(status="error", reason=f"the metric returned what a report cannot hold: {problem}")
    kept = ("id", "pillar", "title", "metric", "metric_version", "features", "citation", "subgroup")
    return replace(bare, **{name: getattr(result, name) for name in kept})


def _order(result: Result) -> tuple[int, str, str]:
    pillars: tuple[str, ...] = PILLARS
    rank = pillars.index(result.pillar) if result.pillar in pillars else len(pillars)
    return rank, result.id, result.subgroup
