"""The distributions of plugins/ that are not medtrust's own: pip installs them, they are found, checked, and used."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from audit_sets import write_sets

ROOT = Path(__file__).parents[1]
PEERS = {
    "torch-fidelity": ("torch_fidelity", ("torch_fidelity",)),
    "torchmetrics": ("torchmetrics", ("torchmetrics", "torch_fidelity")),
    "monai": ("monai", ("monai",)),
}


def install(project: Path, site: Path) -> None:
    """Install into a clean folder, without a network; the source tree is copied so that no build output lands in it."""
    copy = site.parent / "source"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site))
    command = [sys.executable, "-m", "pip", "install", *options, str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def medtrust(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medtrust", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def audited(site: Path, place: Path, metrics: str) -> dict[str, dict]:
    sets = write_sets(place / "sets", seed=4, patients=12, synthetic=24)
    words = [part for name, path in sets.items() for part in (f"--{name}", str(path))]
    done = medtrust(site, "audit", *words, "--metrics", metrics, "--out", str(place / "out"), "--quiet")
    assert done.returncode in (0, 1, 3), done.stderr
    report = json.loads((place / "out" / "report.json").read_bytes())
    assert report["plugin_failures"] == []
    return {row["id"]: row for row in report["results"]}


def test_the_example_is_installed_found_checked_and_used(tmp_path: Path) -> None:
    """The tutorial's plugin goes the whole road, and its own tests pass where it is installed."""
    install(ROOT / "plugins" / "example", tmp_path / "site")
    shown = json.loads(medtrust(tmp_path / "site", "plugins", "show", "edge-sharpness/edge_sharpness", "--json").stdout)
    assert (shown["distribution"], shown["version"], shown["status"]) == ("edge-sharpness", "0.1.0", "ok")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tested = subprocess.run(command, cwd=tmp_path / "source", env=env, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
    row = audited(tmp_path / "site", tmp_path, "edge_sharpness")["fidelity.edge_sharpness"]
    assert row["status"] == "ok"
    assert row["interval"]["lo"] <= row["estimate"]["value"] <= row["interval"]["hi"]
    assert row["null"]["reference"] == "train against holdout"


@pytest.mark.parametrize(
    "name", ["torch-fidelity", *(pytest.param(n, marks=pytest.mark.slow) for n in ("torchmetrics", "monai"))]
)
def test_peers_come_in_by_the_public_road(name: str, tmp_path: Path) -> None:
    """Each is below 100 lines, is found and used, and says what its number is; FID is near our own uncorrected one."""
    metric, needed = PEERS[name]
    lacking = [package for package in needed if importlib.util.find_spec(package) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} is not installed; it is in the extra `peers`")
    project = ROOT / "plugins" / "peers" / name
    assert sum(len(path.read_text().splitlines()) for path in project.rglob("*.py")) < 100
    install(project, tmp_path / "site")
    rows = audited(tmp_path / "site", tmp_path, f"{metric},fd")
    (fid,) = (row for key, row in rows.items() if "_fid" in key)
    ours = rows["fidelity.fd[radiomics]"]
    # they divide covariances by n - 1, and our plug-in value by n: 24 images make that 4 %
    assert fid["estimate"]["value"] == pytest.approx(ours["facts"]["plug_in"], rel=0.06)
    for key, row in rows.items():
        if key.partition("[")[0] != "fidelity.fd":
            assert row["status"] == "ok", row["reason"]
            assert "no interval" in row["notes"][0]
