"""The CI templates: valid for their platforms, and their script parts run as those platforms run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from audit_sets import write_sets

TEMPLATES = Path(__file__).parent.parent / "ci-templates"
ACTION = yaml.safe_load((TEMPLATES / "github/action.yml").read_text())
JOB = yaml.safe_load((TEMPLATES / "gitlab/medtrust.yml").read_text())[".medtrust"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sets(tmp_path_factory.mktemp("the sets"), seed=3)


def run(shell: list[str], script: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script part with medtrust on the path and nothing of our own in the environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if k.startswith(("XDG_", "MEDTRUST_", "PYTHON")) or k == "HOME"}
    environment = {**kept, "PATH": path, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [*shell, script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def action_step(sets: dict[str, Path], folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the audit step of the action as GitHub does: inputs filled in, bash with -eo pipefail."""
    (step,) = [s for s in ACTION["runs"]["steps"] if s.get("id") == "audit"]
    given = {**{name: about.get("default", "") for name, about in ACTION["inputs"].items()}}
    given |= {name: str(path) for name, path in sets.items()} | inputs
    filled = re.compile(r"\$\{\{ inputs\.(\w+) \}\}")
    variables = {key: filled.sub(lambda m: given[m[1]], value) for key, value in step["env"].items()}
    variables |= {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    return run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"], step["run"], folder, variables)


@pytest.mark.parametrize(
    ("schema", "file"), [("vendor.github-actions", "github/action.yml"), ("vendor.gitlab-ci", "gitlab/medtrust.yml")]
)
def test_templates_follow_their_platforms_schemas(schema, file):
    """The schemas that the platforms publish, as check-jsonschema ships them."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(TEMPLATES / file)]
    if schema == "vendor.gitlab-ci":
        command[3:3] = ["--data-transform", "gitlab-ci"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_input_is_pasted_into_a_command():
    """Inputs reach the scripts as environment variables only: an expression in a script could inject a command."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]


def test_the_action_passes_the_verdict_on(sets, tmp_path):
    """Exit code, outputs and summary come from the report; a space in a path and a hostile name do no harm."""
    done = action_step(sets, tmp_path, out="a folder; touch pwned")
    report = json.loads((tmp_path / "a folder; touch pwned/report.json").read_bytes())
    assert done.returncode == report["exit_code"], done.stderr
    assert f"verdict={report['verdict']}" in (tmp_path / "output").read_text()
    assert report["integrity"]["sha256"] in (tmp_path / "summary").read_text()
    assert {p.name for p in (tmp_path / "a folder; touch pwned").iterdir()} >= {"report.junit.xml", "report.sarif"}
    assert not (tmp_path / "pwned").exists()


def test_the_action_stops_where_the_audit_cannot_run(sets, tmp_path):
    """A wrong policy exits 2, the summary says so, and an old report is not taken for a new one."""
    (tmp_path / "medtrust-report").mkdir()
    (tmp_path / "medtrust-report/report.json").write_text('{"verdict": "PASS"}')
    done = action_step(sets, tmp_path, policy="no-such-policy")
    assert done.returncode == 2
    assert "verdict=" not in (tmp_path / "output").read_text()
    assert "could not finish" in (tmp_path / "summary").read_text()


def test_the_gitlab_job_fails_by_the_verdict(sets, tmp_path):
    """The script part leaves the files that the job declares as artifacts, and exits as the gate does."""
    variables = {**JOB["variables"], **{f"TRUST_{name.upper()}": str(path) for name, path in sets.items()}}
    done = run(["sh", "-ec"], "\n".join(JOB["script"]), tmp_path, variables)
    report = json.loads((tmp_path / "medtrust-report/report.json").read_bytes())
    assert done.returncode == report["exit_code"], done.stderr
    junit = JOB["artifacts"]["reports"]["junit"].replace("$TRUST_OUT", "medtrust-report")
    assert (tmp_path / junit).is_file()
    assert not any("private" in path for path in JOB["artifacts"]["paths"])
