"""The pytest plugin, run by pytest on test files of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medtrust.gate import judge, load_policy
from medtrust.report import build_report, to_json
from medtrust.types import Estimate, Interval, Resolution, Result, SelfTest, TestOutcome

pytest_plugins = ["pytester"]


def write(path: Path, p: float) -> Path:
    """A report whose copy test has the given p-value."""
    rows = [
        Result(
            estimate=Estimate(0.5, "in train", "lower"), interval=Interval(0.3, 0.7, 0.95, "exact", 20, "pair"),
            test=TestOutcome(10, p, p, "privacy"), resolution=Resolution(0.01, 0.8, "Copies below 1 % go unseen."),
            selftest=SelfTest("ok", "planted copies were found"), id="privacy.cpm", pillar="privacy",
        ),
        Result(estimate=Estimate(0, "images", "lower"), id="privacy.duplicates", pillar="privacy"),
    ]  # fmt: skip
    report = judge(build_report(run={}, subject={}, data={}, results=rows, failures=()), load_policy("ci-smoke"))
    path.write_bytes(to_json(report))
    return path


TEST = "def test_generator(medtrust_gate):\n    assert medtrust_gate({}).verdict == 'PASS'\n"


def test_a_pass_passes_and_is_told(pytester):
    """A report by path; the summary names the test, the verdict and the policy."""
    write(pytester.path / "report.json", 0.6)
    pytester.makepyfile(TEST.format("'report.json'"))
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= medtrust =*", "PASS*test_generator (policy ci-smoke)"])


def test_a_failure_fails_with_its_proof(pytester):
    """The command line gives report and policy; the message is the proof, without a traceback."""
    write(pytester.path / "report.json", 0.0001)
    pytester.makepyfile(TEST.format(""))
    result = pytester.runpytest_subprocess("--medtrust-report", "report.json", "--medtrust-policy", "ci-smoke")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAIL because*", "Verdict FAIL*"])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


@pytest.mark.parametrize(
    ("call", "said"),
    [("", "*--medtrust-report*"), ("'absent.json'", "*absent.json cannot be read*"), ("policy='no'", "*no*")],
)
def test_what_is_missing_is_said(pytester, call, said):
    """No report, an unreadable one, an unknown policy: a sentence and a failed test."""
    pytester.makepyfile(TEST.format(call))
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([said])


def test_the_plugin_costs_nothing_until_used():
    """It is loaded into every pytest run of an environment, so it imports neither torch nor numpy."""
    code = "import sys, medtrust.pytest_plugin; sys.exit(bool({'torch', 'numpy', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
