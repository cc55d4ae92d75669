"""The documentation site builds, and a warning is an error."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every link and anchor between pages leads somewhere."""
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed; it is in the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in (
        "index.html",
        "plugins/index.html",
        "plugins/hooks/index.html",
        "metrics/index.html",
        "reference/ops/index.html",
    ):
        assert (tmp_path / "site" / page).exists()


@pytest.mark.parametrize("package", ["ops", "stats", "types"])
def test_the_reference_lists_every_public_module(package: str) -> None:
    """A module that is not on its package's page would be missing from the reference."""
    page = (ROOT / "docs" / "reference" / f"{package}.md").read_text()
    folder = ROOT / "medtrust" / package
    public = {path.stem for path in folder.glob("[!_]*.py") if not path.stem.startswith("reference")}
    listed = {line.rsplit(".", 1)[1] for line in page.splitlines() if line.startswith(":::")}
    assert listed == public, f"docs/reference/{package}.md lacks or has too much of {sorted(listed ^ public)}"
