"""benchmarks/gpu.py without a device: its dry run, its refusal, and results of other sources."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


def test_dry_run_checks_everything(gpu, capsys):
    """Every check passes at small size on the processor, and every race has a peer or says who is missing."""
    assert gpu.dry_run(1) == 0
    told = capsys.readouterr().out
    assert told.count("passed") == len(importlib.import_module("gpu_checks").CHECKS) >= 12
    assert "FAILED" not in told
    for case in ("SSIM Gauss 11", "MS-SSIM", "DDIM + guidance", "VAE latent", "nearest 5", "PRDC", "MMD", "covariance"):
        assert f"| {case}" in told
    assert gpu.csrc_digest() in told


def test_a_wrong_kernel_fails_the_check(gpu, monkeypatch):
    """A check whose op is off by more than its limit is reported as failed."""
    checks = importlib.import_module("gpu_checks")
    right = checks.ops.mmd
    monkeypatch.setattr(checks.ops, "mmd", lambda *a: right(*a) * (1 + 1e-3))
    wrong = [one["check"] for one in gpu.check("cpu", True) if not one["passed"]]
    assert wrong == ["mmd against its twin, relative"]


def test_results_of_other_sources_are_stale(gpu, tmp_path):
    """A device result is stale once csrc/ has changed; results of processors are not judged."""
    for name, digest in (("new", "abc"), ("old", "xyz")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"device": {}, "machine": {"csrc": digest}}))
    (tmp_path / "unknown.json").write_text(json.dumps({"device": {}}))
    (tmp_path / "cpu.json").write_text(json.dumps({"machine": {"csrc": "xyz"}}))
    assert gpu.stale_results(tmp_path, "abc") == ["old.json", "unknown.json"]


def test_committed_results_are_fresh(gpu):
    """A committed device result that was measured on other sources is reported by name."""
    stale = gpu.stale_results(gpu.RESULTS, gpu.csrc_digest())
    if stale:
        pytest.skip(f"stale, measured on other csrc/: {', '.join(stale)}; run benchmarks/gpu.py on that device again")


def test_without_a_device_it_stops():
    """Without a device and without --dry-run the script stops with a sentence, and writes nothing."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch finds no CUDA device; use --dry-run" in done.stderr
