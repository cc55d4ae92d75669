"""`medtrust plugins new`: what it writes installs, is typed, passes its own tests, and overwrites nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medtrust.cli import main
from medtrust.errors import ConfigError
from medtrust.scaffold import KINDS, check_name, write_plugin

ROOT = Path(__file__).parents[1]


def python(*words: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with `path` installed in front."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("generator", "features", "explainer")]


@pytest.mark.parametrize("kind", ["metric", "format", *SLOW])
def test_what_is_written_works_at_once(kind: str, tmp_path: Path) -> None:
    """pip installs it without a network into a clean folder, its tests find it there by its entry point, and pass."""
    name = f"a-new-{kind}"
    assert main(["plugins", "new", name, "--kind", kind, "--folder", str(tmp_path)]) == 0
    project, site = tmp_path / name, tmp_path / "site"
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site))
    installed = python("-m", "pip", "install", *options, str(project), cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    assert (site / name.replace("-", "_") / "py.typed").exists()
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project, path=site)
    assert tested.returncode == 0, tested.stdout
    assert int(re.search(r"(\d+) passed", tested.stdout)[1]) > 7
    assert f"{kind}" in python("-m", "medtrust", "plugins", "show", name, cwd=tmp_path, path=site).stdout


@pytest.mark.slow
def test_what_is_written_is_typed(tmp_path: Path) -> None:
    """mypy --strict has nothing to say of any kind."""
    for kind in KINDS:
        write_plugin(f"typed-{kind}", kind, tmp_path)
    sources = [str(path) for path in sorted(tmp_path.glob("*/src/*"))]
    typed = python("-m", "mypy", "--strict", "--no-error-summary", *sources, cwd=ROOT)
    assert typed.returncode == 0, typed.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_tidy(kind: str, tmp_path: Path) -> None:
    """Ruff would neither change nor criticise a line."""
    write_plugin("tidy-one", kind, tmp_path)
    for words in (("check", "--select", "E,F,I,B,UP"), ("format", "--check")):
        command = ("-m", "ruff", *words, "--isolated", "--line-length", "120", ".")
        tidy = python(*command, cwd=tmp_path / "tidy-one")
        assert tidy.returncode == 0, tidy.stdout


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of that name stays as it is, and the command says so."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("years")
    assert main(["plugins", "new", "mine", "--kind", "metric", "--folder", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work.txt"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "lower-case"),
        ("../up", "lower-case"),
        ("Mine", "lower-case"),
        ("a--b", "lower-case"),
        ("1st", "lower-case"),
        ("a/b", "lower-case"),
        ("a\nb", "lower-case"),
        ("x" * 61, "lower-case"),
        ("class", "word of Python"),
        ("match", "word of Python"),
        ("json", "installed already"),
        ("numpy", "installed already"),
        ("medtrust-mine", "begin with medtrust"),
    ],
)
def test_bad_names_are_refused(name: str, why: str, tmp_path: Path) -> None:
    """No file is written for a name that could not be installed or imported."""
    with pytest.raises(ConfigError, match=why):
        write_plugin(name, "metric", tmp_path)
    assert not any(tmp_path.iterdir())


def test_good_names_give_good_packages() -> None:
    """Hyphens become underscores."""
    assert check_name("edge-sharpness-2") == "edge_sharpness_2"


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """The kinds are named."""
    with pytest.raises(ConfigError, match="metric, generator"):
        write_plugin("mine", "hologram", tmp_path)
