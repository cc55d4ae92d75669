"""Sets that hold next to nothing, through a whole audit: every row is a finite number or says why it is none."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from audit_sets import random_patches, write_folder

from medtrust import audit

METRICS = (
    "fd", "kid", "prdc", "ssim_diversity", "intensity", "spectrum", "fd_infinity", "fd_ratio", "mmd", "clipped",
    "vendi", "frd", "noise_spectrum", "inception_score",
)  # fmt: skip


def _sets(case: str) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    blank, one = np.full((24, 24, 24, 3), 128, np.uint8), random_patches(rng, 1).repeat(24, 0)
    real = [random_patches(rng, 24) for _ in range(3)]
    return {
        "constant": [blank, blank, blank],
        "two images": [images[:2] for images in real],
        "fewer images than features": real,
        "duplicates of one": [one, one, one],
        "synthetic duplicates": [*real[:2], one],
    }[case]


def _finite(value: Any) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            _finite(each)
    elif isinstance(value, float):
        assert math.isfinite(value)


@pytest.mark.parametrize(
    ("case", "answered"),
    [
        ("constant", False),
        ("two images", False),
        ("fewer images than features", True),
        ("duplicates of one", False),
        ("synthetic duplicates", True),
    ],
)
def test_a_number_or_a_reason(tmp_path, case: str, answered: bool) -> None:
    """No NaN, no plugin that breaks, and a reason on every row without a number."""
    folders = {}
    for name, images in zip(("train", "holdout", "synthetic"), _sets(case), strict=True):
        folders[name] = write_folder(tmp_path / name, images, [f"{name}-{i}" for i in range(len(images))])
    report = audit(**folders, metrics=METRICS, cache=tmp_path / "cache", out=tmp_path / "out", formats=("html",))
    assert not report.plugin_failures
    for row in report.results:
        assert row.status in ("ok", "insufficient"), row.reason
        assert row.estimate if row.status == "ok" else row.reason
    fd = next(row for row in report.results if row.id == "fidelity.fd[radiomics]")
    assert (fd.status == "ok") == answered
    text = (tmp_path / "out" / "report.json").read_text()
    _finite(json.loads(text, parse_constant=lambda name: pytest.fail(f"the report holds {name}")))
    assert "NaN" not in (tmp_path / "out" / "report.html").read_text()
