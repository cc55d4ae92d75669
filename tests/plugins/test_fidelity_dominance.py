"""Does a result say so where a few patients decide how certain it is?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medtrust import FeatureMatrix, Intensity, MetricInput
from medtrust.types import SetData
from medtrust_fidelity.fd import FrechetDistance
from medtrust_fidelity.kid import KernelDistance
from medtrust_fidelity.mmd import GaussianDistance


def sets(outlier: float) -> MetricInput:
    rng = np.random.default_rng(4)
    parts = []
    for name in ("train", "synthetic", "holdout"):
        values = rng.standard_normal((120, 5))
        if name == "synthetic":
            values[0] *= outlier
        patients = tuple(f"{name}-{i}" for i in range(120))
        matrix = FeatureMatrix(torch.from_numpy(values).float(), patients, patients, "x", "0")
        parts.append(SetData(name, (), patients, patients, matrix))  # type: ignore[arg-type]
    return MetricInput(*parts, Intensity(0, 1, "a.u."), seed=1)


@pytest.mark.parametrize("metric", [FrechetDistance(), KernelDistance()], ids=["fd", "kid"])
def test_one_patient_who_decides_is_noted(metric: Any) -> None:
    """The note comes with the outlier and not without it; the share is among the facts."""
    calm, wild = metric.compute(sets(1.0)), metric.compute(sets(40.0))
    assert not [note for note in calm.notes if "most influential" in note]
    assert [note for note in wild.notes if "most influential 1 % of the patients carry" in note]
    assert calm.facts["dominance"] < 0.5 < wild.facts["dominance"]


def test_a_bounded_kernel_is_not_decided_by_one_patient() -> None:
    """The Gaussian kernel sees the outlier as one patient among others."""
    assert GaussianDistance().compute(sets(40.0)).facts["dominance"] < 0.3
