"""The pytest plugin: a generator's verdict as a test. Installed with medtrust; costs nothing until it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from medtrust.report import TrustReport

__all__ = ["medtrust_gate"]

_VERDICTS = pytest.StashKey[list[tuple[str, str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer --medtrust-report and --medtrust-policy."""
    group = parser.getgroup("medtrust", "trust reports of generators")
    group.addoption(
        "--medtrust-report",
        metavar="REPORT.json",
        help="the report that medtrust_gate judges when a test names none",
    )
    group.addoption(
        "--medtrust-policy",
        metavar="POLICY",
        help="the policy that medtrust_gate applies when a test names none  [default: ci-smoke]",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the list of verdicts that the terminal summary prints."""
    config.stash[_VERDICTS] = []


@pytest.fixture
def medtrust_gate(request: pytest.FixtureRequest) -> Callable[..., TrustReport]:
    """Judge a trust report inside a test; the test fails unless the verdict is PASS or WARN.

    Args of the function that a test is given:
        report: A report from `medtrust.audit`, or the path of a report.json; `--medtrust-report` when not given.
        policy: A policy file, or the name of a ready one; `--medtrust-policy`, else ci-smoke, when not given.
        baseline: An earlier report.json for non-regression gates.
        strict: A WARN fails too.

    Returns of that function: the judged report.

    Example:
        def test_our_generator(medtrust_gate):
            medtrust_gate("out/report.json", policy="clinical-strict")
    """

    def judged(
        report: TrustReport | str | Path | None = None,
        *,
        policy: str | Path | None = None,
        baseline: str | Path | None = None,
        strict: bool = False,
    ) -> TrustReport:
        __tracebackhide__ = True
        from medtrust import gate
        from medtrust.errors import MedtrustError
        from medtrust.report import read_report
        from medtrust.report.proof import proof

        config = request.config
        source = report if report is not None else config.getoption("--medtrust-report")
        if source is None:
            pytest.fail("medtrust_gate has no report: give it one, or run pytest with --medtrust-report", pytrace=False)
        try:
            rules = gate.load_policy(policy or config.getoption("--medtrust-policy") or "ci-smoke")
            read = read_report(source) if isinstance(source, (str, Path)) else source
            outcome = gate.judge(read, rules, baseline=gate.baseline_for(rules, baseline), strict=strict)
        except MedtrustError as error:
            pytest.fail(f"medtrust: {error}", pytrace=False)
        config.stash[_VERDICTS].append((request.node.nodeid, outcome.verdict, rules.name))
        if outcome.exit_code:
            pytest.fail(proof(outcome.to_dict()), pytrace=False)
        return outcome

    return judged


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print one line per judged report."""
    verdicts = config.stash.get(_VERDICTS, [])
    if not verdicts:
        return
    terminalreporter.section("medtrust")
    for test, verdict, policy in verdicts:
        terminalreporter.write_line(f"{verdict:<13}{test} (policy {policy})")
