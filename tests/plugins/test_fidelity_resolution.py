"""Does a difference of the size that a result calls detectable get detected as often as it says?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from medtrust import FeatureMatrix, Intensity, MetricInput
from medtrust.types import Result, SetData
from medtrust_fidelity.fd import FrechetDistance
from medtrust_fidelity.kid import KernelDistance

N, D = 80, 6


def set_of(name: Any, values: torch.Tensor) -> SetData:
    patients = tuple(f"{name}-{i}" for i in range(len(values)))
    return SetData(name, (), patients, patients, FeatureMatrix(values.float(), patients, patients, "x", "0"))


def shift_for_fd(distance: float) -> float:
    """Shift s of the mean of a Gaussian that has this Fréchet distance, s²."""
    return distance**0.5


def shift_for_kid(distance: float) -> float:
    """Shift s of the mean of a standard Gaussian that has this kernel distance, a cubic in s²."""
    squares = np.linspace(0, 36, 360_001)
    third = squares**3 + 6 * squares**2 + (3 * D + 6) * squares
    return float(squares[np.searchsorted(3 * squares / D + 3 * squares**2 / D**2 + third / D**3, distance)] ** 0.5)


def above_null(result: Result) -> bool:
    assert result.interval
    assert result.null
    return result.interval.lo > result.null.value


@pytest.mark.parametrize(
    ("metric", "shift_for"), [(FrechetDistance(), shift_for_fd), (KernelDistance(), shift_for_kid)], ids=["fd", "kid"]
)
def test_the_resolution_is_what_is_seen_four_times_in_five(metric: Any, shift_for: Callable[[float], float]) -> None:
    """A shift of the stated size is seen about as often as stated, a quarter of it seldom, none hardly ever."""
    seen: dict[float, list[bool]] = {1.0: [], 0.25: [], 0.0: []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        train, holdout, fresh = (torch.from_numpy(rng.standard_normal((N, D))) for _ in range(3))

        def ask(synthetic: torch.Tensor, *real: torch.Tensor, seed: int = seed) -> Result:
            sets = (set_of("train", real[0]), set_of("synthetic", synthetic), set_of("holdout", real[1]))
            answer: Result = metric.compute(MetricInput(*sets, Intensity(0, 1, "a.u."), seed=seed))
            return answer

        clean = ask(fresh, train, holdout)
        assert clean.resolution
        for share, hits in seen.items():
            moved = fresh.clone()
            moved[:, 0] += shift_for(share * clean.resolution.min_detectable)
            hits.append(above_null(ask(moved, train, holdout)))
    assert 0.65 <= np.mean(seen[1.0]) <= 0.98
    assert np.mean(seen[0.25]) <= 0.5
    assert np.mean(seen[0.0]) <= 0.1
