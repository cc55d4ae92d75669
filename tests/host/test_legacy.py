"""The frozen plugin of interface version 1 still works: every hook, without a failure or a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from audit_sets import write_sets

import medtrust
from medtrust.config import load_config
from medtrust.host import Host
from medtrust.types import Limits


def test_a_plugin_of_version_1_works(hosted: Callable[..., Host], install, tmp_path: Path) -> None:
    """It is found, audited with, told of everything, and warned of nothing."""
    install("legacy_v1")
    sets = write_sets(tmp_path / "sets", seed=8, patients=8, synthetic=12)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        report = medtrust.audit(
            train=sets["train"],
            synthetic="old_noise",
            n_synthetic=12,
            features="old_mean",
            metrics=("old_gap", "c2st", "old_gradient"),
            formats=("old_ids",),
            out=tmp_path / "out",
            config=load_config({"seed": 3}, env={}),
        )
    assert report.plugin_failures == ()
    assert report["fidelity.old_gap[old_mean]"].status == "ok"
    assert "fidelity.old_gap[old_mean]" in (tmp_path / "out" / "old-ids.txt").read_text()
    assert report["fidelity.declared"].estimate.value == 0
    heard = sys.modules["legacy_v1.plugin"].heard  # type: ignore[attr-defined]
    assert ("configure", 3) in heard
    assert {("before", "old_gap"), ("after", "fidelity.old_gap[old_mean]")} <= set(heard)
    assert ("report", "medtrust.report/1") in heard
    host = hosted("legacy_v1")
    reader = host.load(host.find("format", "old_raw"))()
    path = tmp_path / "a.oldraw"
    path.write_bytes(bytes(range(16)))
    (header,) = reader.scan(path, Limits())
    assert np.array_equal(reader.read(path, header, Limits()).ravel(), np.arange(16))
    assert callable(host.load(host.find("explainer", "old_gradient")))
